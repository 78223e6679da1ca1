#!/usr/bin/env python3
"""The Python package against the obvious ways in Python, in one run.

    PROFILE=release scripts/python-venv.sh
    .venv-py/bin/python bench/python.py --shared ../shared

Prints times (best of --repeats) and their ratios:
  evaluate   `vaplan.evaluate` on the 1,200 LLP test videos, against loops over numpy arrays as the public evaluators have
  flat       time per video of 100,000 videos against that of 1,200, in processor time
  labels     `store.labels("train")` and of all 11,849 videos of LLP, features simulated
  apply      `session.apply` of one epoch's probabilities of 10,000 videos from memory, against writing npy files and
             `vaplan relabel --predictions` on them
It fails if the scores differ by 1e-9 or more.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import vaplan

sys.path.insert(0, str(Path(__file__).resolve().parent / "compare"))
import eval as peer


def best(repeats, run, clock=time.perf_counter):
    times = []
    for _ in range(repeats):
        start = clock()
        answer = run()
        times.append(clock() - start)
    return min(times), answer


def evaluate(shared, repeats):
    names, truth = peer.truth(shared)
    order = (Path(shared) / "golden/eval/test_videos.txt").read_text().split()
    packed = np.load(f"{shared}/golden/eval/test_noisy.npy")
    place = [order.index(name) for name in names]
    pred = np.unpackbits(packed, axis=-1)[..., :25][place]  # (N, 2, T, C)
    videos = [(p[0].T.astype(float), p[1].T.astype(float), t[0], t[1]) for p, t in zip(pred, truth)]
    arrays = [pred[:, 0], pred[:, 1], truth[:, 0].transpose(0, 2, 1), truth[:, 1].transpose(0, 2, 1)]
    ours_seconds, ours = best(20 * repeats, lambda: vaplan.evaluate(*arrays))
    seconds, theirs = best(repeats, lambda: peer.evaluate(videos))
    peer.check(ours, theirs)
    print(f"evaluate  vaplan {ours_seconds * 1e3:8.2f} ms   python {seconds * 1e3:8.0f} ms   ratio {seconds / ours_seconds:.0f}")
    arrays = [np.ascontiguousarray(own, dtype=np.uint8) for own in arrays]
    many = [np.tile(own, (84, 1, 1))[:100_000] for own in arrays]
    # Processor time, because a longer run is interrupted more often.
    few, _ = best(20 * repeats, lambda: vaplan.evaluate(*arrays), time.process_time)
    of_many, _ = best(repeats, lambda: vaplan.evaluate(*many), time.process_time)
    print(f"flat      {few / 1200 * 1e6:.2f} us of CPU per video of 1,200, {of_many / 1e5 * 1e6:.2f} us of 100,000")


def store_of(shared, folder):
    """A store of all LLP videos with simulated features."""
    words = ["synth", "--annotations", f"{shared}/llp", "--out", f"{folder}/features", "--dim", "32", "--label-only"]
    assert vaplan._native.run(["vaplan", "--quiet", *words]) == 0
    features = f"{folder}/features"
    inputs = {name: f"{features}/{name}" for name in ("audio", "visual")}
    texts = {f"{name}_text": next(map(str, Path(features).glob(f"{name}_text.*"))) for name in ("audio", "visual")}
    return vaplan.label(f"{folder}/store", f"{shared}/llp", **inputs, **texts).store


def labels(store, repeats):
    for split in ("train", None):
        seconds, found = best(repeats, lambda: store.labels(split, "visual"))
        print(f"labels    {len(found.names):,} videos {seconds * 1e3:.0f} ms")


def apply(store, folder, repeats):
    names, train, _, _ = store.labels("train", "visual")
    generator = np.random.default_rng(1)

    def epoch(number):
        return {
            modality: np.abs(train - generator.uniform(0, 0.3, train.shape)).astype(np.float32)
            for modality in ("audio", "visual")
        }

    shutil.copytree(store.path, f"{folder}/twin")
    ours, theirs = [], []
    with store.session() as session:
        for number in range(1, repeats + 2):
            given = epoch(number)
            start = time.perf_counter()
            session.apply(predictions={"epoch": number, "names": names, **given}, list_changes=False)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            for modality, values in given.items():
                os.makedirs(f"{folder}/{number}/{modality}")
                for name, own in zip(names, values):
                    np.save(f"{folder}/{number}/{modality}/{name}.npy", own)
            words = ["relabel", "--store", f"{folder}/twin", "--predictions", f"{folder}/{number}", "--epoch", str(number)]
            assert vaplan._native.run(["vaplan", "--quiet", *words]) == 0
            theirs.append(time.perf_counter() - start)
    print(f"apply     memory {min(ours) * 1e3:8.0f} ms   npy {min(theirs) * 1e3:8.0f} ms   ratio {min(theirs) / min(ours):.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder of llp/ and golden/")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"load before {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, vaplan {vaplan.__version__}")
    evaluate(args.shared, args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(args.shared, folder)
        labels(store, args.repeats)
        apply(store, folder, args.repeats)
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
