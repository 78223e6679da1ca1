"""Converts the features of AVE from HDF5 to the npy files that ``vaplan label`` and ``vaplan train`` read.

    python -m vaplan.h5 visual_feature.h5 Annotations.txt visual
    python -m vaplan.h5 audio_feature.h5 Annotations.txt audio

Needs the package ``h5py``. The file has one data set ``(N, T, ..., D)``: N videos in the order of the lines of
``Annotations.txt``, T segments, and D values. Axes between T and D, such as the 7 x 7 places of AVE's visual features, are
averaged. The result has one file ``<video>.npy`` of shape ``(T, D)`` and type float32 for each video.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

PathLike = Union[str, "os.PathLike[str]"]
_HEADER = "Category&VideoID&Quality&StartTime&EndTime"


def names_of(annotations: PathLike) -> list[str]:
    """The ids of the videos of ``Annotations.txt``, in order."""
    lines = [line for line in Path(annotations).read_text(encoding="utf-8").splitlines() if line.strip()]
    names = []
    for number, line in enumerate(lines, 1):
        fields = line.split("&")
        if number == 1 and line.strip() == _HEADER:
            continue
        if len(fields) != 5 or not fields[1] or "/" in fields[1]:
            raise ValueError(f"{annotations}, line {number}: {line!r}, expected {_HEADER}")
        names.append(fields[1])
    return names


def convert(
    features: PathLike, annotations: PathLike, out: PathLike, *, dataset: Optional[str] = None
) -> tuple[int, list[str]]:
    """Writes one npy file per video.

    Args:
        features: HDF5 file.
        annotations: ``Annotations.txt`` of AVE.
        out: folder; it is created if it is missing.
        dataset: name of the data set in the file [default: the only one].

    Returns:
        Number of videos that were written, and names that occur twice. Of these only the first row is written.

    Raises:
        ImportError: the package ``h5py`` is missing.
        ValueError: the data set is not there, has another shape, or another number of videos than the annotations.
        OSError: a file cannot be read or written.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("h5py is missing, which reads HDF5: pip install h5py") from error
    names = names_of(annotations)
    with h5py.File(features, "r") as file:
        rows = _only(file, dataset, features)
        if rows.ndim < 3 or 0 in rows.shape:
            raise ValueError(f"{features}: data set {rows.name!r} has shape {rows.shape}, expected (N, T, ..., D)")
        if rows.shape[0] != len(names):
            raise ValueError(f"{features} has {rows.shape[0]} videos, and {annotations} {len(names)}, expected equally many")
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        known: set[str] = set()
        twice = []
        for nth, name in enumerate(names):
            if name in known:
                twice.append(name)
                continue
            known.add(name)
            values = np.asarray(rows[nth], dtype=np.float32)
            values = values.reshape(values.shape[0], -1, values.shape[-1]).mean(axis=1)
            if not np.isfinite(values).all():
                raise ValueError(f"{features}: video {name!r} (row {nth}) has a value that is not finite")
            beside = folder / f".{os.getpid()}-{name}.npy"
            with open(beside, "wb") as target:
                np.save(target, values)
            os.replace(beside, folder / f"{name}.npy")
    return len(known), twice


def _only(file: Any, dataset: Optional[str], features: PathLike) -> Any:
    names = [name for name in file if hasattr(file[name], "shape")]
    if dataset is None and len(names) != 1:
        raise ValueError(f"{features} has the data sets {names}, expected one: name it by dataset (--dataset)")
    name = names[0] if dataset is None else dataset
    if name not in names:
        raise ValueError(f"{features} has no data set {name!r}, expected one of {names}")
    return file[name]


def main(words: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vaplan.h5", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("features", help="HDF5 file of AVE, such as visual_feature.h5")
    parser.add_argument("annotations", help="Annotations.txt of AVE")
    parser.add_argument("out", help="folder for the npy files")
    parser.add_argument("--dataset", help="name of the data set in the file [default: the only one]")
    given = parser.parse_args(words)
    try:
        count, twice = convert(given.features, given.annotations, given.out, dataset=given.dataset)
    except (ImportError, ValueError, OSError) as error:
        print(f"vaplan.h5: {error}", file=sys.stderr)
        return 2
    print(f"{count} videos in {given.out}")
    for name in twice:
        print(f"vaplan.h5: video {name} has several rows, and only the first is written", file=sys.stderr)
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
