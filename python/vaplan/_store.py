"""A store of labels, its versions, and changes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import pyarrow as pa

from . import _changes, _inputs, _native
from ._arrays import choice, named_cells
from ._show import Timeline

PathLike = Union[str, "os.PathLike[str]"]
MODALITIES = ("audio", "visual")


class VideoArrays(NamedTuple):
    """Values of one modality of N videos, T segments of the longest video, and C classes."""

    names: list[str]
    """``[N]``, ascending."""
    values: np.ndarray
    """``[N, T, C]``; after the last segment of a shorter video, labels are 0 and numbers are NaN."""
    lengths: np.ndarray
    """``[N]`` int64, the number of segments of each video."""
    classes: list[str]
    """``[C]``"""


class WeakLabels(NamedTuple):
    """Weak labels of N videos and C classes."""

    names: list[str]
    """``[N]``, ascending."""
    values: np.ndarray
    """``[N, C]`` uint8, 0 or 1."""
    classes: list[str]
    """``[C]``"""


class Change(NamedTuple):
    """What a change did, or with ``dry_run`` what it would do."""

    version: Optional[int]
    """The new store version; ``None`` if no row changed, and after a dry run."""
    set: int
    """Number of labels that the change set."""
    unset: int
    """Number of labels that the change unset."""
    changes: pa.Table
    """One row per changed label: ``video``, ``modality``, ``class``, ``segment``, ``before``, ``after``, ``rule``."""
    rejected: list[dict[str, Any]]
    """Rows of the change that have no effect, each with ``file``, ``row``, ``video``, ``modality`` and ``reason``."""
    flips: Optional[tuple[int, int]]
    """Number of labels that PLD set and unset in all, if the change named an epoch of the store."""
    calibration: Optional[dict[str, Any]] = None
    """The denoising rule that was chosen on split ``val``, its gain in points of the F-score on all videos (``in_sample``) and on
    videos that did not choose it (``held_out``, with its standard ``error``), and whether it was ``taken``; ``None`` if no rule
    was chosen."""


class Labelling(NamedTuple):
    """What :func:`label` did."""

    store: Store
    """The store, at the new version."""
    version: int
    """The version that holds the labels."""
    labelled: bool
    """False if the store already held the labels of exactly these inputs and settings."""
    videos: int
    """Number of videos; 0 if nothing was labelled."""
    audio: tuple[int, int]
    """Number of audio labels that are set, and number of all."""
    visual: tuple[int, int]
    """Number of visual labels that are set, and number of all."""
    rejected: list[dict[str, Any]]
    """Rejected rows of the inputs."""


def open(path: PathLike, version: Optional[int] = None) -> Store:
    """Opens a store.

    Args:
        path: folder of the store.
        version: a version, or ``None`` for the latest.

    Raises:
        FileNotFoundError: there is no store, or it has no version yet.
        LookupError: the store does not have the version.
    """
    return Store(path, version)


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
            ``"visual_truth"`` are dense events ``{video: [(class, onset, offset), ...]}`` in seconds.
        visual: features: a folder of ``<id>.npy`` ``(T, D)``, a folder of Parquet shards, a Parquet file, or a dict of
            arrays ``(T, D)`` by video.
        visual_text: text embeddings: npy ``(C, D)``, Parquet, or an array ``(C, D)``.
        audio: as ``visual``.
        audio_text: as ``visual_text``.
        pseudo_labels: instead of features, the labels of another program: two folders of ``<id>.npy`` ``(T, C)`` of 0 and 1,
            visual first. A label of a class that the weak label lacks is not set. ``rule``, ``thresholds`` and ``scales`` must
            not be given.
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

    Raises:
        ValueError: an input cannot be used.
        OSError: an input cannot be read, or the store cannot be written.
    """
    given: dict[str, Any] = {
        "store": os.fspath(store),
        "segment_seconds": segment_seconds,
        "allow_missing": allow_missing,
        **_changes.settings(rule, thresholds, scales, candidates),
    }
    inputs = {"annotations": annotations, "visual": visual, "visual_text": visual_text, "audio": audio, "audio_text": audio_text}
    named = [key for key in ("visual", "visual_text", "audio", "audio_text") if inputs[key] is not None]
    if pseudo_labels is not None:
        kept = {"rule": rule, "thresholds": thresholds, "scales": scales, "candidates": candidates}
        settings = [key for key, value in kept.items() if value is not None]
        if named or settings:
            raise ValueError(f"{(named + settings)[0]} is given beside pseudo_labels, expected one of them")
        if isinstance(pseudo_labels, (str, os.PathLike)) or len(pseudo_labels) != 2:
            raise TypeError(f"pseudo_labels is {pseudo_labels!r}, expected the folders of visual and audio labels")
        given["pseudo_labels"] = tuple(os.fspath(folder) for folder in pseudo_labels)
        inputs = {"annotations": annotations}
    elif len(named) < 4:
        missing = next(key for key in ("visual", "visual_text", "audio", "audio_text") if key not in named)
        raise TypeError(f"{missing} is missing, expected features and text embeddings of both modalities, or pseudo_labels")
    if columns is not None:
        given["columns"] = _column_names(columns)
    if given.pop("class_thresholds", None):
        raise ValueError("thresholds has single classes, expected one number per modality or a TOML file")
    optional = {"classes_file": classes_file, "splits": None if splits is None else list(splits), "workers": workers}
    given.update({key: value for key, value in optional.items() if value is not None})
    given.update(_inputs.placed(store, inputs))
    done = _native.label(given)
    return Labelling(
        store=Store(store),
        version=done["version"],
        labelled=done["labelled"],
        videos=done["videos"],
        audio=done["audio"],
        visual=done["visual"],
        rejected=done["rejected"],
    )


class Store:
    """A store, read at one version. Later commits do not change what it reads; a change that is made through this object
    moves the object to the new version."""

    def __init__(self, path: PathLike, version: Optional[int] = None) -> None:
        self._native = _native.Snapshot(os.fspath(path), version)

    def __repr__(self) -> str:
        return f"vaplan.Store({self.path!r}, version={self.version})"

    @property
    def path(self) -> str:
        """The absolute path of the store."""
        return os.fspath(self._native.path)

    @property
    def version(self) -> int:
        """The version that this object reads."""
        return self._native.version

    def versions(self) -> pa.Table:
        """One row per version, also those after this one: number, epoch, command, time and so on."""
        return pa.table(_native.versions(self.path))

    def at(self, version: int) -> Store:
        """The same store at another version.

        Raises:
            LookupError: the store does not have the version.
        """
        return Store(self.path, version)

    def latest(self) -> Store:
        """The same store at its latest version."""
        return Store(self.path)

    def refresh(self) -> Store:
        """Moves this object to the latest version, and returns it."""
        self._native = _native.Snapshot(self.path, None)
        return self

    # ---- tables

    def tables(self) -> dict[str, list[str]]:
        """The names of all tables and views, with the names of their columns."""
        return self._native.tables()

    def table(
        self, name: str, columns: Optional[Sequence[str]] = None, where: Optional[str] = None
    ) -> pa.Table:
        """A table, or the view ``events``, with one row per segment where the table has segments.

        Args:
            name: a name of :meth:`tables`.
            columns: names of columns [default: all].
            where: a condition in SQL, such as ``"modality = 'visual' AND label"``.

        Raises:
            ValueError: a name is unknown, or the condition cannot be read.
        """
        known = self.tables()
        choice(name, "name", list(known))
        for column in columns or ():
            choice(column, f"a column of table {name!r}", known[name])
        wanted = "*" if columns is None else ", ".join(map(_quoted, columns)) or "NULL"
        condition = "" if where is None else f" WHERE {where}"
        return self.sql(f"SELECT {wanted} FROM {_quoted(name)}{condition}")

    def sql(self, statement: str) -> pa.Table:
        """The answer of one SQL statement that only reads. Ctrl-C stops it.

        Raises:
            ValueError: the statement cannot be read, or would change data.
        """
        return pa.table(self._native.sql(statement))

    # ---- arrays

    def labels(self, split: Optional[str] = None, modality: str = "visual") -> VideoArrays:
        """Labels ``(N, T, C)``, uint8, of the videos of a split [default: all]."""
        return _arrays(self._native.labels(split, choice(modality, "modality", MODALITIES)))

    def scores(self, split: Optional[str] = None, modality: str = "visual") -> VideoArrays:
        """Scores ``(N, T, C)``, float64, as they are compared with thresholds; NaN outside the weak label."""
        return _arrays(self._native.scores(split, choice(modality, "modality", MODALITIES)))

    def predictions(self, epoch: int, split: Optional[str] = None, modality: str = "visual") -> VideoArrays:
        """Probabilities ``(N, T, C)``, float32, of an epoch; NaN for videos that the epoch did not predict.

        Raises:
            ValueError: the store has no predictions of the epoch.
        """
        return _arrays(self._native.predictions(epoch, split, choice(modality, "modality", MODALITIES)))

    def weak_labels(self, split: Optional[str] = None) -> WeakLabels:
        """Weak labels ``(N, C)``, uint8."""
        found = self._native.weak(split)
        return WeakLabels(found["names"], found["values"], found["classes"])

    def show(self, video: str, width: int = 80) -> Timeline:
        """The timeline of one video: text with ``print``, a picture in a notebook.

        Args:
            video: full name, or the first 11 characters.
            width: columns of the text.

        Raises:
            LookupError: no video or several videos have this name.
        """
        return Timeline(self._native.show(video, width))

    def export(
        self, format: str, out: PathLike, splits: Optional[Sequence[str]] = None
    ) -> tuple[int, list[tuple[str, str]]]:
        """Writes the labels for other programs into a folder that is new or empty, as ``vaplan export`` does.

        Args:
            format: ``valor`` (``audio/<id>.npy`` and ``visual/<id>.npy``, ``(T, C)`` int64, a file for every video),
                ``llp-csv`` (annotation files), ``activitynet`` (JSON) or ``huggingface`` (Parquet).
            out: the folder. It appears complete or not at all.
            splits: splits to write [default: all].

        Returns:
            Number of videos that were written, and names and reasons of those that were left out.

        Raises:
            FileExistsError: the folder has files.
            ValueError: the format or a split is unknown, or the splits have no video.
        """
        names = [splits] if isinstance(splits, str) else splits
        return self._native.export(format, os.fspath(out), None if names is None else list(names))

    # ---- changes

    def relabel(self, *, dry_run: bool = False, workers: Optional[int] = None, **changes: Any) -> Change:
        """Makes a change and commits it as one version, as ``vaplan relabel`` does. The cost depends on what it touches.

        Args:
            dry_run: compute the changed labels and commit nothing.
            workers: number of threads of the dataflow [default: one per core].
            rule: ``softmax`` or ``logit``.
            thresholds: ``{"visual": 1.05}`` for all classes, ``{"visual": {"Dog": 1.1}}`` for single classes, or the
                path of a TOML file.
            scales: ``{"visual": 100.0}``.
            candidates: ``weak``, ``all`` or ``top:K``, as for :func:`label`.
            user_labels: rows with ``video``, ``modality``, ``class``, ``segment`` (or ``onset`` and ``offset`` in
                segments) and ``label`` (true, false, or ``None`` to withdraw): a list of dicts, or a DataFrame.
            weak: ``{video: [classes]}``: the new weak label; ``None`` removes the video.
            add_weak, remove_weak: ``{video: [classes]}``.
            splits: ``{video: split}`` of videos in ``weak`` and ``add_weak``.
            predictions: ``{"epoch": 12, "audio": a, "visual": v}``; ``a`` and ``v`` are dicts of ``(T, C)`` by name, or
                arrays ``(N, T, C)`` with ``"names": [...]`` (and ``"lengths"`` if the videos differ in length).
            epoch: an epoch of the store: only its predictions count.
            denoise: ``{"k": 5, "alpha": 10, "guard": 0.5, "modalities": ["visual"]}``; every key is optional.
            features, removed_features: ``{"visual": [paths]}``, features that are new or changed, or to take out.
            to_version: take rule, thresholds, prompts and denoising of this version.
            allow_missing: commit also if most videos lose the labels of a modality.

        Raises:
            ValueError: the change cannot be made; nothing was committed.
            TypeError: an argument has a wrong type.
        """
        given, batches = _changes.prepare(changes)
        with named_cells(*batches):
            done = _native.relabel(self.path, given, dry_run, workers, _changes.command("relabel", changes))
        return self._done(done)

    def denoise(
        self,
        epoch: Optional[int] = None,
        *,
        k: Optional[int] = None,
        alpha: Optional[float] = None,
        guard: Optional[float] = None,
        modalities: Optional[Sequence[str]] = None,
        calibrate: bool = True,
        dry_run: bool = False,
        workers: Optional[int] = None,
    ) -> Change:
        """Flips the labels that the predictions of an epoch contradict (PLD), and commits one version.

        If no setting of PLD is given, and split ``val`` has dense truth and predictions of the epoch, the rule is the one that
        improves the labels of ``val`` most. If its gain on videos that did not choose it is not above 0 by more than two
        standard errors, nothing is changed. The result tells both in ``calibration``.

        Args:
            epoch: an epoch of the store [default: the best epoch that predicted videos of split ``train``].
            k, alpha, guard: settings of PLD [default: chosen on ``val``, or those of the store].
            modalities: modalities to denoise [default: those of the store, or visual at the first epoch].
            calibrate: whether the rule is chosen on ``val``; ``False`` takes the rule of the store as it is.
            dry_run: commit nothing.
            workers: number of threads of the dataflow [default: one per core].

        Raises:
            ValueError: the store has no such epoch, or a setting is out of range.
        """
        wanted = {"k": k, "alpha": alpha, "guard": guard, "modalities": modalities}
        rule = {key: value for key, value in wanted.items() if value is not None}
        given, _ = _changes.prepare({"denoise": rule, **({} if epoch is None else {"epoch": epoch})})
        command = _changes.command("denoise", {"epoch": epoch, **rule})
        return self._done(_native.denoise_store(self.path, given, calibrate, dry_run, workers, command))

    def plan(self, **changes: Any) -> dict[str, Any]:
        """What a change would cost, before it is made. The arguments are those of :meth:`relabel`.

        Returns:
            ``everything`` (whether every score depends on the change), ``videos``, ``rescored`` and ``tracks`` (their
            numbers), ``tables`` (rows, videos, files and bytes of each), ``feature_files``, ``feature_bytes`` and
            ``seconds``, a rough estimate without reading features.
        """
        given, batches = _changes.prepare(changes)
        with named_cells(*batches):
            return _native.plan(self.path, given)

    def session(self, workers: Optional[int] = 1) -> Session:
        """Loads the latest version into memory, for many changes one after the other."""
        return Session(self, workers)

    def _done(self, done: dict[str, Any]) -> Change:
        if done["version"] is not None:
            self._native = _native.Snapshot(self.path, done["version"])
        return _change(done)


class Session:
    """A store whose latest version stays in memory, so that a change costs only what it touches: about 1 kB per video.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = sample(folder)
    ...     with store.session() as session:
    ...         change = session.apply(thresholds={"visual": 1.05})
    ...     change.version, change.set, change.unset > 0
    (2, 0, True)
    """

    def __init__(self, store: Store, workers: Optional[int] = 1) -> None:
        self._store = store
        self._native = _native.Session(store.path, workers)

    @property
    def version(self) -> int:
        """The version that the session holds."""
        return self._native.version

    def apply(self, changes: Optional[Mapping[str, Any]] = None, *, list_changes: bool = True, **more: Any) -> Change:
        """Makes a change and commits it as one version. The keys of ``changes`` and ``more`` are the arguments of
        :meth:`Store.relabel`.

        Args:
            changes: the change, if it is not given by keywords.
            list_changes: whether the result lists the changed labels.

        Raises:
            ValueError: the change cannot be made; nothing was committed, and the session can be used again.
        """
        wanted = {**(changes or {}), **more}
        given, batches = _changes.prepare(wanted)
        with named_cells(*batches):
            done = self._native.apply(given, _changes.command("session.apply", wanted), list_changes)
        return self._store._done(done)

    def close(self) -> None:
        """Ends the session and its threads."""
        self._native.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def _column_names(columns: Mapping[str, str]) -> str:
    known = ("video", "segment", "modality", "feature")
    for key, name in columns.items():
        choice(key, "a key of columns", known)
        if not isinstance(name, str) or not name or "," in name:
            raise ValueError(f"columns[{key!r}] is {name!r}, expected the name of a column without a comma")
    return ",".join(f"{key}={name}" for key, name in columns.items())


def _arrays(found: dict[str, Any]) -> VideoArrays:
    return VideoArrays(found["names"], found["values"], found["lengths"], found["classes"])


def _change(done: dict[str, Any]) -> Change:
    return Change(
        version=done["version"],
        set=done["set"],
        unset=done["unset"],
        changes=pa.table(done["changes"]),
        rejected=done["rejected"],
        flips=done["flips"],
        calibration=done.get("calibration"),
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
