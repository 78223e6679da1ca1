"""Labelling by several processes on this machine against one process with as many workers, in one run.

    cluster.py --bins target/release [--annotations DIR] [--videos 40000] [--rounds 3] [--processes 2] [--work DIR]

Simulates packed shards of f16, D = 512. Runs `vaplan label` in one process of N workers and in N processes of one worker, in
turn `--rounds` times. Prints the best of each and their ratio (aim: at most 1.15), the median over the rounds of the peak memory of
each process (aim: process 0 within 20 % of the others; a peak differs by 20 % from run to run, so give at least 9 rounds), and the bytes that crossed the links of the dataflow for each video, against the bytes of the tables
for each video (aim: at most 1.2).
"""

import argparse
import glob
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time


def arguments(vaplan, data, store, workers):
    return [vaplan, "label", "--store", store, "--annotations", f"{data}/annotations",
            "--visual", f"{data}/visual", "--visual-text", f"{data}/visual_text.npy",
            "--audio", f"{data}/audio", "--audio-text", f"{data}/audio_text.npy", "--workers", str(workers)]


def addresses(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    names = [f"127.0.0.1:{own.getsockname()[1]}" for own in held]
    for own in held:
        own.close()
    return ",".join(names)


def run(commands, environment):
    """Seconds until all commands have ended, and the peak resident MiB and standard error of each."""
    start = time.perf_counter()
    logs = [tempfile.TemporaryFile() for _ in commands]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
               for command, log in zip(commands, logs)]
    peaks, texts = [], []
    for command, process, log in zip(commands, running, logs):
        _, status, usage = os.wait4(process.pid, 0)
        log.seek(0)
        texts.append(log.read().decode())
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"{' '.join(command)}: {texts[-1]}")
        peaks.append(usage.ru_maxrss / 1024)
    return time.perf_counter() - start, peaks, texts


def table_bytes(store):
    """Bytes of the data files of the tables that hold rows of videos."""
    tables = ("videos", "candidates", "scores", "labels", "label_changes")
    files = [path for table in tables for path in glob.glob(f"{store}/{table}/*.parquet")]
    return sum(os.path.getsize(path) for path in files)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--annotations", default=f"{here}/../../assets/demo")
    options.add_argument("--videos", type=int, default=40_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--work")
    options = options.parse_args()
    vaplan = f"{options.bins}/vaplan"
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")
    count = 0
    for suffix in ("train", "val_pd", "test_pd"):
        for path in glob.glob(f"{options.annotations}/*{suffix}.csv"):
            with open(path) as file:
                count += sum(1 for line in file) - 1
    data = f"{work}/cluster-{options.videos}-{options.dim}"
    if not os.path.exists(f"{data}/synth.json"):
        subprocess.run([vaplan, "synth", "--quiet", "--annotations", options.annotations, "--out", data, "--parquet",
                        "--column", "packed", "--dim", str(options.dim), "--repeat", str(options.videos // count)], check=True)
    environment = dict(os.environ, VAPLAN_SECRET=os.urandom(16).hex(), VAPLAN_LOG="warn,vaplan=info")
    of, store = options.processes, f"{work}/store"
    best, memory = {}, []
    for _ in range(options.rounds):
        shutil.rmtree(store, ignore_errors=True)
        answers = {"one": run([arguments(vaplan, data, store, of)], environment)}
        shutil.rmtree(store, ignore_errors=True)
        hosts = addresses(of)
        commands = [[*arguments(vaplan, data, store, 1), "--hosts", hosts, "--process", str(process)] for process in range(of)]
        answers["many"] = run(commands, environment)
        memory.append(answers["many"][1])
        for name, answer in answers.items():
            best[name] = min(best.get(name, answer), answer)
    (one, one_peak, _), (many, _, logs) = best["one"], best["many"]
    peaks = [statistics.median(of_process) for of_process in zip(*memory)]
    videos = options.videos // count * count
    print(f"{videos} videos x 10 segments x {options.dim}, f16, per modality; best of {options.rounds}")
    print(f"one process of {of} workers {one:.2f} s ({one_peak[0]:.0f} MiB), {of} processes of one worker {many:.2f} s, "
          f"ratio {many / one:.2f}")
    others = max(peaks[1:])
    print(f"peak memory by process, medians: {', '.join(f'{peak:.0f} MiB' for peak in peaks)}; process 0 / largest other {peaks[0] / others:.2f}")
    sent = [int(found.group(1)) for log in logs for found in re.finditer(r"sent (\d+) bytes of rows", log)]
    if len(sent) == of:
        tables = table_bytes(store)
        print(f"sent between processes {sum(sent) / videos:.0f} bytes per video ({', '.join(map(str, sent))} bytes by process); "
              f"tables {tables / videos:.0f} bytes per video; ratio {sum(sent) / tables:.2f}")
    else:
        print(f"{len(sent)} of {of} processes logged the bytes that they sent")
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
