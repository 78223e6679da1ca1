"""Relabelling side by side: a change's own cost, labelling everything anew, numpy on packed arrays, Polars on Parquet.

    relabel.py --bins target/release [--videos 1000000] [--rounds 3] [--work DIR]

Makes a store of simulated scores (T = 10, 1.6 weak labels, 25 classes), then changes copies of it (hard links: no file of
a store is ever written twice) and prints the best of `--rounds` and the ratios. All end with what they wrote synced.
`all anew` reads all scores, labels them by a graph in memory and writes all labels (`relabel_store full`); `all thresholds` is the
command that does the same to the tables bucket by bucket, with history. Then 1 % of 10,000 videos against the MERGE of the Python
package deltalake.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time


def run(command):
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return time.perf_counter() - start, done.stdout


def measured(command):
    """Seconds and peak memory in MiB of a command."""
    here = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run([sys.executable, "-S", f"{here}/by_hand/start.py", *command], capture_output=True, text=True)
    found = json.loads(done.stdout)
    if found["status"] != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return found["seconds"], found["kib"] / 1024


def copy(store, work):
    target = f"{work}/changed"
    shutil.rmtree(target, ignore_errors=True)
    run(["cp", "-al", store, target])
    # The lock is the one file that is written in place.
    os.remove(f"{target}/_vaplan/lock")
    os.sync()
    return target


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--videos", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--work")
    options = options.parse_args()
    vaplan, stores = f"{options.bins}/vaplan", f"{options.bins}/relabel_store"
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")
    by_hand = [sys.executable, f"{here}/by_hand/relabel.py"]

    def made(name, videos):
        store = f"{work}/{name}"
        if not os.path.exists(f"{store}/versions"):
            run([stores, "make", store, str(videos)])
        return store

    def marks(every, videos):
        path = f"{work}/every{every}.csv"
        with open(path, "w") as file:
            file.write("video,modality,class,label,segment\n")
            for number, name in first_class(videos, every):
                file.write(f"v{number:010}_0_10,visual,{name},1,3\n")
        return path

    def first_class(videos, every):
        import polars as pl

        table = pl.scan_parquet(f"{store}/videos/b*.parquet").select("video", pl.col("weak_labels").list.first().alias("class")).collect()
        classes = dict(zip(table["video"], table["class"]))
        return [(number, classes[f"v{number:010}_0_10"]) for number in range(0, videos, every)]

    store = made("store", options.videos)
    packed = f"{work}/packed"
    if not os.path.exists(packed):
        run([*by_hand, "pack", store, packed])
    changes = {
        "0.1 % of videos": ["--user", marks(1000, options.videos)],
        "1 % of videos": ["--user", marks(100, options.videos)],
        "10 % of videos": ["--user", marks(10, options.videos)],
        "one class of 25": ["--threshold", "visual/class 07=1.05"],
        "all thresholds": ["--visual-threshold", "1.035", "--audio-threshold", "0.96"],
    }
    best, memory = {}, {}

    def keep(name, seconds):
        best[name] = min(best.get(name, seconds), seconds)

    for _ in range(options.rounds):
        for name, change in changes.items():
            seconds, peak = measured([vaplan, "relabel", "--quiet", "--store", copy(store, work), *change])
            keep(name, seconds)
            memory[name] = max(memory.get(name, 0), peak)
        keep("full", json.loads(run([stores, "full", copy(store, work)])[1])["seconds"])
        keep("numpy", json.loads(run([*by_hand, "numpy", packed])[1])["seconds"])
        keep("polars", json.loads(run([*by_hand, "polars", packed])[1])["seconds"])
    print(f"{options.videos} videos x 10 segments x 2 modalities x 1.6 classes; best of {options.rounds}, each synced")
    print(f"  all anew: vaplan {best['full']:.2f} s, Polars {best['polars']:.2f} s, numpy {best['numpy']:.2f} s")
    for name in changes:
        times = ", ".join(f"{best[other] / best[name]:.1f} times faster than {label}" for other, label in
                          (("full", "vaplan all anew"), ("polars", "Polars"), ("numpy", "numpy")))
        print(f"  {name:<16} {best[name]:6.2f} s, {memory[name]:5.0f} MiB: {times}")

    store = made("small", 10_000)
    change, best = marks(100, 10_000), {}
    for _ in range(options.rounds):
        keep("vaplan", run([vaplan, "relabel", "--quiet", "--store", copy(store, work), "--user", change])[0])
        keep("merge", json.loads(run([*by_hand, "merge", copy(store, work), "100"])[1])["seconds"])
    print(f"1 % of 10000 videos: vaplan {best['vaplan'] * 1000:.0f} ms, deltalake MERGE {best['merge'] * 1000:.0f} ms "
          f"(in a running Python, not durable): {best['merge'] / best['vaplan']:.1f} times faster")
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
