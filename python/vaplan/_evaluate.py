"""F-scores of predictions against dense truth."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from . import _native
from ._arrays import Batch, PerVideo, choice, matching, named_cells, per_video, videos

PROTOCOLS = ("labels", "segment", "fused", "own")
LEVELS = ("both", "segment", "event")


def evaluate(
    audio_pred: Any,
    visual_pred: Any,
    audio_true: Any,
    visual_true: Any,
    level: str = "both",
    per_class: bool = False,
    *,
    protocol: str = "labels",
    video_prob: Any = None,
    audio_prob: Any = None,
    visual_prob: Any = None,
) -> dict[str, Any]:
    """F-scores of predictions, in percent, as the public evaluator of audio-visual video parsing computes them.

    Args:
        audio_pred: audible events, an array ``(N, T, C)`` or a dict of arrays ``(T, C)`` by name of the video. With
            protocol ``labels`` the values are 0 or 1, with any other protocol they are probabilities.
        visual_pred: visible events, in the form of ``audio_pred``.
        audio_true: true audible events, 0 or 1, in the form of ``audio_pred``.
        visual_true: true visible events, 0 or 1, in the form of ``audio_pred``.
        level: ``segment``, ``event`` or ``both``.
        per_class: also return the segment-level F-score of each class, with counts summed over all videos (an addition
            of this package). NaN for a class that is neither predicted nor true.
        protocol: how predictions become labels. ``labels``: they are labels. ``segment``: probability >= 0.5.
            ``fused`` (HAN): also the video's probability is >= 0.5. ``own`` (MA, JoMoLD, LSLD): also the modality's
            probability is >= 0.5.
        video_prob: probabilities of whole videos for ``fused``, ``(N, C)`` or a dict of ``(C,)``.
        audio_prob: probabilities of the audio of whole videos for ``own``, ``(N, C)`` or a dict of ``(C,)``.
        visual_prob: probabilities of the picture of whole videos for ``own``, ``(N, C)`` or a dict of ``(C,)``.

    Returns:
        ``{"segment": scores, "event": scores}``; scores has the keys ``audio``, ``visual``, ``audio_visual``,
        ``type_av`` and ``event_av``. With ``per_class`` also ``"per_class"``: arrays ``(C,)`` by ``audio``,
        ``visual``, ``audio_visual`` and ``event_av``.

    Raises:
        ValueError: a shape, value or name cannot be used. The message names the argument, the index and the value.
        TypeError: an argument is no array of numbers.

    Source: ``segment_level``, ``event_level`` and ``event_wise_metric`` in ``utils/eval_metrics.py`` of
    YapengTian/AVVP-ECCV20 (grade C), for any T and C.

    >>> import numpy
    >>> true, pred = numpy.zeros((1, 10, 1)), numpy.zeros((1, 10, 1))
    >>> true[0, :, 0] = 1
    >>> pred[0, :6, 0] = 1
    >>> scores = evaluate(pred, true * 0, true, true * 0)
    >>> scores["segment"]["audio"], scores["event"]["audio"]
    (75.0, 100.0)
    """
    choice(level, "level", LEVELS)
    audio = videos(audio_pred, "audio_pred")
    if 0 in (len(audio.lengths), audio.classes):
        raise ValueError(f"audio_pred has shape {audio.shape}, expected at least one video and one class")
    others = [
        matching(value, argument, audio)
        for argument, value in (("visual_pred", visual_pred), ("audio_true", audio_true), ("visual_true", visual_true))
    ]
    visual, true_audio, true_visual = others
    whole = _whole(protocol, audio, video_prob, audio_prob, visual_prob)
    with named_cells(audio, *others, *(whole or ())):
        report = _native.evaluate(
            (audio.rows, visual.rows),
            (true_audio.rows, true_visual.rows),
            audio.lengths,
            protocol,
            None if whole is None else (whole[0].rows, whole[1].rows),
        )
    return _chosen(report, level, per_class)


def evaluate_llp(
    predictions: Mapping[str, Any],
    annotations_dir: os.PathLike[str] | str,
    split: str = "test",
    *,
    level: str = "both",
    per_class: bool = False,
    protocol: str = "labels",
    classes_file: Optional[os.PathLike[str] | str] = None,
) -> dict[str, Any]:
    """F-scores of predictions against the dense truth of an annotation folder in LLP's format.

    Args:
        predictions: ``{"audio": {name: (T, C)}, "visual": {name: (T, C)}}``; for protocol ``fused`` also
            ``"video_prob": {name: (C,)}``, and for ``own`` also ``"audio_prob"`` and ``"visual_prob"``. A name is the
            full name of the video, or its first 11 characters. Videos of other splits are ignored. A video of the
            split without prediction counts as nothing predicted, and the result lists it.
        annotations_dir: folder with ``AVVP_*.csv`` files.
        split: ``train``, ``val`` or ``test``.
        level: as in :func:`evaluate`.
        per_class: as in :func:`evaluate`.
        protocol: as in :func:`evaluate`.
        classes_file: class names in order, one per line [default: ``classes.txt`` of the folder, or LLP's 25 classes].

    Returns:
        As :func:`evaluate`, and ``videos`` (their number), ``missing`` (names of the videos without prediction) and
        ``classes`` (names, in the order of the columns).

    Raises:
        ValueError: a prediction or the split cannot be used.
        OSError: the annotations cannot be read.
    """
    choice(level, "level", LEVELS)
    known = ("audio", "visual", "video_prob", "audio_prob", "visual_prob")
    if not isinstance(predictions, Mapping):
        raise TypeError(f"predictions is of type {type(predictions).__name__}, expected a dict with 'audio' and 'visual'")
    for key in predictions:
        choice(key, "a key of predictions", known)
    for key in ("audio", "visual"):
        if not isinstance(predictions.get(key), Mapping):
            raise ValueError(f"predictions[{key!r}] is missing or no dict, expected a dict of arrays (T, C)")
    audio = videos(predictions["audio"], 'predictions["audio"]')
    visual = matching(predictions["visual"], 'predictions["visual"]', audio)
    of_video, of_audio, of_visual = (predictions.get(key) for key in known[2:])
    whole = _whole(protocol, audio, of_video, of_audio, of_visual, form='predictions["{}"]')
    with named_cells(audio, visual, *(whole or ())):
        report = _native.evaluate_folder(
            annotations_dir,
            classes_file,
            split,
            audio.names or [],
            (audio.rows, visual.rows),
            audio.lengths,
            protocol,
            None if whole is None else (whole[0].rows, whole[1].rows),
        )
    extra = {key: report[key] for key in ("videos", "missing", "classes")}
    return {**_chosen(report, level, per_class), **extra}


def _whole(
    protocol: str, like: Batch, video: Any, audio: Any, visual: Any, form: str = "{}"
) -> Optional[tuple[PerVideo, PerVideo]]:
    """The probabilities of whole videos that a protocol needs: for audio, then for visual."""
    choice(protocol, "protocol", PROTOCOLS)
    wanted = {"fused": ("video_prob",), "own": ("audio_prob", "visual_prob")}.get(protocol, ())
    given = {"video_prob": video, "audio_prob": audio, "visual_prob": visual}
    for name, value in given.items():
        if (value is not None) != (name in wanted):
            state = "given" if value is not None else "missing"
            need = ", ".join(wanted) or "none of them"
            raise ValueError(f"{form.format(name)} is {state}, and protocol {protocol!r} needs {need}")
    if not wanted:
        return None
    tables = [per_video(given[name], form.format(name), like) for name in wanted]
    return tables[0], tables[-1]


def _chosen(report: dict[str, Any], level: str, per_class: bool) -> dict[str, Any]:
    levels = LEVELS[1:] if level == "both" else (level,)
    keys = (*levels, "per_class") if per_class else levels
    return {key: report[key] for key in keys}
