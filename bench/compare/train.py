#!/usr/bin/env python3
"""Training of HAN against plain PyTorch of the same libtorch version, in one run.

    bench/run train        # networks are built for it; PYTHON=... one that has torch and safetensors

10,000 train videos of LLP's names with simulated features of the published shapes: VGGish (10,128), ResNet-152 (80,2048),
R(2+1)D (10,512), 6.9 GB. Both sides read the same files, begin with the same weights, and take the same batches with the
same labels. Side by side, one after the other, --rounds times:
  vaplan     `train_steps`: frames averaged once before, mapped, then steps as `vaplan train` makes them
  pooled     by_hand/train.py, averaged features in memory before the first step: the same graph
  published  by_hand/train.py, as published: npy files read in each step, frames averaged in the network
A step's time is the least of all steps and rounds, since neighbours on the machine only ever add to it.
It fails when the losses of 50 steps without dropout differ by 1e-4 or more, relative. Then `vaplan train` for one epoch
and `vaplan predict` over all 10,000 videos: videos a second and peak memory.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SHAPES = {"vggish": (10, 128), "res152": (80, 2048), "r2plus1d_18": (10, 512)}
VAPLAN_NAMES = ("res152", "vggish", "r2plus1d_18")


def simulate(work, videos):
    """One npy file per video and kind; a few random blocks, scaled, since values do not matter for time."""
    random = np.random.default_rng(1)
    for kind, shape in SHAPES.items():
        folder = os.path.join(work, kind)
        os.makedirs(folder, exist_ok=True)
        blocks = random.standard_normal((64, *shape), dtype=np.float32)
        for at, video in enumerate(videos):
            path = os.path.join(folder, f"{video}.npy")
            if not os.path.exists(path):
                np.save(path, blocks[at * 7 % 64] * np.float32(0.5 + at % 97 / 97))


def labelled(vaplan, annotations, work):
    """A store with labels of all of LLP, from `synth`; the features that are learnt are others."""
    store, sim = os.path.join(work, "store"), os.path.join(work, "sim")
    if not os.path.exists(store):
        subprocess.run([vaplan, "synth", "-q", "--annotations", annotations, "--out", sim, "--dim", "64"], check=True)
        words = [vaplan, "label", "-q", "--store", store, "--annotations", annotations]
        for modality in ("visual", "audio"):
            words += [f"--{modality}", f"{sim}/{modality}", f"--{modality}-text", f"{sim}/{modality}_text.npy"]
        done = subprocess.run(words, stdout=subprocess.DEVNULL)
        assert done.returncode in (0, 1), done
    return store


def json_of(words, env):
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, env=env).stdout)


def measured(words, env):
    """Seconds and peak MiB of a command."""
    began = time.perf_counter()
    child = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1), words
    return time.perf_counter() - began, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", default="target/release")
    parser.add_argument("--shared", default=os.path.join(ROOT, "../shared"))
    parser.add_argument("--work", help="folder for 7 GB of features, kept [default: a temporary one]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=800, help="videos of the timed steps")
    parser.add_argument("--whole", type=int, default=10000, help="videos of the whole epoch and prediction; 0: none")
    parser.add_argument("--only", choices=["curve", "steps", "whole"], action="append")
    args = parser.parse_args()
    only = args.only or ["curve", "steps", "whole"]
    python = os.environ.get("PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import torch, safetensors"], stderr=subprocess.DEVNULL).returncode:
        print("LEFT OUT: training against PyTorch: no torch and safetensors in", python)
        return
    annotations = os.path.join(args.shared, "llp")
    if not os.path.exists(annotations):
        print("SKIPPED: training against PyTorch: no", annotations)
        return
    temporary = None if args.work else tempfile.TemporaryDirectory()
    work = os.path.abspath(args.work or temporary.name)
    libtorch = os.environ.get("LIBTORCH", os.path.join(ROOT, "third_party/libtorch"))
    env = dict(os.environ, LD_LIBRARY_PATH=os.path.join(libtorch, "lib"), OMP_WAIT_POLICY="PASSIVE")
    plain = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    vaplan = os.path.join(args.bins, "vaplan")
    with open(os.path.join(annotations, "AVVP_train.csv")) as file:
        names = sorted(line.split("\t")[0][:11] for line in file.readlines()[1:])
    simulate(work, names[: max(args.whole, args.videos, 50 * 16)])
    store = labelled(vaplan, annotations, work)
    folders = [os.path.join(work, kind) for kind in VAPLAN_NAMES]
    steps_of = os.path.join(args.bins, "train_steps")
    hand = os.path.join(HERE, "by_hand/train.py")
    out = os.path.join(work, "out")

    def ours(batch, steps, threads, dropout):
        words = [steps_of, store, *folders, str(batch), str(steps), str(threads), str(dropout), out]
        return json_of(words, env)

    def theirs(mode, batch, threads, dropout):
        return json_of([python, hand, mode, *folders, str(batch), str(threads), str(dropout), out], plain)

    if "curve" in only:
        a = ours(16, 50, 1, 0.0)["losses"]
        for mode in ("published", "pooled"):
            report = theirs(mode, 16, 1, 0.0)
            worst = max(abs(x - y) / y for x, y in zip(a, report["losses"], strict=True))
            print(f"losses of 50 steps against {mode} (torch {report['torch']}): differ by at most {worst:.1e}, "
                  f"{a[0]:.4f} at first, {a[-1]:.4f} at last", flush=True)
            assert worst < 1e-4, worst
    if "steps" in only:
        for batch in (16, 64):
            for threads in (1, 2):
                steps = -(-args.videos // batch)
                least = {}
                for _ in range(args.rounds):
                    reports = {"vaplan": ours(batch, steps, threads, 0.1)}
                    for mode in ("pooled", "published"):
                        reports[mode] = theirs(mode, batch, threads, 0.1)
                    for name, report in reports.items():
                        # The first step warms up; the last may be short.
                        now = min(report["seconds"][1 : args.videos // batch])
                        least[name] = min(now, least.get(name, now))
                shown = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in least.items())
                print(f"batch {batch}, {threads} threads: {shown}; pooled / vaplan {least['pooled'] / least['vaplan']:.2f}, "
                      f"published / vaplan {least['published'] / least['vaplan']:.2f}", flush=True)
    if "whole" in only and args.whole:
        flags = ["--visual", folders[0], "--audio", folders[1], "--clips", folders[2], "--threads", "2", "-q"]
        words = [vaplan, "train", "--store", store, "--epochs", "1", *flags]
        seconds, peak, cpu = measured(words, env)
        print(f"vaplan train, one epoch of {args.whole} videos from npy files: {seconds:.1f} s, {cpu:.1f} s of processor, "
              f"peak {peak:.0f} MiB", flush=True)
        best = os.path.join(store, "_vaplan/train/best.safetensors")
        words = [vaplan, "predict", "--checkpoint", best, "--npy", os.path.join(work, "predicted"), *flags]
        seconds, peak, cpu = measured(words, env)
        print(f"vaplan predict, {args.whole} videos from npy files to npy files: {seconds:.1f} s, {cpu:.1f} s of processor, "
              f"peak {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
