"""A store of labels, its versions, and changes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Optional

import pyarrow as pa

from . import _arguments, _changes, _native
from ._arguments import PathLike
from ._arrays import choice, flag, named_cells
from ._results import Change, Exported, VideoArrays, WeakLabels
from ._show import Timeline

MODALITIES = ("audio", "visual")


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


class Store:
    """A store, read at one version. Later commits do not change what it reads; a change that is made through this object
    moves the object to the new version."""

    def __init__(self, path: PathLike, version: Optional[int] = None) -> None:
        number = None if version is None else _changes.whole(version, "version", 0, _arguments.LARGEST["version"])
        self._native = _native.Snapshot(_arguments.path(path, "path"), number)

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
        return Store(self.path, _changes.whole(version, "version", 0, _arguments.LARGEST["version"]))

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
        return _arrays(self._native.labels(_arguments.split(split), choice(modality, "modality", MODALITIES)))

    def scores(self, split: Optional[str] = None, modality: str = "visual") -> VideoArrays:
        """Scores ``(N, T, C)``, float64, as they are compared with thresholds; NaN outside the weak label."""
        return _arrays(self._native.scores(_arguments.split(split), choice(modality, "modality", MODALITIES)))

    def predictions(self, epoch: int, split: Optional[str] = None, modality: str = "visual") -> VideoArrays:
        """Probabilities ``(N, T, C)``, float32, of an epoch; NaN for videos that the epoch did not predict.

        Raises:
            ValueError: the store has no predictions of the epoch.
        """
        number = _changes.whole(epoch, "epoch", 1, _arguments.LARGEST["epoch"])
        return _arrays(self._native.predictions(number, _arguments.split(split), choice(modality, "modality", MODALITIES)))

    def weak_labels(self, split: Optional[str] = None) -> WeakLabels:
        """Weak labels ``(N, C)``, uint8."""
        found = self._native.weak(_arguments.split(split))
        return WeakLabels(found["names"], found["values"], found["classes"])

    def show(self, video: str, width: int = 80) -> Timeline:
        """The timeline of one video: text with ``print``, a picture in a notebook.

        Args:
            video: full name, or the first 11 characters.
            width: columns of the text, from 1.

        Raises:
            LookupError: no video or several videos have this name.
        """
        if not isinstance(video, str):
            raise TypeError(f"video is {video!r}, expected the name of a video")
        return Timeline(self._native.show(video, _changes.whole(width, "width", 1, _arguments.LARGEST["width"])))

    def export(
        self,
        format: str,
        out: PathLike,
        splits: Optional[Sequence[str]] = None,
        *,
        media: Optional[str] = None,
        frame_rate: Optional[float] = None,
    ) -> Exported:
        """Writes the labels for other programs into a folder that is new or empty, as ``vaplan export`` does.

        Args:
            format: ``valor`` (``audio/<id>.npy`` and ``visual/<id>.npy``, ``(T, C)`` int64, a file for every video),
                ``llp-csv`` (annotation files of LLP), ``activitynet`` (one JSON file), ``huggingface`` (Parquet files for
                ``datasets.load_dataset``), ``label-studio`` (tasks and a configuration), ``fiftyone`` (samples and the script
                that loads them), one file per video of ``elan``, ``textgrid`` (Praat), ``audacity`` or ``webvtt``, or ``csv``
                (the events of all videos).
            out: the folder. It appears complete or not at all.
            splits: splits to write [default: all].
            media: path or URL of the media of a video, for the formats that name it: ``{video}`` stands for the full name and
                ``{id}`` for its first 11 characters [default: ``{video}.mp4``].
            frame_rate: frames per second of the media, for the formats that count frames [default: 24].

        Raises:
            FileExistsError: the folder has files, or the path is no folder.
            ValueError: the format, a split or the frame rate cannot be used, or the splits have no video.
        """
        if not isinstance(format, str):
            raise TypeError(f"format is {format!r}, expected the name of a format such as 'valor'")
        if media is not None and not isinstance(media, str):
            raise TypeError(f"media is {media!r}, expected a text such as '{{video}}.mp4'")
        rate = None if frame_rate is None else _changes.real(frame_rate, "frame_rate")
        return Exported(*self._native.export(format, _arguments.path(out, "out"), _arguments.split_names(splits), media, rate))

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
                segments) and ``label`` (true, false, or ``None`` or ``"withdraw"`` to withdraw): a list of dicts, or a
                DataFrame of pandas, Polars or pyarrow. NaN of pandas is ``None``.
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

        Warns:
            UserWarning: new thresholds set all labels of a modality, or none.

        Raises:
            ValueError: the change cannot be made; nothing was committed.
            TypeError: an argument has a wrong type.
        """
        given, batches = _changes.prepare(changes)
        command = _changes.command("relabel", changes)
        with named_cells(*batches):
            done = _native.relabel(self.path, given, flag(dry_run, "dry_run"), _arguments.workers(workers), command)
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
        flags = flag(calibrate, "calibrate"), flag(dry_run, "dry_run")
        return self._done(_native.denoise_store(self.path, given, *flags, _arguments.workers(workers), command))

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
        _arguments.warn(done, 3)
        if done["version"] is not None:
            self._native = _native.Snapshot(self.path, done["version"])
        return _change(done)


class Session:
    """A store whose latest version stays in memory, so that a change costs only what it touches: about 1 kB per video.

    >>> import tempfile, vaplan
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = vaplan.sample(folder)
    ...     with store.session() as session:
    ...         change = session.apply(thresholds={"visual": 1.05})
    ...     change.version, change.set, change.unset > 0
    (2, 0, True)
    """

    def __init__(self, store: Store, workers: Optional[int] = 1) -> None:
        self._store = store
        self._native = _native.Session(store.path, _arguments.workers(workers))

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
        if changes is not None and not isinstance(changes, Mapping):
            raise TypeError(f"changes is of type {type(changes).__name__}, expected a dict of the arguments of Store.relabel")
        wanted = {**(changes or {}), **more}
        given, batches = _changes.prepare(wanted)
        with named_cells(*batches):
            done = self._native.apply(given, _changes.command("session.apply", wanted), flag(list_changes, "list_changes"))
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
