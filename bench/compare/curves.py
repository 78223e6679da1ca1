"""Two curves: seconds of a relabel against the size of the change, and against the size of the store.

    curves.py --bins target/release [--videos 1000000] [--largest 1000000] [--rounds 3] [--work DIR]

A change sets one user label in each of N videos, which are spread evenly over the store. The first curve has changes of 1, 10, 100, ...
of `--videos` videos. The second has a change of 1,000 videos in stores of 10,000, 100,000, ... `--largest` videos. Each command is
timed from its start to the durable commit, in a copy of the store; the best of `--rounds` counts. A store of 10,000,000 videos takes
7 GB of disk.
"""

import argparse
import math
import os
import shutil
import tempfile

from relabel import copy, measured, run


def drawn(points, unit):
    """The points as a drawing in text, both axes logarithmic."""
    low, high = (math.log10(of(seconds for _, seconds in points)) for of in (min, max))
    step = (high - low) / 7 or 1
    rows = []
    for row in range(7, -1, -1):
        cells = ["  *  " if round((math.log10(seconds) - low) / step) == row else "     " for _, seconds in points]
        rows.append(f"{10 ** (low + row * step):8.3f} s |" + "".join(cells))
    rows.append(" " * 11 + "+" + "-----" * len(points))
    rows.append(" " * 12 + "".join(f"{f'1e{round(math.log10(size))}':^5}" for size, _ in points) + f"  {unit}")
    return "\n".join(rows)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bins", required=True)
    options.add_argument("--videos", type=int, default=1_000_000)
    options.add_argument("--largest", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--work")
    options = options.parse_args()
    vaplan, stores = f"{options.bins}/vaplan", f"{options.bins}/relabel_store"
    work = options.work or tempfile.mkdtemp(prefix="vaplan-bench-")

    def made(videos):
        store = f"{work}/of{videos}"
        if not os.path.exists(f"{store}/versions"):
            run([stores, "make", store, str(videos)])
        return store

    def timed(videos, changed):
        store = made(videos)
        path = f"{work}/marks.csv"
        with open(first(store)) as classes:
            names = classes.read().splitlines()
        with open(path, "w") as file:
            file.write("video,modality,class,label,segment\n")
            step = videos / changed
            for nth in range(changed):
                number = int(nth * step)
                file.write(f"v{number:010}_0_10,visual,{names[number]},1,3\n")
        return min(measured([vaplan, "relabel", "--quiet", "--store", copy(store, work), "--user", path])[0] for _ in range(options.rounds))

    def first(store):
        """A file with the first class of the weak label of each video, in order of the names."""
        import polars as pl

        table = pl.scan_parquet(f"{store}/videos/b*.parquet").select("video", pl.col("weak_labels").list.first().alias("class"))
        path = f"{work}/classes-{os.path.basename(store)}.txt"
        if not os.path.exists(path):
            table.sort("video").select("class").collect().write_csv(path, include_header=False)
        return path

    sizes = [10**power for power in range(9) if 10**power <= options.videos]
    points = [(size, timed(options.videos, size)) for size in sizes]
    print(f"user labels in some of {options.videos} videos; best of {options.rounds}")
    for size, seconds in points:
        print(f"  {size:>9} videos {seconds:7.3f} s, {seconds / size * 1e6:12.1f} microseconds a video")
    print(drawn(points, "changed videos"))
    stores_of = [10**power for power in range(4, 9) if 10**power <= options.largest]
    points = [(size, timed(size, 1000)) for size in stores_of]
    print("user labels in 1000 videos of stores of several sizes")
    for size, seconds in points:
        print(f"  {size:>9} videos {seconds:7.3f} s")
    print(drawn(points, "videos of the store"))
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
