"""Inputs of :func:`vaplan.label` that are arrays in memory.

A store keeps its features, because a later change of weak labels or prompts needs them. Arrays are therefore written into
the store's own folder, named by their content: the same arrays give the same files, so that nothing is labelled twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ._arrays import numeric

PathLike = Union[str, "os.PathLike[str]"]
SPLITS = ("train", "val", "test")
TRUTH = ("audio_truth", "visual_truth")
#: Files of a data set in LLP's layout.
_WEAK = {"train": "own_train.csv", "val": "own_val_pd.csv", "test": "own_test_pd.csv"}
_DENSE = {"audio_truth": "own_eval_audio.csv", "visual_truth": "own_eval_visual.csv"}


def is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def placed(store: PathLike, given: Mapping[str, Any]) -> dict[str, str]:
    """The paths of inputs. What is no path becomes a file below the store, in a folder that is named by the content."""
    folder = Path(store).absolute() / "_vaplan" / "shards"
    paths: dict[str, str] = {}
    for argument, value in given.items():
        if is_path(value):
            paths[argument] = os.fspath(value)
            continue
        made: Any
        if argument == "annotations":
            made = _annotations(value)
        elif argument.endswith("_text"):
            made = _matrix(value, argument)
        else:
            made = _features(value, argument)
        summed = hashlib.sha256()
        for part in _bytes(made):
            summed.update(len(part).to_bytes(8, "little"))
            summed.update(part)
        # `vacuum` keeps a folder `shards/NAME/HASH` that is an input of a kept version.
        own = folder / f"python.{argument}" / summed.hexdigest()[:32]
        paths[argument] = os.fspath(_write(own, argument, made))
    return paths


def _bytes(value: Any) -> list[bytes]:
    """What a hash of the value is made of."""
    if isinstance(value, np.ndarray):
        return [repr((value.shape, value.dtype.str)).encode(), value.tobytes()]
    parts = []
    for key, own in sorted(value.items()):
        parts += [key.encode(), *(_bytes(own) if isinstance(own, np.ndarray) else [own.encode()])]
    return parts


def _matrix(value: Any, argument: str) -> np.ndarray:
    rows = numeric(value, argument)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"{argument} has shape {rows.shape}, expected two axes that are not empty")
    rows = rows.astype(np.float32)
    if not np.isfinite(rows).all():
        place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(rows))[0])
        raise ValueError(f"{argument}[{place[0]}, {place[1]}] is {rows[place]}, expected a finite number")
    return rows


def _features(value: Any, argument: str) -> dict[str, np.ndarray]:
    if not isinstance(value, Mapping) or not value:
        raise TypeError(f"{argument} is of type {type(value).__name__}, expected a path, or a dict of arrays (T, D) by video")
    found = {}
    for name, own in value.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"a key of {argument} is {name!r}, expected the name of a video")
        found[name] = _matrix(own, f"{argument}[{name!r}]")
    widths = {rows.shape[1] for rows in found.values()}
    if len(widths) > 1:
        raise ValueError(f"{argument} has arrays of {sorted(widths)} columns, expected one number of columns")
    return found


def _text(value: Any, what: str, taboo: str = "\t\r\n") -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{what} is {value!r}, expected text")
    for sign in taboo:
        if sign in value:
            raise ValueError(f"{what} is {value!r}, expected a name without {sign!r}")
    return value


def _annotations(value: Any) -> dict[str, str]:
    """The files of an annotation folder, by name."""
    if not isinstance(value, Mapping):
        raise TypeError(f"annotations is of type {type(value).__name__}, expected a path or a dict")
    known = ("classes", *SPLITS, *TRUTH)
    for key in value:
        if key not in known:
            raise ValueError(f"a key of annotations is {key!r}, expected one of {', '.join(map(repr, known))}")
    classes = value.get("classes")
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise TypeError("annotations['classes'] is missing or no list, expected the names of the classes in order")
    names = [_text(name, "a class", "\t\r\n,") for name in classes]
    files = {"classes.txt": "".join(f"{name}\n" for name in names)}
    for split in SPLITS:
        rows = value.get(split)
        if rows is None:
            continue
        if not isinstance(rows, Mapping):
            raise TypeError(f"annotations[{split!r}] is of type {type(rows).__name__}, expected a dict of classes by video")
        lines = ["filename\tevent_labels\n"]
        for video, own in sorted(rows.items()):
            of = f"annotations[{split!r}][{video!r}]"
            if isinstance(own, str):
                raise TypeError(f"{of} is text, expected a list of classes")
            for name in own:
                if name not in names:
                    raise ValueError(f"{of} has class {name!r}, expected one of annotations['classes']")
            lines.append(f"{_text(video, 'a video')}\t{','.join(own)}\n")
        files[_WEAK[split]] = "".join(lines)
    if len(files) == 1:
        raise ValueError("annotations has no videos, expected a dict of weak labels for 'train', 'val' or 'test'")
    for key in TRUTH:
        lines = ["filename\tonset\toffset\tevent_labels\n"]
        for video, events in sorted((value.get(key) or {}).items()):
            for nth, event in enumerate(events):
                if len(event) != 3 or event[0] not in names:
                    raise ValueError(f"annotations[{key!r}][{video!r}][{nth}] is {event!r}, expected (class, onset, offset)")
                lines.append(f"{_text(video, 'a video')}\t{int(event[1])}\t{int(event[2])}\t{event[0]}\n")
        if key in value:
            files[_DENSE[key]] = "".join(lines)
    return files


def _write(folder: Path, argument: str, value: Any) -> Path:
    """Writes an input, unless an earlier call wrote it. A file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    if argument == "annotations":
        path = folder / "annotations"
        if not path.is_dir():
            beside = folder / f".annotations-{os.getpid()}"
            beside.mkdir(exist_ok=True)
            for name, text in value.items():
                (beside / name).write_text(text, encoding="utf-8")
            os.replace(beside, path)
        return path
    matrix = isinstance(value, np.ndarray)
    path = folder / (f"{argument}.npy" if matrix else f"{argument}.parquet")
    # The input of features is the folder.
    named = path if matrix else folder
    if path.is_file():
        return named
    beside = folder / f".{os.getpid()}-{path.name}"
    if matrix:
        with open(beside, "wb") as file:
            np.save(file, value)
    else:
        pq.write_table(_shard(value), beside)
    os.replace(beside, path)
    return named


def _shard(features: Mapping[str, np.ndarray]) -> pa.Table:
    """Rows of a feature shard: video, segment, and the values."""
    lengths = [len(rows) for rows in features.values()]
    rows = np.concatenate(list(features.values()))
    names = pa.array(np.repeat(np.array(list(features), dtype=object), lengths), pa.string())
    segments = pa.array(np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]))
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    return pa.table({"video": names, "segment": segments, "feature": values})
