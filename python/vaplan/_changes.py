"""A change of a store: from the arguments of a user to the form that the native functions take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from ._arrays import Batch, choice, flag, is_missing, numeric, videos

KEYS = (
    "rule",
    "thresholds",
    "scales",
    "candidates",
    "user_labels",
    "weak",
    "add_weak",
    "remove_weak",
    "splits",
    "predictions",
    "epoch",
    "denoise",
    "features",
    "removed_features",
    "to_version",
    "allow_missing",
)
MODALITIES = ("audio", "visual")
#: Largest number that the program takes for an epoch or a segment.
_LARGEST = {"epoch": 2**53, "segment": 2**31 - 1, "version": 2**63 - 1}


def prepare(changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[Batch]]:
    """The change for the native functions, and the arrays in it, for messages."""
    for key in changes:
        choice(key, "an argument of the change", KEYS)
    given: dict[str, Any] = settings(
        changes.get("rule"), changes.get("thresholds"), changes.get("scales"), changes.get("candidates")
    )
    given["user_labels"] = _user_labels(changes.get("user_labels"))
    given["weak"] = _weak(changes)
    batches: list[Batch] = []
    if changes.get("predictions") is not None:
        epoch, batches = _predictions(changes["predictions"])
        given["predicted_epoch"] = epoch
        names = [batch.argument.split('"')[1] for batch in batches]
        given["predictions"] = [
            (name, batch.names, batch.rows, batch.lengths) for name, batch in zip(names, batches)
        ]
    if changes.get("epoch") is not None:
        given["epoch"] = whole(changes["epoch"], "epoch", 1, _LARGEST["epoch"])
    if changes.get("to_version") is not None:
        given["to_version"] = whole(changes["to_version"], "to_version", 1, _LARGEST["version"])
    given["allow_missing"] = flag(changes.get("allow_missing", False), "allow_missing")
    for key in ("features", "removed_features"):
        given[key] = _paths(changes.get(key), key)
    given.update(_denoise(changes.get("denoise")))
    return given, batches


def command(function: str, changes: Mapping[str, Any]) -> str:
    """The text for column ``command`` of table ``versions``: the call, with short values only."""
    return f"vaplan.{function}({', '.join(f'{key}={_short(value)}' for key, value in changes.items())})"


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "epoch" in value:
        return f"{{'epoch': {value['epoch']!r}, ...}}"
    text = repr(value) if isinstance(value, (str, int, float, bool, dict, list, tuple, type(None))) else "..."
    return text if len(text) <= 200 else "..."


def settings(rule: Any, thresholds: Any, scales: Any, candidates: Any) -> dict[str, Any]:
    """Rule, thresholds, scales, and the rule of candidates."""
    given: dict[str, Any] = {}
    if candidates is not None:
        if not isinstance(candidates, str):
            raise TypeError(f"candidates is {candidates!r}, expected a text such as 'top:3'")
        given["candidates"] = candidates
    if rule is not None:
        given["rule"] = choice(rule, "rule", ("softmax", "logit"))
    if isinstance(thresholds, (str, os.PathLike)):
        given["thresholds_file"] = os.fspath(thresholds)
    elif thresholds is not None:
        singles = []
        for modality, own in _by_modality(thresholds, "thresholds"):
            if isinstance(own, Mapping):
                for name, value in own.items():
                    singles.append((modality, name, real(value, f"thresholds[{modality!r}][{name!r}]")))
            else:
                given[f"{modality}_threshold"] = real(own, f"thresholds[{modality!r}]")
        given["class_thresholds"] = singles
    if scales is not None:
        for modality, own in _by_modality(scales, "scales"):
            given[f"{modality}_scale"] = real(own, f"scales[{modality!r}]")
    return given


def _by_modality(value: Any, argument: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{argument} is of type {type(value).__name__}, expected a dict with 'audio' or 'visual'")
    for modality in value:
        choice(modality, f"a key of {argument}", MODALITIES)
    return value.items()


def real(value: Any, argument: str) -> float:
    """A number."""
    if isinstance(value, (bool, str)):
        raise TypeError(f"{argument} is {value!r}, expected a number")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{argument} is {value!r}, expected a number") from None


def whole(value: Any, argument: str, least: int, most: int) -> int:
    """A whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{argument} is {value!r}, expected a whole number")
    if not least <= value <= most:
        raise ValueError(f"{argument} is {value}, expected {least} to {most}")
    return int(value)


def _text(value: Any, argument: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} is {value!r}, expected text")
    return value


def _records(rows: Any) -> list[Any]:
    """Rows of a list of dicts, or of a DataFrame of pandas, Polars or pyarrow."""
    for method, arguments in (("to_pylist", ()), ("to_dicts", ()), ("to_dict", ("records",))):
        if not isinstance(rows, Mapping) and hasattr(rows, method):
            return list(getattr(rows, method)(*arguments))
    if isinstance(rows, (Mapping, str)) or not isinstance(rows, Iterable):
        raise TypeError(f"user_labels is of type {type(rows).__name__}, expected a list of dicts or a DataFrame")
    return list(rows)


def _user_labels(rows: Any) -> list[tuple[Any, ...]]:
    given: list[tuple[Any, ...]] = []
    for nth, row in enumerate([] if rows is None else _records(rows)):
        place = f"user_labels[{nth}]"
        if not isinstance(row, Mapping):
            raise TypeError(f"{place} is of type {type(row).__name__}, expected a dict")
        for key in row:
            choice(key, f"a key of {place}", ("video", "modality", "class", "segment", "onset", "offset", "label"))
        for key in ("video", "modality", "class", "label"):
            if key not in row:
                raise ValueError(f"{place} has no {key!r}, expected video, modality, class, segment and label")
        keys = [key for key in ("segment", "onset", "offset") if not is_missing(row.get(key))]
        if keys not in (["segment"], ["onset", "offset"]):
            found = " and ".join(map(repr, keys)) or "none of them"
            raise ValueError(f"{place} has {found}, expected either 'segment', or 'onset' and 'offset'")
        bounds = [_position(row[key], f"{place}[{key!r}]", _LARGEST["segment"] - (key == "segment")) for key in keys]
        if keys == ["segment"]:
            bounds.append(bounds[0] + 1)
        given.append(
            (
                _text(row["video"], f"{place}['video']"),
                choice(row["modality"], f"{place}['modality']", MODALITIES),
                _text(row["class"], f"{place}['class']"),
                *bounds,
                _label(row["label"], f"{place}['label']"),
            )
        )
    return given


def _position(value: Any, argument: str, most: int) -> int:
    """A segment. A column of a DataFrame of pandas that misses a value has floats."""
    if isinstance(value, (float, np.floating)) and value.is_integer():
        value = int(value)
    return whole(value, argument, 0, most)


def _label(value: Any, argument: str) -> Optional[bool]:
    """A user label: true, false, or nothing to withdraw it. The texts are those of ``relabel --user``."""
    if is_missing(value) or (isinstance(value, str) and value == "withdraw"):
        return None
    if isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)) and value in (0, 1):
        return bool(value)
    raise ValueError(f"{argument} is {value!r}, expected true, false, or None or 'withdraw' to withdraw the label")


def _splits(changes: Mapping[str, Any]) -> Mapping[str, str]:
    splits = changes.get("splits")
    if splits is None:
        return {}
    if not isinstance(splits, Mapping):
        raise TypeError(f"splits is of type {type(splits).__name__}, expected a dict of splits by video")
    given = [changes.get(argument) for argument in ("weak", "add_weak")]
    for video, split in splits.items():
        choice(split, f"splits[{video!r}]", ("train", "val", "test"))
        if not any(isinstance(own, Mapping) and video in own for own in given):
            raise ValueError(f"splits has video {video!r}, expected a video of weak or add_weak")
    return splits


def _weak(changes: Mapping[str, Any]) -> list[tuple[str, str, list[str], Optional[str]]]:
    splits = _splits(changes)
    given: list[tuple[str, str, list[str], Optional[str]]] = []
    for argument, edit in (("weak", "set"), ("add_weak", "add"), ("remove_weak", "remove")):
        rows = changes.get(argument)
        if rows is None:
            continue
        if not isinstance(rows, Mapping):
            raise TypeError(f"{argument} is of type {type(rows).__name__}, expected a dict of lists by video")
        for video, classes in rows.items():
            place = f"{argument}[{video!r}]"
            if classes is None:
                if edit != "set":
                    raise ValueError(f"{place} is None, expected a list of classes; weak={{video: None}} removes a video")
                given.append(("remove", _text(video, f"a key of {argument}"), [], None))
                continue
            if isinstance(classes, str) or not isinstance(classes, Iterable):
                raise TypeError(f"{place} is {classes!r}, expected a list of classes")
            names = [_text(name, place) for name in classes]
            if edit == "remove" and not names:
                raise ValueError(f"{place} is empty, expected at least one class; weak={{video: None}} removes a video")
            given.append((edit, _text(video, f"a key of {argument}"), names, splits.get(video)))
    return given


def _predictions(value: Any) -> tuple[int, list[Batch]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"predictions is of type {type(value).__name__}, expected a dict with 'epoch', 'audio', 'visual'")
    for key in value:
        choice(key, "a key of predictions", ("epoch", "audio", "visual", "names", "lengths"))
    if "epoch" not in value:
        raise ValueError("predictions has no 'epoch', expected its number, from 1")
    epoch = whole(value["epoch"], 'predictions["epoch"]', 1, _LARGEST["epoch"])
    batches = []
    for modality in MODALITIES:
        if value.get(modality) is None:
            continue
        argument = f'predictions["{modality}"]'
        batch = videos(value[modality], argument)
        if batch.names is None:
            batch = _named(batch, value)
        batches.append(batch)
    if not batches:
        raise ValueError("predictions has neither 'audio' nor 'visual', expected at least one")
    return epoch, batches


def _named(batch: Batch, given: Mapping[str, Any]) -> Batch:
    """An array of predictions with the names of its videos, without the padding of shorter videos."""
    names = given.get("names")
    if names is None or isinstance(names, str) or not isinstance(names, (Sequence, np.ndarray)):
        raise TypeError(f'predictions["names"] is missing or no list, expected the name of each video of {batch.argument}')
    names = [_text(str(name) if isinstance(name, np.str_) else name, 'predictions["names"]') for name in names]
    count, segments = batch.shape[0], batch.shape[1]
    if len(names) != count:
        raise ValueError(f'predictions["names"] has {len(names)} names, expected {count}, one per video of {batch.argument}')
    if given.get("lengths") is None:
        return batch._replace(names=names)
    lengths = numeric(given["lengths"], 'predictions["lengths"]')
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
        raise ValueError(f'predictions["lengths"] has shape {lengths.shape} and type {lengths.dtype}, expected ({count},) whole numbers')
    if ((lengths < 0) | (lengths > segments)).any():
        raise ValueError(f'predictions["lengths"] has a value outside 0 to {segments}, the segments of {batch.argument}')
    lengths = lengths.astype(np.int64)
    kept = np.arange(segments)[np.newaxis] < lengths[:, np.newaxis]
    # A video of no segments has no prediction.
    there = [nth for nth in range(count) if lengths[nth] > 0]
    return batch._replace(
        rows=batch.rows if kept.all() else batch.rows[kept.reshape(-1)],
        lengths=lengths[there],
        names=[names[nth] for nth in there],
    )


def _paths(value: Any, argument: str) -> list[tuple[str, str]]:
    given: list[tuple[str, str]] = []
    for modality, own in [] if value is None else _by_modality(value, argument):
        several = [own] if isinstance(own, (str, os.PathLike)) else own
        if not isinstance(several, Sequence):
            raise TypeError(f"{argument}[{modality!r}] is {own!r}, expected a path or a list of paths")
        for path in several:
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(f"{argument}[{modality!r}] has {path!r}, expected a path")
            given.append((modality, os.fspath(path)))
    return given


def _denoise(value: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"parameters": {}}
    if value is None:
        return given
    if not isinstance(value, Mapping):
        raise TypeError(f"denoise is of type {type(value).__name__}, expected a dict with k, alpha, guard or modalities")
    for key, own in value.items():
        choice(key, "a key of denoise", ("k", "alpha", "guard", "modalities"))
        if key == "modalities":
            names = [own] if isinstance(own, str) else own
            if not isinstance(names, Iterable):
                raise TypeError(f"denoise['modalities'] is {own!r}, expected a list of 'audio' and 'visual'")
            given["modalities"] = [choice(name, "denoise['modalities']", MODALITIES) for name in names]
        else:
            given["parameters"][key] = real(own, f"denoise[{key!r}]")
    if given["parameters"]:
        # The settings are those of PLD. A store that has another rule changes to PLD.
        given["denoising_rule"] = "pld"
    return given
