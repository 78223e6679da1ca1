"""Labelling side by side: merely decoding the shards, numpy + pyarrow, and `vaplan label`, in one run.

    label.py --bins target/release [--annotations DIR] [--videos 40000] [--rounds 3] [--work DIR]

Simulates shards of f16, D = 512, packed (fixed-size binary) and as lists, runs the three in turn `--rounds` times, and
prints the best of each, their ratios, and peak memory. Then labels a quarter and a half of the shards too: memory must
grow by the state of the videos only.
"""

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time


def run(command):
    """Seconds, peak resident MiB and standard output of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)}: {err.decode()}")
    return seconds, usage.ru_maxrss / 1024, out.decode()


def label(vaplan, data, store, workers):
    shutil.rmtree(store, ignore_errors=True)
    return run([vaplan, "label", "--quiet", "--store", store, "--annotations", f"{data}/annotations",
                "--visual", f"{data}/visual", "--visual-text", f"{data}/visual_text.npy",
                "--audio", f"{data}/audio", "--audio-text", f"{data}/audio_text.npy", "--workers", str(workers)])


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--annotations", default=f"{here}/../../assets/sample")
    options.add_argument("--videos", type=int, default=40_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--work")
    options = options.parse_args()
    vaplan, decode = f"{options.bins}/vaplan", f"{options.bins}/decode"
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")
    workers = os.cpu_count()

    count = 0
    for suffix in ("train", "val_pd", "test_pd"):
        for path in glob.glob(f"{options.annotations}/*{suffix}.csv"):
            with open(path) as file:
                count += sum(1 for line in file) - 1

    def simulate(name, videos, *more):
        data = f"{work}/{name}"
        if not os.path.exists(f"{data}/synth.json"):
            run([vaplan, "synth", "--quiet", "--annotations", options.annotations, "--out", data, "--parquet",
                 "--repeat", str(videos // count), *more])
        return data

    print(f"{options.videos} videos x 10 segments x 512, f16, per modality; {workers} threads; best of {options.rounds}")
    for layout in ("packed", "list"):
        data = simulate(layout, options.videos, "--column", layout)
        folders = [f"{data}/visual", f"{data}/audio"]
        best = {}
        for _ in range(options.rounds):
            answers = {
                "decode": run([decode, str(workers), *folders]),
                "numpy": run([sys.executable, f"{here}/by_hand/label.py", f"{data}/annotations", folders[0], f"{data}/visual_text.npy",
                              folders[1], f"{data}/audio_text.npy", f"{work}/numpy"]),
                "vaplan": label(vaplan, data, f"{work}/store", workers),
            }
            for name, answer in answers.items():
                best[name] = min(best.get(name, answer), answer)
        decoded = json.loads(best["decode"][2])["seconds"]
        researcher = json.loads(best["numpy"][2])["seconds"]
        ours = best["vaplan"][0]
        print(f"{layout:>7}: decode {decoded:.2f} s, numpy {researcher:.2f} s ({best['numpy'][1]:.0f} MiB), "
              f"vaplan {ours:.2f} s ({best['vaplan'][1]:.0f} MiB)")
        print(f"{'':>7}  vaplan / decode {ours / decoded:.2f}, numpy / vaplan {researcher / ours:.2f}")
    peaks = []
    for videos in (10_000, 20_000, 40_000):
        data = simulate(f"memory-{videos}", videos)
        peaks.append((videos, min(label(vaplan, data, f"{work}/store", workers)[1] for _ in range(options.rounds))))
    print("peak memory: " + ", ".join(f"{videos} videos {peak:.0f} MiB" for videos, peak in peaks))
    (few, low), (many, high) = peaks[0], peaks[-1]
    print(f"beside {low - (high - low) * few / (many - few):.0f} MiB, {(high - low) * 2**20 / (many - few):.0f} bytes per video")
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
