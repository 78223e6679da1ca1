"""What the functions of a store return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from ._store import Store


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
    notes: list[dict[str, Any]] = []
    """Notes on inputs that were used, or that match no video, in the form of ``rejected``."""


class Exported(NamedTuple):
    """What :meth:`Store.export` wrote."""

    videos: int
    """Number of videos that were written."""
    left_out: list[tuple[str, str]]
    """Videos that were left out because their name cannot be the name of a file, each with the reason."""
    left_out_classes: list[str]
    """Classes that were left out because the format cannot hold their name."""
