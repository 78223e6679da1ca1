"""Thresholds that score best on videos with dense truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Union

import numpy as np

from . import _native
from ._arrays import Batch, choice, matching, named_cells, per_video, videos

METRICS = ("own", "audio-visual", "type-av", "event-av")


class Calibration(NamedTuple):
    """The result of :func:`calibrate`."""

    threshold: Any
    """The threshold, or an array ``(C,)`` with ``per_class``; for a dict of modalities, a dict of them."""
    in_sample: dict[str, float]
    """Segment-level F-scores, in percent, on the videos that the thresholds were chosen on."""
    held_out: dict[str, float]
    """The same on each fold with thresholds that were chosen on the other folds."""


def calibrate(
    scores: Any,
    weak: Any,
    truth: Any,
    folds: int = 5,
    *,
    per_class: bool = False,
    metric: str = "own",
) -> Calibration:
    """Chooses the threshold whose labels have the best segment-level F-score: a label is set if its score is above the
    threshold and its class is in the weak label.

    Args:
        scores: scores of one modality, ``(N, T, C)`` or a dict of ``(T, C)`` by video; or a dict with the keys ``audio``
            and ``visual`` (one or both) of such scores. Any scale, finite.
        weak: weak labels of the videos, 0 or 1, ``(N, C)`` or a dict of ``(C,)``.
        truth: true events, 0 or 1, in the form of ``scores``.
        folds: number of folds of cross-validation, from 2 to N. Video ``n`` is in fold ``n % folds``.
        per_class: one threshold for each class instead of one for all.
        metric: ``own``: the F-score of the modality. With both modalities also ``audio-visual``, ``type-av`` and
            ``event-av``.

    Returns:
        Thresholds, and scores with the keys of :func:`vaplan.evaluate`. The scores of a modality that was not given
        have no meaning and are left out.

    Raises:
        ValueError: a shape, value or setting cannot be used.
        TypeError: an argument is no array of numbers.

    Source: docs/method.md, PLG 5 (grade C: UWAV).

    >>> import numpy
    >>> scores = numpy.array([[[0.2], [0.8]], [[0.3], [0.9]]])
    >>> found = calibrate(scores, numpy.ones((2, 1)), scores > 0.5, folds=2)
    >>> 0.3 <= found.threshold < 0.8, found.in_sample["visual"]
    (True, 100.0)
    """
    choice(metric, "metric", METRICS)
    several = isinstance(scores, Mapping) and bool(scores) and set(scores) <= {"audio", "visual"}
    if not several:
        scores, truth = {"visual": scores}, {"visual": truth}
        forms = {"visual": ("scores", "truth")}
    else:
        forms = {name: (f"scores[{name!r}]", f"truth[{name!r}]") for name in ("audio", "visual")}
        if not isinstance(truth, Mapping) or set(truth) != set(scores):
            raise ValueError(f"truth has other keys than scores, expected a dict with {', '.join(map(repr, scores))}")
    if metric != "own" and len(scores) < 2:
        raise ValueError(f"metric is {metric!r}, which needs scores of both modalities, expected 'own'")
    tables: dict[str, tuple[Batch, Batch]] = {}
    first: Union[Batch, None] = None
    for name, own in scores.items():
        argument, argument_truth = forms[name]
        batch = videos(own, argument) if first is None else matching(own, argument, first)
        first = first or batch
        tables[name] = (batch, matching(truth[name], argument_truth, batch))
    assert first is not None
    weak_labels = per_video(weak, "weak", first)
    count = len(first.lengths)
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or not 2 <= folds <= count:
        raise ValueError(f"folds is {folds!r}, expected a whole number from 2 to {count}, the number of videos")
    for name, own in tables.items():
        _check(own)
    given = {name: (own[0].rows, own[1].rows) for name, own in tables.items()}
    with named_cells(weak_labels):
        found = _native.calibrate(
            given.get("audio"), given.get("visual"), weak_labels.rows, first.lengths, int(folds), per_class, metric
        )
    of = {name: found[name] if per_class else float(found[name][0]) for name in given}
    levels = [found["in_sample"], found["held_out"]]
    if len(given) == 1:
        levels = [{name: level[name] for name in given} for level in levels]
    return Calibration(of if several else of["visual"], *levels)


def _check(tables: tuple[Batch, Batch]) -> None:
    """Checks the values here, because the native function does not know which of two modalities an array is of."""
    scores, truth = tables
    rules = ((scores, np.isfinite(scores.rows), "a finite number"), (truth, (truth.rows == 0) | (truth.rows == 1), "0 or 1"))
    for own, good, expected in rules:
        if not good.all():
            row, column = (int(place[0]) for place in np.nonzero(~good))
            raise ValueError(f"{own.place(row, column)} is {own.rows[row, column]:g}, expected {expected}")
