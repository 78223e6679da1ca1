"""One changed video in `vaplan watch`: milliseconds from the rename of its file to the durable commit.

    watch.py --bins target/release [--videos 100000] [--changes 200] [--work DIR]

Makes a store of simulated scores, starts `vaplan watch` on it, and delivers one label that a person set after the other,
each when the one before is committed. The times are watch's own, from its status file.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--videos", type=int, default=100_000)
    options.add_argument("--changes", type=int, default=200)
    options.add_argument("--work")
    options = options.parse_args()
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")
    store, inbox, status = f"{work}/watched", f"{work}/inbox", f"{work}/status.json"
    for folder in (store, inbox):
        shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(inbox)
    if os.path.exists(status):
        os.remove(status)
    subprocess.run([f"{options.bins}/relabel_store", "make", store, str(options.videos)], check=True, stdout=subprocess.DEVNULL)
    classes = {}
    import polars as pl
    table = pl.scan_parquet(f"{store}/videos/b*.parquet").select("video", pl.col("weak_labels").list.first().alias("class")).collect()
    classes = dict(zip(table["video"], table["class"]))
    names = sorted(classes)
    watch = subprocess.Popen([f"{options.bins}/vaplan", "watch", "--quiet", "--store", store, "--inbox", inbox, "--status", status],
                             stdout=subprocess.DEVNULL)

    def state(wanted):
        for _ in range(12_000):
            if watch.poll() is not None:
                sys.exit("watch ended")
            try:
                with open(status) as file:
                    told = json.load(file)
                if wanted(told):
                    return told
            except FileNotFoundError:
                pass
            time.sleep(0.005)
        sys.exit("watch did not come to it within a minute")

    state(lambda told: told["state"] == "watching")
    told = None
    for number in range(options.changes):
        name = names[number * 7919 % len(names)]
        with open(f"{inbox}/.{number}", "w") as file:
            file.write(f"video,modality,class,label,segment\n{name},visual,{classes[name]},{number % 2},3\n")
        os.rename(f"{inbox}/.{number}", f"{inbox}/{number:06}.user.csv")
        told = state(lambda told: told["done"] > number)
    with open(f"/proc/{watch.pid}/status") as file:
        memory = int(re.search(r"VmRSS:\s*(\d+) kB", file.read()).group(1)) * 1024
    watch.terminate()
    watch.wait()
    times = told["rename_to_commit_ms"]
    print(f"{options.changes} changes of one video among {options.videos}: rename to durable commit p50 {times['p50']} ms, "
          f"p99 {times['p99']} ms, max {times['max']} ms; {told['held']} updates held, "
          f"{memory / 1e6:.0f} MB of memory, {memory / options.videos:.0f} bytes a video")
    if not options.work:
        shutil.rmtree(work)


main()
