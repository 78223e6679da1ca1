"""A store after many changes: are commands, queries and the disk still as good as at the beginning?

    upkeep.py --bins target/release [--videos 100000] [--changes 200] [--rounds 5] [--work DIR]

1. `--changes` commands `vaplan relabel` in a row, each one user label: the median time of the first and of the last 20.
2. Then 40 changes of 1 % of the videos. A query of DuckDB and one of Polars read the labels, and read them in a copy after `vaplan
   optimize`: the best of `--rounds`, and the ratio.
3. The size of the store after `vaplan vacuum --keep 1`, against that of the same store after `optimize` and `vacuum`.
"""

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time

from relabel import copy, run


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def size(store):
    return sum(os.path.getsize(f"{folder}/{name}") for folder, _, names in os.walk(store) for name in names)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--videos", type=int, default=100_000)
    options.add_argument("--changes", type=int, default=200)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--work")
    options = options.parse_args()
    import duckdb
    import polars as pl

    vaplan, stores = f"{options.bins}/vaplan", f"{options.bins}/relabel_store"
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")
    fresh = f"{work}/upkeep"
    if not os.path.exists(f"{fresh}/versions"):
        run([stores, "make", fresh, str(options.videos)])
    store = copy(fresh, work)
    table = pl.scan_parquet(f"{store}/videos/b*.parquet").select("video", pl.col("weak_labels").list.first().alias("class"))
    classes = table.sort("video").collect()["class"].to_list()
    marks = f"{work}/marks.csv"

    def change(videos, label, segment):
        with open(marks, "w") as file:
            file.write("video,modality,class,label,segment\n")
            file.writelines(f"v{number:010}_0_10,visual,{classes[number]},{label},{segment}\n" for number in videos)
        return run([vaplan, "relabel", "--quiet", "--store", store, "--user", marks])[0]

    took = [change([nth * 37 % options.videos], nth % 2, 3) for nth in range(options.changes)]
    first, last = statistics.median(took[:20]), statistics.median(took[-20:])
    print(f"{options.videos} videos, {options.changes} changes of one label: the first 20 {first * 1e3:.1f} ms, the last 20 {last * 1e3:.1f} ms, "
          f"ratio {last / first:.2f}")
    for nth in range(40):
        change(range(nth, options.videos, 100), nth % 2, nth % 10)
    plain = f"{work}/plain"
    shutil.rmtree(plain, ignore_errors=True)
    shutil.copytree(store, plain)
    run([vaplan, "optimize", "--quiet", "--store", plain])

    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    package = os.path.dirname(importlib.util.find_spec("duckdb_extension_delta").origin)
    connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/delta.duckdb_extension'")
    count = "SELECT modality, class, sum(list_sum([x::int for x in label])) FROM delta_scan('{}/labels') GROUP BY ALL ORDER BY ALL"
    queries = {
        "DuckDB": lambda of: connection.sql(count.format(of)).fetchall(),
        "Polars": lambda of: pl.scan_delta(f"{of}/labels").group_by("modality", "class").agg(
            pl.col("label").list.sum().sum()).sort("modality", "class").collect().rows(),
    }
    for name, query in queries.items():
        if query(store) != query(plain):
            raise SystemExit(f"{name}: the answers differ")
        changed, compacted = (min(seconds(lambda: query(of)) for _ in range(options.rounds)) for of in (store, plain))
        print(f"  {name} after 40 changes of 1 % of the videos: {changed * 1e3:.0f} ms, compacted {compacted * 1e3:.0f} ms, ratio {changed / compacted:.2f}")
    for of in (store, plain):
        run([vaplan, "vacuum", "--quiet", "--keep", "1", "--store", of])
    print(f"  size after vacuum: {size(store) / 1e6:.1f} MB, compacted {size(plain) / 1e6:.1f} MB, ratio {size(store) / size(plain):.2f}; "
          f"before all changes {size(fresh) / 1e6:.1f} MB")
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
