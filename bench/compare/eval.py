#!/usr/bin/env python3
"""The evaluator against the obvious Python one, on the 1,200 LLP test videos, in one run.

    cargo build --release --workspace --bins
    python3 bench/compare/eval.py --bins target/release --shared ../shared

Needs numpy. Times (best of --repeats), and their ratios:
  matrices   metrics alone, matrices in memory: `evaluator` of vaplan-bench against loops over numpy arrays
  command    `vaplan eval` from CSVs and 2,400 npy files to JSON, against a Python script that does the same,
             both as new processes
The Python side is written the way the public evaluators are (per video, class and event; numpy for the inner sums).
It fails when the scores differ by 1e-9 or more.
"""
import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

T = 10


def events(row):
    found, start = [], None
    for t in range(T + 1):
        on = t < T and row[t] == 1
        if on and start is None:
            start = t
        if not on and start is not None:
            event = np.zeros(T)
            event[start:t] = 1
            found.append(event)
            start = None
    return found


def overlap(a, b):
    return np.sum(a * b) >= 0.5 * np.sum(a + b - a * b)


def event_counts(predicted, truth):
    tp, fp, fn = np.zeros(len(truth)), np.zeros(len(truth)), np.zeros(len(truth))
    for c in range(len(truth)):
        p, t = events(predicted[c]), events(truth[c])
        for event in p:
            if any(overlap(event, other) for other in t):
                tp[c] += 1
            else:
                fp[c] += 1
        for event in t:
            if not any(overlap(event, other) for other in p):
                fn[c] += 1
    return tp, fp, fn


def segment_counts(predicted, truth):
    return (np.sum(predicted * truth, axis=1), np.sum(predicted * (1 - truth), axis=1),
            np.sum((1 - predicted) * truth, axis=1))


def f_score(counts):
    tp, fp, fn = counts
    scores = []
    for c in range(len(tp)):
        if tp[c] + fp[c] != 0 or tp[c] + fn[c] != 0:
            scores.append(2 * tp[c] / (2 * tp[c] + fp[c] + fn[c]))
    return sum(scores) / len(scores) if scores else 1.0


def evaluate(videos):
    """Scores of (predicted audio, visual, true audio, visual) matrices of shape (C, T)."""
    report = {}
    for level, count in [("segment", segment_counts), ("event", event_counts)]:
        scores = {"audio": [], "visual": [], "audio_visual": [], "event_av": []}
        for pa, pv, ta, tv in videos:
            audio, visual = count(pa, ta), count(pv, tv)
            scores["audio"].append(f_score(audio))
            scores["visual"].append(f_score(visual))
            scores["audio_visual"].append(f_score(count(pa * pv, ta * tv)))
            scores["event_av"].append(f_score([a + v for a, v in zip(audio, visual)]))
        means = {key: 100 * float(np.mean(values)) for key, values in scores.items()}
        means["type_av"] = (means["audio"] + means["visual"] + means["audio_visual"]) / 3
        report[level] = means
    return report


def truth(shared):
    """Video names and (N, 2, C, T) truth of the test split."""
    with open(f"{shared}/golden/eval/classes.txt") as file:
        classes = file.read().split()
    with open(f"{shared}/llp/AVVP_test_pd.csv", newline="") as file:
        names = [row["filename"] for row in csv.DictReader(file, delimiter="\t")]
    place = {name: index for index, name in enumerate(names)}
    matrices = np.zeros((len(names), 2, len(classes), T))
    for modality, kind in enumerate(["audio", "visual"]):
        with open(f"{shared}/llp/AVVP_eval_{kind}.csv", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if row["filename"] in place:
                    span = slice(int(row["onset"]), int(row["offset"]))
                    matrices[place[row["filename"]], modality, classes.index(row["event_labels"]), span] = 1
    return names, matrices


def read_labels(folder, names):
    return [np.load(f"{folder}/{name[:11]}.npy").T.astype(float) for name in names]


def command(shared, audio, visual):
    """What `vaplan eval` does, in Python."""
    names, matrices = truth(shared)
    predicted = zip(read_labels(audio, names), read_labels(visual, names))
    return evaluate([(a, v, t[0], t[1]) for (a, v), t in zip(predicted, matrices)])


def write_labels(shared, folder):
    """The golden predictions `test_noisy` as label folders (T, C) int64, one file per video, as VALOR has them."""
    with open(f"{shared}/golden/eval/test_videos.txt") as file:
        names = file.read().split()
    packed = np.load(f"{shared}/golden/eval/test_noisy.npy")
    bits = np.unpackbits(packed, axis=-1)[..., :25].astype(np.int64)
    for modality, kind in enumerate(["audio", "visual"]):
        os.makedirs(f"{folder}/{kind}")
        for name, video in zip(names, bits):
            np.save(f"{folder}/{kind}/{name[:11]}.npy", video[modality])
    return f"{folder}/audio", f"{folder}/visual"


def best(repeats, run):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = run()
        times.append(time.perf_counter() - start)
    return min(times), answer


def process(arguments):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{arguments}: exit status {done.returncode}\n{done.stderr.decode()}")
    return json.loads(done.stdout)


def check(ours, theirs):
    for level in ["segment", "event"]:
        for key, value in theirs[level].items():
            if abs(ours[level][key] - value) >= 1e-9:
                sys.exit(f"{level} {key}: {ours[level][key]} is not {value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", default="target/release", help="folder of `vaplan` and `evaluator`")
    parser.add_argument("--shared", default="../shared", help="folder of llp/ and golden/")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python-command", nargs=2, metavar=("AUDIO", "VISUAL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.python_command:
        print(json.dumps(command(args.shared, *args.python_command)))
        return

    with tempfile.TemporaryDirectory() as folder:
        audio, visual = write_labels(args.shared, folder)
        names, matrices = truth(args.shared)
        videos = [(a, v, t[0], t[1])
                  for a, v, t in zip(read_labels(audio, names), read_labels(visual, names), matrices)]

        os.environ["VAPLAN_SHARED"] = os.path.abspath(args.shared)
        ours = process([f"{args.bins}/evaluator"])
        seconds, theirs = best(args.repeats, lambda: evaluate(videos))
        check(ours["scores"], theirs)
        print(f"matrices  vaplan {ours['seconds'] * 1e3:8.2f} ms   python {seconds * 1e3:8.0f} ms   "
              f"ratio {seconds / ours['seconds']:.0f}")

        ours_seconds, ours = best(args.repeats, lambda: process(
            [f"{args.bins}/vaplan", "eval", "--annotations", f"{args.shared}/llp", "--split", "test",
             "--audio-labels", audio, "--visual-labels", visual, "--format", "json"]))
        seconds, theirs = best(args.repeats, lambda: process(
            [sys.executable, __file__, "--shared", args.shared, "--python-command", audio, visual]))
        check(ours, theirs)
        print(f"command   vaplan {ours_seconds * 1e3:8.0f} ms   python {seconds * 1e3:8.0f} ms   "
              f"ratio {seconds / ours_seconds:.1f}")


if __name__ == "__main__":
    main()
