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

from ._arrays import is_missing, numeric, single

PathLike = Union[str, "os.PathLike[str]"]
SPLITS = ("train", "val", "test")
TRUTH = ("audio_truth", "visual_truth")
#: Largest float32, for messages.
_MOST = "3.4e38"
#: Largest end of an event.
_LARGEST_OFFSET = 2**31 - 1
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
    given = numeric(value, argument)
    rows = single(given)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(
            f"{argument} has shape {given.shape}, expected two axes that are not empty, beside axes of length 1"
        )
    # A float64 above the range of float32 becomes infinite. The check below names the value that was given.
    with np.errstate(over="ignore"):
        narrow = rows.astype(np.float32)
    if not np.isfinite(narrow).all():
        place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(narrow))[0])
        expected = f"a number from -{_MOST} to {_MOST}" if np.isfinite(rows[place]) else "a finite number"
        raise ValueError(f"{argument}[{place[0]}, {place[1]}] is {rows[place]}, expected {expected}")
    return narrow


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
    if isinstance(classes, str) or not isinstance(classes, (Sequence, np.ndarray)) or not len(classes):
        raise TypeError("annotations['classes'] is missing or no list, expected the names of the classes in order")
    names = [_text(name, "a class", "\t\r\n,") for name in classes]
    known_names = set(names)
    files = {"classes.txt": "".join(f"{name}\n" for name in names)}
    for split in SPLITS:
        rows = value.get(split)
        if rows is None:
            continue
        lines = ["filename\tevent_labels\n"]
        for video, own in _by_video(rows, f"annotations[{split!r}]", "a dict of classes by video"):
            of = f"annotations[{split!r}][{video!r}]"
            for name in _listed(own, of, "a list of classes"):
                if not isinstance(name, str) or name not in known_names:
                    raise ValueError(f"{of} has class {name!r}, expected one of annotations['classes']")
            lines.append(f"{video}\t{','.join(own)}\n")
        files[_WEAK[split]] = "".join(lines)
    if len(files) == 1:
        raise ValueError("annotations has no videos, expected a dict of weak labels for 'train', 'val' or 'test'")
    for key in TRUTH:
        truth = value.get(key)
        if truth is None:
            continue
        lines = ["filename\tonset\toffset\tevent_labels\n"]
        for video, events in _by_video(truth, f"annotations[{key!r}]", "a dict of events by video"):
            of = f"annotations[{key!r}][{video!r}]"
            for nth, event in enumerate(_listed(events, of, "a list of events")):
                name, onset, offset = _event(event, f"{of}[{nth}]", known_names)
                lines.append(f"{video}\t{onset}\t{offset}\t{name}\n")
        files[_DENSE[key]] = "".join(lines)
    return files


def _by_video(rows: Any, argument: str, expected: str) -> list[tuple[str, Any]]:
    """The items of a dict by video, in order of the names."""
    if not isinstance(rows, Mapping):
        raise TypeError(f"{argument} is of type {type(rows).__name__}, expected {expected}")
    named = [(_text(video, f"a key of {argument}"), own) for video, own in rows.items()]
    return sorted(named, key=lambda item: item[0])


def _listed(value: Any, argument: str, expected: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
        what = "text" if isinstance(value, str) else "None" if value is None else f"of type {type(value).__name__}"
        raise TypeError(f"{argument} is {what}, expected {expected}")
    return list(value)


def _event(event: Any, place: str, classes: set[str]) -> tuple[str, int, int]:
    """An event of dense truth. Annotation files have whole seconds, and a row of a file with another number is rejected."""
    if isinstance(event, str) or not isinstance(event, (Sequence, np.ndarray)) or len(event) != 3:
        raise ValueError(f"{place} is {event!r}, expected (class, onset, offset)")
    name, onset, offset = event
    if not isinstance(name, str) or name not in classes:
        raise ValueError(f"{place} has class {name!r}, expected one of annotations['classes']")
    bounds = [_second(bound, f"{what} of {place}") for bound, what in ((onset, "onset"), (offset, "offset"))]
    # LLP has events of no length. In files they are a note, and no event.
    if bounds[0] > bounds[1]:
        raise ValueError(f"onset of {place} is {bounds[0]}, expected at most its offset {bounds[1]}")
    return name, bounds[0], bounds[1]


def _second(value: Any, place: str) -> int:
    expected = f"a whole number of seconds from 0 to {_LARGEST_OFFSET}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{place} is {value!r}, expected {expected}")
    if is_missing(value) or not 0 <= value <= _LARGEST_OFFSET or value != int(value):
        raise ValueError(f"{place} is {value}, expected {expected}")
    return int(value)


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
