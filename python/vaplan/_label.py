"""Labels features, or the labels of another program, into a store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from . import _arguments, _changes, _inputs, _native
from ._arguments import PathLike
from ._arrays import choice, flag
from ._results import Labelling
from ._store import Store


def sample(folder: PathLike) -> Store:
    """Writes the built-in sample below a folder and labels it: 80 videos of 10 segments, LLP's 25 classes. Scores on it say
    nothing about real data.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = sample(folder)
    ...     store.version, store.labels(split="test", modality="visual").values.shape
    (1, (24, 10, 25))
    """
    return label(**_native.sample(os.fspath(folder))).store


def label(
    store: PathLike,
    annotations: Any,
    *,
    visual: Any = None,
    visual_text: Any = None,
    audio: Any = None,
    audio_text: Any = None,
    pseudo_labels: Optional[tuple[PathLike, PathLike]] = None,
    rule: Optional[str] = None,
    thresholds: Any = None,
    scales: Optional[Mapping[str, float]] = None,
    classes_file: Optional[PathLike] = None,
    splits: Optional[Sequence[str]] = None,
    columns: Optional[Mapping[str, str]] = None,
    segment_seconds: float = 1.0,
    candidates: Optional[str] = None,
    allow_missing: bool = False,
    workers: Optional[int] = None,
) -> Labelling:
    """Labels features into a store and commits one version, as ``vaplan label`` does.

    Each input is a path, or values in memory. A store keeps its features for later changes, so that values in memory are
    written into the store's own folder.

    Args:
        store: folder of the store; it is created if it is missing.
        annotations: folder of annotations in LLP's format, or a dict with ``"classes"`` (names in order), and for each of
            ``"train"``, ``"val"`` and ``"test"`` the weak labels ``{video: [classes]}``. ``"audio_truth"`` and
            ``"visual_truth"`` are dense events ``{video: [(class, onset, offset), ...]}`` in whole seconds, as in the files.
        visual: features: a folder of ``<id>.npy`` ``(T, D)``, a folder of Parquet shards, a Parquet file, or a dict of
            arrays ``(T, D)`` or ``(1, T, D)`` by video.
        visual_text: text embeddings: npy ``(C, D)``, Parquet, or an array ``(C, D)``.
        audio: as ``visual``.
        audio_text: as ``visual_text``.
        pseudo_labels: instead of features, the labels of another program: two folders of ``<id>.npy`` ``(T, C)`` of 0 and 1,
            visual first; integers, booleans or floats. A label of a class that the weak label lacks is not set. ``rule``,
            ``thresholds``, ``scales``, ``candidates`` and ``columns`` must not be given.
        rule: ``softmax`` (default) or ``logit``.
        thresholds: ``{"visual": 1.025, "audio": 0.95}`` or the path of a TOML file.
        scales: ``{"visual": 1.0, "audio": 1.0}``.
        classes_file: class names in order, one per line.
        splits: splits to label [default: all three].
        columns: other names of the columns of Parquet shards, ``{"video": "id", "feature": "embedding"}``.
        segment_seconds: length of a segment.
        candidates: the classes that can be labelled in a video without a weak label: ``weak`` (none, default), ``all``, or
            ``top:K``, the K classes with the highest scores in both modalities together.
        allow_missing: commit also if most videos lose the labels of a modality.
        workers: number of threads of the dataflow [default: one per core].

    Warns:
        UserWarning: all labels of a modality are set, or none, which thresholds of another rule often do.

    Raises:
        ValueError: an input cannot be used.
        OSError: an input cannot be read, or the store cannot be written.
    """
    given: dict[str, Any] = {
        "store": _arguments.path(store, "store"),
        "segment_seconds": _changes.real(segment_seconds, "segment_seconds"),
        "allow_missing": flag(allow_missing, "allow_missing"),
        **_changes.settings(rule, thresholds, scales, candidates),
    }
    inputs = {"annotations": annotations, "visual": visual, "visual_text": visual_text, "audio": audio, "audio_text": audio_text}
    named = [key for key in ("visual", "visual_text", "audio", "audio_text") if inputs[key] is not None]
    if pseudo_labels is not None:
        kept = {"rule": rule, "thresholds": thresholds, "scales": scales, "candidates": candidates, "columns": columns}
        settings = [key for key, value in kept.items() if value is not None]
        if named or settings:
            raise ValueError(f"{(named + settings)[0]} is given beside pseudo_labels, expected one of them")
        if not isinstance(pseudo_labels, Sequence) or isinstance(pseudo_labels, str) or len(pseudo_labels) != 2:
            raise TypeError(f"pseudo_labels is {pseudo_labels!r}, expected the folders of visual and audio labels")
        given["pseudo_labels"] = tuple(_arguments.path(folder, "a folder of pseudo_labels") for folder in pseudo_labels)
        inputs = {"annotations": annotations}
    elif len(named) < 4:
        missing = next(key for key in ("visual", "visual_text", "audio", "audio_text") if key not in named)
        raise TypeError(f"{missing} is missing, expected features and text embeddings of both modalities, or pseudo_labels")
    if columns is not None:
        given["columns"] = _column_names(columns)
    if given.pop("class_thresholds", None):
        raise ValueError("thresholds has single classes, expected one number per modality or a TOML file")
    optional = {
        "classes_file": None if classes_file is None else _arguments.path(classes_file, "classes_file"),
        "splits": _arguments.split_names(splits),
        "workers": _arguments.workers(workers),
    }
    given.update({key: value for key, value in optional.items() if value is not None})
    given.update(_inputs.placed(store, inputs))
    done = _native.label(given)
    _arguments.warn(done, 2)
    return Labelling(
        store=Store(store),
        version=done["version"],
        labelled=done["labelled"],
        videos=done["videos"],
        audio=done["audio"],
        visual=done["visual"],
        rejected=done["rejected"],
        notes=done["notes"],
    )


def _column_names(columns: Mapping[str, str]) -> str:
    if not isinstance(columns, Mapping):
        raise TypeError(f"columns is of type {type(columns).__name__}, expected a dict such as {{'video': 'id'}}")
    known = ("video", "segment", "modality", "feature")
    for key, name in columns.items():
        choice(key, "a key of columns", known)
        if not isinstance(name, str) or not name or "," in name:
            raise ValueError(f"columns[{key!r}] is {name!r}, expected the name of a column without a comma")
    return ",".join(f"{key}={name}" for key, name in columns.items())
