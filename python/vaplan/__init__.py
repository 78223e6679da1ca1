"""Segment-level labels for weakly labelled video, kept correct as inputs change.

Functions on arrays: :func:`evaluate`, :func:`evaluate_llp`, :func:`generate`, :func:`denoise`, :func:`calibrate`,
:func:`events`. A store of labels: :func:`open`, :func:`label`, :func:`sample`, :class:`Store`, :class:`Session`.

>>> import numpy, vaplan
>>> truth = numpy.zeros((1, 10, 2), bool)
>>> truth[0, :, 0] = True
>>> nothing = numpy.zeros((1, 10, 2), bool)
>>> vaplan.evaluate(truth, nothing, truth, nothing)["segment"]["audio"]
100.0
"""

from ._calibrate import Calibration, calibrate
from ._evaluate import evaluate, evaluate_llp
from ._labels import Denoised, Events, denoise, events, generate
from ._native import VaplanError, __version__
from ._show import Timeline
from ._store import Change, Labelling, Session, Store, VideoArrays, WeakLabels, label, open, sample

__all__ = [
    "Calibration",
    "Change",
    "Denoised",
    "Events",
    "Labelling",
    "Session",
    "Store",
    "Timeline",
    "VaplanError",
    "VideoArrays",
    "WeakLabels",
    "__version__",
    "calibrate",
    "denoise",
    "evaluate",
    "evaluate_llp",
    "events",
    "generate",
    "label",
    "open",
    "sample",
]
