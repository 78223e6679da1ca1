"""Denoising side by side: PLD against numpy, and an epoch's relabelling against writing all labels anew.

    denoise.py --bins target/release [--videos 1000000] [--store-videos 100000] [--rounds 3] [--work DIR]

First PLD alone on packed tracks in memory (T = 10, 1.6 classes a video): our loop by one thread and by all, numpy, the same
flips. Then a store of simulated scores whose epoch contradicts 1 % of all label rows (2 % of the visual ones, in a tenth of
the visual tracks): one command `vaplan denoise` to the durable commit, against all scores labelled and all labels written
by one durable commit, denoised by the same epoch (`relabel_store full`); and the same in a graph that is resident, as an epoch of
`vaplan run` is: what changed (`epoch`) against all rows of labels (`rewrite`). Seconds, and bytes of the files that were written.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from relabel import copy, measured, run

K, ALPHA, GUARD = 5, 10.0, 0.5


def by_numpy(probability, label):
    """Which labels to flip; [N, T]."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -np.log(np.where(label > 0.5, p, 1 - p))
    base = np.partition(loss, K - 1, axis=1)[:, :K].mean(axis=1, keepdims=True)
    return (loss > ALPHA * base) & (np.abs(probability.astype(np.float64) - label) > GUARD)


def tracks(count):
    """Probabilities near labels that come in runs, every tenth track with two segments that contradict; [N, 10] each."""
    random = np.random.default_rng(7)
    begin, length = random.integers(0, 10, (count, 1)), random.integers(0, 10, (count, 1))
    segment = np.arange(10)[None, :]
    label = ((segment >= begin) & (segment < begin + length)).astype(np.float32)
    off = random.uniform(0.001, 0.1, (count, 10)).astype(np.float32)
    wrong = (random.random((count, 1)) < 0.1) & (random.random((count, 10)) < 0.2)
    return np.abs(np.where(wrong, 1 - label, label) - off).astype(np.float32), label


def written(store, before):
    """Bytes of files that were not there before."""
    total = 0
    for folder, _, files in os.walk(store):
        for file in files:
            path = f"{folder}/{file}"
            if os.path.relpath(path, store) not in before and not file.startswith("lock"):
                total += os.path.getsize(path)
    return total


def listed(store):
    return {os.path.relpath(f"{folder}/{file}", store) for folder, _, files in os.walk(store) for file in files}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--videos", type=int, default=1_000_000)
    options.add_argument("--store-videos", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--work")
    options = options.parse_args()
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")
    vaplan, stores, pld = (f"{options.bins}/{name}" for name in ("vaplan", "relabel_store", "pld"))
    best = {}

    def keep(name, value):
        best[name] = min(best.get(name, value), value)

    probability, label = tracks(options.videos * 8 // 5)
    np.save(f"{work}/probability.npy", probability)
    np.save(f"{work}/label.npy", label)
    flips = set()
    for _ in range(options.rounds):
        start = time.perf_counter()
        flips.add(int(by_numpy(probability, label).sum()))
        keep("numpy", time.perf_counter() - start)
        for threads in (1, os.cpu_count()):
            told = json.loads(run([pld, f"{work}/probability.npy", f"{work}/label.npy", str(K), str(ALPHA), str(GUARD), str(threads)])[1])
            flips.add(told["flips"])
            keep(f"{threads} threads", told["seconds"])
    if len(flips) != 1:
        sys.exit(f"they do not agree: {sorted(flips)} flips")
    print(f"PLD of {options.videos} videos x 10 segments x 1.6 classes, {flips.pop()} flips; best of {options.rounds}")
    print(f"  numpy {best['numpy']:.2f} s")
    for name in (f"{threads} threads" for threads in sorted({1, os.cpu_count()})):
        print(f"  vaplan, {name}: {best[name]:.2f} s: {best['numpy'] / best[name]:.1f} times faster than numpy")
    del probability, label

    store = f"{work}/epoch"
    if not os.path.exists(f"{store}/predictions"):
        run([stores, "make", store, str(options.store_videos)])
        run([stores, "predict", store, "1"])
    for _ in range(options.rounds):
        for name, command, more in (
            ("denoise", [vaplan, "denoise", "--quiet", "--epoch", "1", "--store"], []),
            ("full", [stores, "full"], ["1"]),
            ("epoch", [stores, "epoch"], ["1"]),
            ("rewrite", [stores, "rewrite"], ["1"]),
            ("thresholds", [vaplan, "relabel", "--quiet", "--visual-threshold", "1.035", "--audio-threshold", "0.96", "--store"], []),
        ):
            changed = copy(store, work)
            before = listed(changed)
            if name == "thresholds":
                seconds, _ = measured([*command, changed, *more])
            else:
                seconds, said = run([*command, changed, *more])
            if name in ("epoch", "rewrite"):
                seconds = json.loads(said)["seconds"]
            keep(f"{name} bytes", written(changed, before))
            keep(name, seconds)
            if name == "denoise":
                version = said.strip().splitlines()[-1]
    peak = measured([vaplan, "denoise", "--quiet", "--epoch", "1", "--store", copy(store, work)])[1]
    print(f"an epoch of {options.store_videos} videos; best of {options.rounds}, each synced; {version}")
    print(f"  vaplan denoise {best['denoise']:.2f} s, {best['denoise bytes'] / 1e6:.1f} MB written; all labels anew {best['full']:.2f} s, "
          f"{best['full bytes'] / 1e6:.1f} MB")
    print(f"  {peak:.0f} MiB of memory; all labels anew bucket by bucket, by new thresholds: {best['thresholds']:.2f} s, "
          f"{best['thresholds bytes'] / 1e6:.1f} MB")
    print(f"  {best['full'] / best['denoise']:.1f} times faster, {best['full bytes'] / best['denoise bytes']:.1f} times less written")
    print(f"  in a resident graph, as a step of `run`: {best['epoch']:.2f} s, {best['epoch bytes'] / 1e6:.1f} MB; all rows of labels rewritten "
          f"{best['rewrite']:.2f} s, {best['rewrite bytes'] / 1e6:.1f} MB")
    print(f"  {best['rewrite'] / best['epoch']:.1f} times faster, {best['rewrite bytes'] / best['epoch bytes']:.1f} times less written; "
          f"{best['full'] / best['epoch']:.1f} times faster than all labels anew")
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
