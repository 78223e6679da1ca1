"""Checks of single arguments of a store, with the argument's name in each message."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Optional, Union

from ._arrays import choice
from ._changes import whole

PathLike = Union[str, "os.PathLike[str]"]
SPLITS = ("train", "val", "test")
#: Largest number of a version, an epoch, of threads and of columns that is taken.
LARGEST = {"version": 2**63 - 1, "epoch": 2**53, "workers": 2**16, "width": 2**16}


def path(value: Any, argument: str) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{argument} is {value!r}, expected a path")
    return os.fspath(value)


def split(value: Optional[str]) -> Optional[str]:
    return None if value is None else choice(value, "split", SPLITS)


def split_names(value: Any) -> Optional[list[str]]:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        raise TypeError(f"splits is {value!r}, expected a list of 'train', 'val' and 'test'")
    return [choice(name, "a split of splits", SPLITS) for name in names]


def workers(value: Optional[int]) -> Optional[int]:
    return None if value is None else whole(value, "workers", 1, LARGEST["workers"])


def warn(done: Mapping[str, Any], level: int) -> None:
    """Warns about remarks of the library. ``level`` is the number of functions between this one and the caller's line."""
    for remark in done["remarks"]:
        warnings.warn(remark, stacklevel=level + 1)
