"""PLG from Parquet shards as a researcher would write it: numpy and pyarrow, vectorised, row group by row group.

    label.py ANNOTATIONS VISUAL VISUAL_TEXT AUDIO AUDIO_TEXT OUT

Reads the same shards and weak labels as `vaplan label`, and writes scores and labels of the classes of the weak label
as Parquet, with the same thresholds. No versions, no checks, no resume. Names stay dictionary-encoded, row
groups fit the cache, and softmax is in f32, so that it is a fair one. Prints one JSON object.
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

THRESHOLD = {"audio": 0.95, "visual": 1.025}


def read_annotations(folder):
    """Classes, row of each video, and weak labels (V, C)."""
    with open(os.path.join(folder, "classes.txt")) as file:
        classes = [line.strip() for line in file if line.strip()]
    position = {name: c for c, name in enumerate(classes)}
    names, weak = [], []
    for split in ("train", "val_pd", "test_pd"):
        for path in glob.glob(os.path.join(folder, f"*{split}.csv")):
            with open(path, newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    names.append(row["filename"])
                    label = np.zeros(len(classes), bool)
                    label[[position[name] for name in row["event_labels"].split(",")]] = True
                    weak.append(label)
    return classes, {name: v for v, name in enumerate(names)}, np.array(weak)


def features(column):
    """(N, D) f32 of one chunk, fixed-size binary or list of f16."""
    if pa.types.is_fixed_size_binary(column.type):
        width = column.type.byte_width // 2
        values = np.frombuffer(column.buffers()[1], np.float16, len(column) * width, 2 * width * column.offset)
    else:
        width = column.type.list_size
        values = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(-1, width).astype(np.float32)


def score_of(x, text):
    """Cosines and probabilities (N, C)."""
    x /= np.sqrt(np.einsum("nd,nd->n", x, x))[:, None]
    cosine = x @ text.T
    score = np.exp(cosine)
    score /= score.sum(axis=1, keepdims=True)
    return cosine, score


def main():
    annotations, visual, visual_text, audio, audio_text, out = sys.argv[1:]
    start = time.perf_counter()
    os.makedirs(out, exist_ok=True)
    classes, position, weak = read_annotations(annotations)
    class_names = pa.array(classes)
    rows = set_cells = 0
    scores = labels = None
    for modality, folder, text_path in (("visual", visual, visual_text), ("audio", audio, audio_text)):
        text = np.load(text_path).astype(np.float32)
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        cutoff = THRESHOLD[modality] / len(classes)
        for path in sorted(glob.glob(os.path.join(folder, "*.parquet"))):
            file = pq.ParquetFile(path, read_dictionary=["video"])
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["video", "segment", "feature"])
                for batch in table.to_batches():
                    video = batch.column("video")
                    known = np.array([position[name] for name in video.dictionary.to_pylist()])
                    cosine, score = score_of(features(batch.column("feature")), text)
                    n, c = np.nonzero(weak[known[video.indices.to_numpy()]])
                    cosine, score = cosine[n, c], score[n, c].astype(np.float64)
                    label = score > cutoff
                    key = {
                        "video": pa.DictionaryArray.from_arrays(video.indices.take(pa.array(n)), video.dictionary),
                        "modality": pa.DictionaryArray.from_arrays(np.zeros(len(n), np.int32), pa.array([modality])),
                        "class": pa.DictionaryArray.from_arrays(c.astype(np.int32), class_names),
                        "segment": pa.array(batch.column("segment").to_numpy()[n].astype(np.int32)),
                    }
                    kept = pa.record_batch({**key, "cosine": pa.array(cosine), "score": pa.array(score)})
                    why = np.full(len(n), cutoff)
                    set_ = pa.record_batch({**key, "label": label, "score": pa.array(score), "threshold": why})
                    if scores is None:
                        scores = pq.ParquetWriter(os.path.join(out, "scores.parquet"), kept.schema)
                        labels = pq.ParquetWriter(os.path.join(out, "labels.parquet"), set_.schema)
                    scores.write_batch(kept)
                    labels.write_batch(set_)
                    rows += len(n)
                    set_cells += int(label.sum())
    scores.close()
    labels.close()
    print(json.dumps({"seconds": time.perf_counter() - start, "rows": rows, "set": set_cells}))


if __name__ == "__main__":
    main()
