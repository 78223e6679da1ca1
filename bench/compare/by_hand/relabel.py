"""Relabelling all cells by hand: numpy on packed arrays, and Polars on Parquet.

    relabel.py pack STORE OUT        scores of a store's first version as packed arrays, and as Parquet with one row per segment
    relabel.py numpy OUT             labels from packed arrays, written and synced; prints seconds
    relabel.py polars OUT            labels from that Parquet, written and synced; prints seconds
    relabel.py merge STORE VIDEOS    sets one segment of each of so many videos by deltalake's MERGE, in a copy of `labels` with
                                     one row per segment; prints the seconds of MERGE
"""

import glob
import json
import os
import sys
import time

CLASSES = [f"class {number:02}" for number in range(25)]
CUTOFF = {"visual": 1.025 * 1.01 / 25, "audio": 0.95 * 1.01 / 25}


def synced(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def scores(store):
    return sorted(glob.glob(f"{store}/scores/b*.parquet"))


def pack(store, out):
    import numpy as np
    import polars as pl

    os.makedirs(out, exist_ok=True)
    segments = (pl.scan_parquet(scores(store)).with_columns(pl.int_ranges(pl.col("score").list.len(), dtype=pl.Int32).alias("segment"))
                .explode("segment", "cosine", "score").select("video", "modality", "class", "segment", "cosine", "score"))
    segments.sink_parquet(f"{out}/segments.parquet", compression="snappy")
    table = pl.scan_parquet(f"{out}/segments.parquet").select(
        pl.col("score"),
        (pl.col("class").str.slice(6).cast(pl.UInt8) + 25 * (pl.col("modality") == "visual").cast(pl.UInt8)).alias("track"),
    ).collect()
    np.save(f"{out}/score.npy", table["score"].to_numpy())
    np.save(f"{out}/track.npy", table["track"].to_numpy())


def with_numpy(out):
    import numpy as np

    start = time.perf_counter()
    score, track = np.load(f"{out}/score.npy"), np.load(f"{out}/track.npy")
    cutoff = np.array([CUTOFF["audio"]] * 25 + [CUTOFF["visual"]] * 25)
    np.save(f"{out}/label.npy", score > cutoff[track])
    synced(f"{out}/label.npy")
    return time.perf_counter() - start


def with_polars(out):
    import polars as pl

    start = time.perf_counter()
    cutoffs = pl.LazyFrame([{"class": name, "modality": modality, "threshold": cutoff} for name in CLASSES for modality, cutoff in CUTOFF.items()])
    labels = (pl.scan_parquet(f"{out}/segments.parquet").join(cutoffs, on=["class", "modality"], how="left", maintain_order="left")
              .with_columns((pl.col("score") > pl.col("threshold")).alias("label"), pl.lit("plg").alias("rule"))
              .select("video", "modality", "class", "segment", "label", "rule", "score", "threshold"))
    labels.sink_parquet(f"{out}/labels.parquet", compression="snappy")
    synced(f"{out}/labels.parquet")
    return time.perf_counter() - start


def with_merge(store, videos):
    import polars as pl
    import pyarrow as pa
    from deltalake import DeltaTable

    copy = f"{store}/labels_by_segment"
    (pl.read_delta(f"{store}/labels").drop("why").with_columns(pl.int_ranges(pl.col("label").list.len(), dtype=pl.Int32).alias("segment"))
     .explode("segment", "label", "rule", "score").write_delta(copy, mode="overwrite"))
    names = [f"v{number:010}_0_10" for number in range(0, 100 * videos, 100)]
    start = time.perf_counter()
    table = DeltaTable(copy)
    # The same cells that the CSV of user labels names.
    source = pa.table({"video": names, "modality": ["visual"] * videos, "segment": pa.array([3] * videos, pa.int32())})
    (table.merge(source, "t.video = s.video AND t.modality = s.modality AND t.segment = s.segment", source_alias="s", target_alias="t")
     .when_matched_update({"label": "true", "rule": "'user'"}).execute())
    return time.perf_counter() - start


def main():
    match sys.argv[1:]:
        case ["pack", store, out]:
            pack(store, out)
            return
        case ["numpy", out]:
            seconds = with_numpy(out)
        case ["polars", out]:
            seconds = with_polars(out)
        case ["merge", store, videos]:
            seconds = with_merge(store, int(videos))
        case _:
            sys.exit(__doc__)
    print(json.dumps({"seconds": seconds}))


main()
