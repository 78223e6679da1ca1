"""PLG from Parquet shards as a researcher would write it: numpy and pyarrow, vectorised, shard by shard.

    label.py ANNOTATIONS VISUAL VISUAL_TEXT AUDIO AUDIO_TEXT OUT

Reads the same shards and weak labels as `vaplan label`, and writes scores and labels of the classes of the weak label
as Parquet, with the same thresholds. No versions, no checks, no resume. Prints one JSON object.
"""

import csv
import glob
import json
import os
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

THRESHOLD = {"visual": 1.025, "audio": 0.95}


def weak_labels(folder, classes):
    position = {name: at for at, name in enumerate(classes)}
    weak = {}
    for suffix in ("train", "val_pd", "test_pd"):
        for path in glob.glob(os.path.join(folder, f"*{suffix}.csv")):
            with open(path, newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    row = row["filename"], row["event_labels"].split(",")
                    weak[row[0]] = [position[name] for name in row[1] if name in position]
    return weak


def features(table):
    column = table.column("feature").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0)
    if pa.types.is_fixed_size_binary(column.type):
        values = np.frombuffer(column.buffers()[1], dtype=np.float16)
    else:
        values = column.values.to_numpy()
    return values.reshape(len(column), -1).astype(np.float32)


def main():
    annotations, visual, visual_text, audio, audio_text, out = sys.argv[1:]
    start = time.perf_counter()
    with open(os.path.join(annotations, "classes.txt")) as file:
        classes = [line.strip() for line in file if line.strip()]
    weak = weak_labels(annotations, classes)
    os.makedirs(out, exist_ok=True)
    names = np.array(classes)
    rows = set_cells = 0
    for modality, folder, text in (("visual", visual, visual_text), ("audio", audio, audio_text)):
        prompts = np.load(text).astype(np.float32)
        prompts /= np.linalg.norm(prompts, axis=1, keepdims=True)
        cutoff = THRESHOLD[modality] / len(classes)
        for nth, path in enumerate(sorted(glob.glob(os.path.join(folder, "*.parquet")))):
            table = pq.read_table(path, columns=["video", "segment", "feature"])
            x = features(table)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            cosine = x @ prompts.T
            score = np.exp(cosine.astype(np.float64))
            score /= score.sum(axis=1, keepdims=True)
            video = table.column("video").combine_chunks()
            video = (video if isinstance(video, pa.DictionaryArray) else video.dictionary_encode())
            if isinstance(video, pa.ChunkedArray):
                video = video.chunk(0)
            allowed = np.zeros((len(video.dictionary), len(classes)), bool)
            for at, name in enumerate(video.dictionary.to_pylist()):
                allowed[at, weak[name]] = True
            row, column = np.nonzero(allowed[video.indices.to_numpy()])
            keep = pa.table({
                "video": video.take(pa.array(row)),
                "modality": pa.array([modality] * len(row)).dictionary_encode(),
                "class": pa.array(names[column]).dictionary_encode(),
                "segment": table.column("segment").combine_chunks().take(pa.array(row)),
                "cosine": pa.array(cosine[row, column]),
                "score": pa.array(score[row, column]),
            })
            label = score[row, column] > cutoff
            pq.write_table(keep, os.path.join(out, f"scores-{modality}-{nth:05d}.parquet"))
            pq.write_table(
                keep.drop_columns(["cosine"]).append_column("label", pa.array(label)),
                os.path.join(out, f"labels-{modality}-{nth:05d}.parquet"),
            )
            rows += len(row)
            set_cells += int(label.sum())
    print(json.dumps({"seconds": time.perf_counter() - start, "rows": rows, "set": set_cells}))


if __name__ == "__main__":
    main()
