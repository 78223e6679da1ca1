"""Pseudo labels on arrays: generation (PLG), denoising (PLD), and events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

import numpy as np

from . import _native
from ._arrays import choice, matching, named_cells, numeric, per_video, videos

RULES = ("softmax", "logit")
MODALITIES = ("audio", "visual")


def generate(
    cosine: Any,
    weak: Any,
    rule: str = "softmax",
    threshold: Any = None,
    *,
    scale: Optional[float] = None,
    modality: str = "visual",
) -> Any:
    """Pseudo labels of one modality (PLG): a label is set if its score is above the threshold and its class is in the
    weak label.

    Args:
        cosine: cosines of segments and class prompts, ``(N, T, C)`` or a dict of ``(T, C)``; finite.
        weak: weak labels of the videos, 0 or 1, ``(N, C)`` or a dict of ``(C,)``.
        rule: ``softmax``: the score is the softmax of scale * cosine over all classes, and the threshold is relative to
            the uniform probability 1/C. ``logit`` (VALOR): the score is scale * cosine.
        threshold: one number, or one per class ``(C,)``. Default for ``softmax``: 1.025 for visual, 0.95 for audio.
            Rule ``logit`` has no default.
        scale: default for ``softmax``: 1. Default for ``logit``: 100 for visual, 18.66 for audio.
        modality: ``visual`` or ``audio``; decides the defaults only.

    Returns:
        Labels as bool, in the form of ``cosine``.

    Raises:
        ValueError: a shape, value or name cannot be used.
        TypeError: an argument is no array of numbers.

    >>> import numpy
    >>> generate(numpy.array([[[0.9, 0.1], [0.1, 0.9]]]), numpy.array([[1, 0]])).tolist()
    [[[True, False], [False, False]]]
    """
    choice(rule, "rule", RULES)
    choice(modality, "modality", MODALITIES)
    given = videos(cosine, "cosine")
    weak_labels = per_video(weak, "weak", given)
    if threshold is None:
        if rule == "logit":
            raise ValueError("threshold is missing, expected a number or one per class: rule 'logit' has no default")
        threshold = _native.THRESHOLDS[modality]
    if scale is None:
        scale = 1.0 if rule == "softmax" else _native.LOGIT_SCALES[modality]
    limits = numeric(threshold, "threshold").astype(np.float64)
    if limits.shape not in ((), (given.classes,)):
        raise ValueError(f"threshold has shape {limits.shape}, expected one number or ({given.classes},): one per class")
    for place, limit in np.ndenumerate(limits):
        if not math.isfinite(limit):
            raise ValueError(f"threshold{list(place) or ''} is {limit}, expected a finite number")
    thresholds = np.broadcast_to(limits, (given.classes,)).tolist()
    with named_cells(given, weak_labels):
        labels = _native.generate(
            given.rows, weak_labels.rows, given.lengths, rule, _number(scale, "scale"), thresholds
        )
    return given.like(labels)


class Denoised(NamedTuple):
    """The result of :func:`denoise`. Each field has the form of the argument ``labels``."""

    labels: Any
    """Labels after denoising, bool."""
    losses: Any
    """Forward loss of each label, float64; NaN for classes outside the weak label."""
    flips: Any
    """Whether the label was flipped, bool."""


def denoise(probability: Any, labels: Any, weak: Any, k: int = 5, alpha: float = 10.0, guard: float = 0.5) -> Denoised:
    """Pseudo label denoising of one modality (PLD): flips the labels that a trained parser contradicts.

    A label of a class of the weak label is flipped if two conditions hold. Its loss is above ``alpha`` times the mean of
    the ``k`` smallest losses of its class in its video, and its probability is farther than ``guard`` from the label.

    Args:
        probability: probabilities of the segments, ``(N, T, C)`` or a dict of ``(T, C)``. They are rounded to float32,
            as in the tables of a store.
        labels: labels 0 or 1, in the form of ``probability``.
        weak: weak labels of the videos, 0 or 1, ``(N, C)`` or a dict of ``(C,)``.
        k: number of smallest losses, from 1.
        alpha: factor, finite and above 0.
        guard: distance of probability and label, from 0 to 1.

    Returns:
        Labels, losses (binary cross-entropy in float64, probabilities clamped to 1e-7 from 0 and 1) and flips.

    Raises:
        ValueError: a shape, value or setting cannot be used.
        TypeError: an argument is no array of numbers.

    Source: docs/method.md, PLD.

    >>> import numpy
    >>> probability = numpy.array([[[0.01], [0.02], [0.9]]])
    >>> denoise(probability, numpy.zeros((1, 3, 1)), numpy.ones((1, 1)), k=2).labels.ravel().tolist()
    [False, False, True]
    """
    given = videos(probability, "probability")
    before = matching(labels, "labels", given)
    weak_labels = per_video(weak, "weak", given)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k < 2**31:
        raise ValueError(f"k is {k!r}, expected a whole number from 1 to 2147483647")
    with named_cells(given, before, weak_labels):
        after, losses, flips = _native.denoise(
            given.rows,
            before.rows,
            weak_labels.rows,
            given.lengths,
            int(k),
            _number(alpha, "alpha"),
            _number(guard, "guard"),
        )
    return Denoised(given.like(after), given.like(losses), given.like(flips))


class Events(NamedTuple):
    """The result of :func:`events`: arrays of one value per event, ordered by video, class and onset."""

    video: np.ndarray
    """Position of the video, or its name if the argument was a dict."""
    class_index: np.ndarray
    """Position of the class."""
    onset: np.ndarray
    """Begin in seconds."""
    offset: np.ndarray
    """End in seconds: the end of the last segment."""


def events(labels: Any, segment_seconds: float = 1.0) -> Events:
    """The events of labels: the maximal runs of set labels of each video and class.

    Args:
        labels: labels 0 or 1, ``(N, T, C)``, ``(T, C)`` of one video, or a dict of ``(T, C)``.
        segment_seconds: length of a segment in seconds, finite and above 0.

    Raises:
        ValueError: a shape or value cannot be used.
        TypeError: an argument is no array of numbers.

    >>> import numpy
    >>> found = events(numpy.array([[0], [1], [1], [0]]), segment_seconds=0.5)
    >>> found.onset.tolist(), found.offset.tolist()
    ([0.5], [1.5])
    """
    seconds = _number(segment_seconds, "segment_seconds")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"segment_seconds is {seconds}, expected a finite number of seconds above 0")
    if not isinstance(labels, Mapping):
        labels = numeric(labels, "labels")
        if labels.ndim == 2:
            labels = labels[np.newaxis]
    given = videos(labels, "labels")
    with named_cells(given):
        video, class_index, onset, offset = _native.events(given.rows, given.lengths)
    names = video if given.names is None else np.array(given.names)[video]
    return Events(names, class_index, onset * seconds, offset * seconds)


def _number(value: Any, argument: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument} is {value!r}, expected a number") from None
