"""A data set over the labels of a store."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._arrays import numeric, single
from .._store import MODALITIES, Store

#: Features of one kind: a folder of ``<id>.npy``, a dict of arrays by name, or a function of the name.
Features = Union[str, "os.PathLike[str]", Mapping[str, Any], Callable[[str], Any]]


class SegmentDataset(Dataset[dict[str, Any]]):
    """The videos of a split with features, labels and weak labels.

    An item is a dict: ``name``; one tensor ``(T, D)`` float32 for each key of ``features``; ``audio_labels`` and
    ``visual_labels`` ``(T, C)`` float32; ``weak`` ``(C,)`` float32; ``within`` ``(T,)`` bool, true. Use :func:`collate` as
    ``collate_fn`` of a DataLoader if the videos differ in T.

    The labels are in shared memory. :meth:`refresh` changes them in place, so that the workers of a DataLoader see the new
    labels, also persistent workers.

    Args:
        store: a store or its path.
        features: for example ``{"audio": "vggish", "visual": "res152"}``. A value is a folder with ``<id>.npy`` or
            ``<name>.npy`` files, where the id is the first 11 characters of the name, or ``.npz`` files of one array each; or a
            dict of arrays by name; or a function from the name to an array. An array ``(1, T, D)`` counts as ``(T, D)``. Several frames per segment are
            allowed.
        split: ``train``, ``val`` or ``test``; ``None`` for all.
        version: a store version, or ``None`` for the version of ``store``.

    Raises:
        LookupError: the store does not have the version.
        ValueError: a video of the split has no features; the message names the video.
    """

    def __init__(
        self,
        store: Union[Store, str, os.PathLike[str]],
        features: Mapping[str, Features],
        split: Optional[str] = "train",
        version: Optional[int] = None,
    ) -> None:
        given = store if isinstance(store, Store) else Store(store)
        if version is not None:
            given = given.at(version)
        for key in features:
            if key in ("name", "weak", "within", "audio_labels", "visual_labels"):
                raise ValueError(f"features has the key {key!r}, which an item has for another purpose: choose another")
        self.path, self.split = given.path, split
        self.features = {key: _reader(key, value) for key, value in features.items()}
        self._load(given)

    def _load(self, store: Store) -> None:
        arrays = {modality: store.labels(self.split, modality) for modality in MODALITIES}
        first = arrays["audio"]
        # A video without features has no segments, and no labels to train on.
        kept = np.flatnonzero(first.lengths > 0)
        self.names = [first.names[nth] for nth in kept]
        self.classes = first.classes
        self.lengths = first.lengths[kept].tolist()
        self.version = store.version
        self._labels = {
            modality: torch.from_numpy(own.values[kept]).share_memory_() for modality, own in arrays.items()
        }
        self._weak = torch.from_numpy(store.weak_labels(self.split).values[kept]).share_memory_()

    def refresh(self, version: Optional[int] = None) -> int:
        """Takes the labels of another version [default: the latest], and returns its number.

        Raises:
            ValueError: the version has other videos, lengths or classes: make a new data set.
        """
        store = Store(self.path, version)
        arrays = {modality: store.labels(self.split, modality) for modality in MODALITIES}
        weak = store.weak_labels(self.split)
        first = arrays["audio"]
        kept = np.flatnonzero(first.lengths > 0)
        names = [first.names[nth] for nth in kept]
        if (names, first.lengths[kept].tolist(), first.classes) != (self.names, self.lengths, self.classes):
            raise ValueError(
                f"version {store.version} has other videos, lengths or classes than version {self.version}: make a new data set"
            )
        for modality, own in arrays.items():
            self._labels[modality].copy_(torch.from_numpy(own.values[kept]))
        self._weak.copy_(torch.from_numpy(weak.values[kept]))
        self.version = store.version
        return self.version

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, length = self.names[index], self.lengths[index]
        item: dict[str, Any] = {"name": name}
        for key, read in self.features.items():
            item[key] = _checked(read(name), f"features[{key!r}] of video {name!r}", length)
        for modality in MODALITIES:
            item[f"{modality}_labels"] = self._labels[modality][index, :length].float()
        item["weak"] = self._weak[index].float()
        item["within"] = torch.ones(length, dtype=torch.bool)
        return item


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of items: tensors are stacked, and padded with 0 at the end of the segments."""
    batch: dict[str, Any] = {"name": [item["name"] for item in items]}
    for key in items[0]:
        if key != "name":
            batch[key] = torch.nn.utils.rnn.pad_sequence([item[key] for item in items], batch_first=True)
    return batch


class _Folder:
    """Reads ``<name>.npy`` or ``<id>.npy`` of a folder. A class, so that a data set can be sent to a worker process."""

    def __init__(self, key: str, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"features[{key!r}] is {str(folder)!r}, expected a folder of npy files")
        self.key, self.folder = key, folder

    def __call__(self, name: str) -> np.ndarray:
        for stem in (name, name[:11]):
            for ending in ("npy", "npz"):
                path = self.folder / f"{stem}.{ending}"
                # A name with a separator must not lead out of the folder.
                if path.parent == self.folder and path.is_file():
                    return self._read(path)
        raise ValueError(f"features[{self.key!r}] has no file of video {name!r} in {str(self.folder)!r}")

    def _read(self, path: Path) -> np.ndarray:
        try:
            found = np.load(path, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            with found:
                if len(found.files) == 1:
                    array: np.ndarray = found[found.files[0]]
                    return array
                arrays = len(found.files)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"features[{self.key!r}]: {str(path)!r} cannot be read: {error}") from error
        raise ValueError(f"features[{self.key!r}]: {str(path)!r} has {arrays} arrays, expected one")


class _Dict:
    def __init__(self, key: str, arrays: Mapping[str, Any]) -> None:
        self.key, self.arrays = key, arrays

    def __call__(self, name: str) -> Any:
        if name not in self.arrays:
            raise ValueError(f"features[{self.key!r}] has no video {name!r}")
        return self.arrays[name]


def _reader(key: str, value: Features) -> Callable[[str], Any]:
    if isinstance(value, (str, os.PathLike)):
        return _Folder(key, Path(value))
    if isinstance(value, Mapping):
        return _Dict(key, value)
    if callable(value):
        return value
    raise TypeError(f"features[{key!r}] is of type {type(value).__name__}, expected a folder, a dict or a function")


def _checked(value: Any, argument: str, length: int) -> Tensor:
    array = single(numeric(value, argument))
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[0] % length:
        raise ValueError(f"{argument} have shape {array.shape}, expected ({length}, D), or a multiple of {length} frames")
    tensor = torch.from_numpy(array.astype(np.float32, copy=not array.flags.writeable))
    return tensor
