"""The whole job side by side: one `vaplan run`, and its stages as commands of their own, one after the other.

    run.py --bins target/release [--repeat 60] [--epochs 4] [--rounds 2] [--threads 2] [--work DIR]

The built-in annotations, each video simulated `--repeat` times (40 to learn from, 16 to choose by, 24 to test with; features 512
wide). `run` with schedule `once`: label, the weak baseline, the parser, denoising, the parser again. The same by hand: `label`,
`train --supervision weak`, `train`, `denoise`, `train`; each command starts a process and opens the store, which `run` does
once, and `run` scores its table, which they do not. Best of `--rounds`, in turn; the labels at the end are the same or it fails.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile

import polars as pl

from relabel import run


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--work")
    options = options.parse_args()
    vaplan = f"{options.bins}/vaplan"
    work = os.path.abspath(options.work or tempfile.mkdtemp(prefix="vaplan-bench-"))
    threads = ["--threads", str(options.threads)]
    if not os.path.exists(f"{work}/made"):
        os.makedirs(work, exist_ok=True)
        run([vaplan, "demo", "--annotations-only", "--dir", work])
        run([vaplan, "synth", "--quiet", "--annotations", f"{work}/annotations", "--out", f"{work}/made", "--repeat", str(options.repeat)])
    made = f"{work}/made"
    learning = f"epochs = {options.epochs}\nhidden = 128\nfeedforward = 128\nbatch = 64\nlearning_rate = 0.001\n"
    with open(f"{work}/train.toml", "w") as file:
        file.write(learning)
    with open(f"{work}/run.toml", "w") as file:
        file.write(
            f"store = '{work}/whole'\nbaselines = ['weak']\n[data]\nannotations = '{made}/annotations'\n"
            f"[features]\nvisual = '{made}/visual'\naudio = '{made}/audio'\nvisual_text = '{made}/visual_text.npy'\n"
            f"audio_text = '{made}/audio_text.npy'\n[train]\n{learning}[denoise]\nschedule = 'once'\n"
        )
    features = ["--visual", f"{made}/visual", "--audio", f"{made}/audio"]
    texts = ["--visual-text", f"{made}/visual_text.npy", "--audio-text", f"{made}/audio_text.npy"]
    apart = f"{work}/apart"

    def train(name, *more):
        return [vaplan, "train", "--quiet", "--store", apart, *features, "--config", f"{work}/train.toml", *threads,
                "--out", f"{work}/checkpoints/{name}", *more]

    stages = {
        "label": [vaplan, "label", "--quiet", "--store", apart, "--annotations", f"{made}/annotations", *features, *texts],
        "weak": train("weak", "--version", "1", "--supervision", "weak"),
        "ple": train("ple", "--version", "1"),
        "pld": None,
        "ple+pld": train("both"),
    }
    best = {}

    def keep(name, value):
        best[name] = min(best.get(name, value), value)

    def labels(store):
        columns = ["video", "modality", "class", "segment"]
        return pl.read_delta(f"{store}/labels").select([*columns, "label", "rule", "loss"]).sort(columns)

    for _ in range(options.rounds):
        for folder in ("whole", "apart", "checkpoints"):
            shutil.rmtree(f"{work}/{folder}", ignore_errors=True)
        keep("run", run([vaplan, "run", "--quiet", f"{work}/run.toml", *threads])[0])
        total = 0.0
        for name, command in stages.items():
            if name == "pld":
                # That of the training before: `denoise` by itself would take the best of both.
                epoch = re.search(r"best epoch (\d+)", said).group(1)
                command = [vaplan, "denoise", "--quiet", "--store", apart, "--epoch", epoch]
            seconds, said = run(command)
            keep(name, seconds)
            total += seconds
        keep("sum", total)
        if not labels(f"{work}/whole").equals(labels(apart)):
            sys.exit("the labels differ")
    print(f"{80 * options.repeat} videos, {40 * options.repeat} to learn from, three trainings of {options.epochs} epochs, {options.threads} threads; "
          f"best of {options.rounds}")
    for name in stages:
        print(f"  {name:8} {best[name]:6.2f} s")
    print(f"  by hand  {best['sum']:6.2f} s")
    print(f"  run      {best['run']:6.2f} s: {best['run'] / best['sum']:.3f} of it")
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
    # Threads of Polars abort a process that ends otherwise.
    sys.stdout.flush()
    os._exit(0)
