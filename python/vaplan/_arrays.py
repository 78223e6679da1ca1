"""Arguments that are arrays: from every form that users have to one flat array of rows.

The native functions take an array ``[rows, C]``, in which the segments of all videos follow one another, and the number of
segments of each video. An array ``(N, T, C)`` that is contiguous has this form already, so it is not copied.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from . import _native

#: Device types of DLPack that the processor can read: CPU and pinned memory of CUDA.
_CPU_DEVICES = (1, 3)


class Batch(NamedTuple):
    """One argument with the values of all videos."""

    argument: str
    rows: np.ndarray
    """``[rows, C]``, contiguous, of a type that the native functions take."""
    lengths: np.ndarray
    """``[N]`` int64, the number of segments of each video."""
    names: Optional[list[str]]
    """The keys, if the argument is a dict."""
    shape: tuple[int, ...]
    """The shape of the argument, or ``()`` for a dict."""

    @property
    def classes(self) -> int:
        return int(self.rows.shape[1])

    def place(self, row: int, column: int) -> str:
        """The index of a value, as the user would write it."""
        if not self.shape or len(self.shape) == 3:
            ends = np.cumsum(self.lengths)
            video = int(np.searchsorted(ends, row, side="right"))
            segment = row - (int(ends[video - 1]) if video else 0)
            if self.names is not None:
                return f"{self.argument}[{self.names[video]!r}][{segment}, {column}]"
            return f"{self.argument}[{video}, {segment}, {column}]"
        return f"{self.argument}[{row}, {column}]"

    def like(self, values: np.ndarray) -> Any:
        """Values of all rows in the form of the argument."""
        if self.names is None:
            return values.reshape(self.shape)
        parts = np.split(values, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []
        return dict(zip(self.names, parts))


class PerVideo(NamedTuple):
    """One argument with a row for each video."""

    argument: str
    rows: np.ndarray
    """``[N, C]``"""
    names: Optional[list[str]]

    def place(self, row: int, column: int) -> str:
        """The index of a value, as the user would write it."""
        if self.names is not None:
            return f"{self.argument}[{self.names[row]!r}][{column}]"
        return f"{self.argument}[{row}, {column}]"


def numeric(value: Any, argument: str) -> np.ndarray:
    """The array of an argument, contiguous and of a numeric type. Copies only if the type or the order demands it.

    Raises:
        TypeError: the argument is no array of numbers in the memory of the processor.
        ValueError: the argument is a nested list with rows of different lengths.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{argument} is a masked array, expected an array without a mask: fill it with .filled()")
    if not isinstance(value, np.ndarray):
        value = _foreign(value, argument)
    kind = value.dtype.kind
    if kind not in "biuf" or value.dtype.itemsize > 8:
        raise TypeError(f"{argument} has type {value.dtype}, expected bool, integers, float16, float32 or float64")
    try:
        if value.dtype == np.float16:
            value = value.astype(np.float32)
        elif not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
        # `ascontiguousarray` would give an array without dimensions one dimension.
        return value if value.ndim == 0 else np.ascontiguousarray(value)
    except MemoryError as error:
        raise MemoryError(f"{argument} has shape {value.shape}, which does not fit into memory") from error


def single(array: np.ndarray) -> np.ndarray:
    """An array of more than two axes without the axes of length 1 before the last one: networks give ``(1, T, D)`` and
    ``(T, 1, D)``. The program reads files in the same way."""
    while array.ndim > 2 and 1 in array.shape[:-1]:
        array = array.squeeze(array.shape[:-1].index(1))
    return array


def is_missing(value: Any) -> bool:
    """Whether a value is None, or what DataFrames have in its place: NaN, ``pandas.NA`` or ``NaT``."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def flag(value: Any, argument: str) -> bool:
    """A value that is true or false.

    Raises:
        TypeError: the value is no bool.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{argument} is {value!r}, expected True or False")
    return bool(value)


def _foreign(value: Any, argument: str) -> np.ndarray:
    """An object with the array or DLPack protocol, or a list, as an array."""
    try:
        if hasattr(value, "__dlpack_device__"):
            device = value.__dlpack_device__()
            if int(device[0]) not in _CPU_DEVICES:
                raise TypeError(
                    f"{argument} is on device {getattr(value, 'device', device)}, expected memory of the processor: "
                    "copy it with .cpu()"
                )
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        if not hasattr(value, "__array__") and not isinstance(value, (list, tuple, int, float)):
            raise TypeError(f"{argument} is of type {type(value).__name__}, expected an array")
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{argument} is no array: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # the object's own code runs, which can raise anything
        if isinstance(error, TypeError) and str(error).startswith(argument):
            raise
        raise TypeError(f"{argument} cannot be read as an array: {error}") from error


def videos(value: Any, argument: str) -> Batch:
    """An argument with an array ``(N, T, C)``, or a dict of arrays ``(T, C)``."""
    if isinstance(value, Mapping):
        return _of_dict(value, argument)
    array = numeric(value, argument)
    if array.ndim != 3:
        raise ValueError(f"{argument} has shape {array.shape}, expected (N, T, C): videos, segments, classes")
    count, segments, classes = array.shape
    lengths = np.full(count, segments, np.int64)
    return Batch(argument, array.reshape(count * segments, classes), lengths, None, array.shape)


def _of_dict(value: Mapping[Any, Any], argument: str) -> Batch:
    names: list[str] = []
    parts: list[np.ndarray] = []
    for name, own in value.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument} has the key {name!r}, expected the name of a video as text")
        part = numeric(own, f"{argument}[{name!r}]")
        if part.ndim != 2:
            raise ValueError(f"{argument}[{name!r}] has shape {part.shape}, expected (T, C): segments, classes")
        if parts and part.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"{argument}[{name!r}] has {part.shape[1]} classes, expected {parts[0].shape[1]}, as {argument}[{names[0]!r}]"
            )
        names.append(name)
        parts.append(part)
    if not parts:
        raise ValueError(f"{argument} is an empty dict, expected at least one video")
    lengths = np.array([len(part) for part in parts], np.int64)
    return Batch(argument, np.ascontiguousarray(np.concatenate(parts)), lengths, names, ())


def matching(value: Any, argument: str, like: Batch) -> Batch:
    """As :func:`videos`, with the videos, segments and classes of another argument, in its order."""
    if isinstance(value, Mapping) != (like.names is not None):
        raise TypeError(f"{argument} and {like.argument} differ in form, expected two arrays or two dicts")
    if like.names is None:
        own = videos(value, argument)
        if own.shape != like.shape:
            raise ValueError(f"{argument} has shape {own.shape}, expected {like.shape}, the shape of {like.argument}")
        return own
    _same_keys(value, argument, like)
    own = _of_dict({name: value[name] for name in like.names}, argument)
    for name, found, expected in zip(like.names, own.lengths, like.lengths):
        if found != expected:
            raise ValueError(
                f"{argument}[{name!r}] has {found} segments, expected {expected}, as {like.argument}[{name!r}]"
            )
    if own.classes != like.classes:
        raise ValueError(f"{argument} has {own.classes} classes, expected {like.classes}, as {like.argument}")
    return own


def _same_keys(value: Mapping[Any, Any], argument: str, like: Batch) -> None:
    assert like.names is not None
    known = set(like.names)
    for name in like.names:
        if name not in value:
            raise ValueError(f"{argument} has no video {name!r}, which {like.argument} has")
    for name in value:
        if name not in known:
            raise ValueError(f"{argument} has video {name!r}, which {like.argument} lacks")


def per_video(value: Any, argument: str, like: Batch) -> PerVideo:
    """An argument with an array ``(N, C)``, or a dict of arrays ``(C,)``, for the videos of another argument."""
    expected = (len(like.lengths), like.classes)
    if isinstance(value, Mapping):
        if like.names is None:
            raise TypeError(f"{argument} is a dict and {like.argument} is an array, expected two arrays or two dicts")
        _same_keys(value, argument, like)
        rows = [numeric(value[name], f"{argument}[{name!r}]") for name in like.names]
        for name, row in zip(like.names, rows):
            if row.shape != expected[1:]:
                raise ValueError(f"{argument}[{name!r}] has shape {row.shape}, expected {expected[1:]}: one value per class")
        return PerVideo(argument, np.ascontiguousarray(np.stack(rows)), like.names)
    if like.names is not None:
        raise TypeError(f"{argument} is an array and {like.argument} is a dict, expected two arrays or two dicts")
    array = numeric(value, argument)
    if array.shape != expected:
        raise ValueError(f"{argument} has shape {array.shape}, expected {expected}: videos, classes of {like.argument}")
    return PerVideo(argument, array, None)


@contextlib.contextmanager
def named_cells(*given: Any) -> Iterator[None]:
    """Says which value of which argument a native function refused. The flat array of the native function is the
    argument's, so its row and column name the value."""
    try:
        yield
    except _native.CellError as error:
        argument, row, column, value, expected = error.args
        known = {own.argument: own for own in given if own is not None}
        place = known[argument].place(row, column) if argument in known else f"{argument}[{row}, {column}]"
        raise ValueError(f"{place} is {value:g}, expected {expected}") from None


def choice(value: Any, argument: str, known: Sequence[str]) -> str:
    """One of several names.

    Raises:
        ValueError: the value is none of them.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{argument} is {value!r}, expected one of {', '.join(map(repr, known))}")
    return str(value)
