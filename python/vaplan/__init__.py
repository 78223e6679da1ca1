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

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._native import VaplanError, __version__

if TYPE_CHECKING:
    from ._calibrate import Calibration, calibrate
    from ._evaluate import evaluate, evaluate_llp
    from ._label import label, sample
    from ._labels import Denoised, Events, denoise, events, generate
    from ._results import Change, Exported, Labelling, VideoArrays, WeakLabels
    from ._show import Timeline
    from ._store import Session, Store, open

__all__ = [
    "Calibration",
    "Change",
    "Denoised",
    "Events",
    "Exported",
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

#: The module of each name. They are imported at first use, because numpy and pyarrow take most of the time in which the
#: program `vaplan` starts.
_MODULES = {
    "Calibration": "_calibrate",
    "Change": "_results",
    "Denoised": "_labels",
    "Events": "_labels",
    "Exported": "_results",
    "Labelling": "_results",
    "Session": "_store",
    "Store": "_store",
    "Timeline": "_show",
    "VideoArrays": "_results",
    "WeakLabels": "_results",
    "calibrate": "_calibrate",
    "denoise": "_labels",
    "evaluate": "_evaluate",
    "evaluate_llp": "_evaluate",
    "events": "_labels",
    "generate": "_labels",
    "label": "_label",
    "open": "_store",
    "sample": "_label",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vaplan' has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
