"""Checkpoints: safetensors and state dicts."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Optional, Union

import numpy as np
import torch
from torch import Tensor

#: Types of safetensors. ``BF16`` is the upper half of a float32.
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
#: The keys under which training scripts put the state dict, as ``vaplan predict`` reads them.
_HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
#: The prefixes of names in the state dicts of wrapped modules, as ``vaplan predict`` removes them.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
#: The heads of the networks: every HAN has the first, and every transformer the second.
_HEADS = ("fc_prob.weight", "prob.weight")
#: The first bytes of PyTorch's files: a zip archive, or the magic number of ``torch.serialization`` in a pickle.
_PYTORCH = (b"PK\x03\x04", b"\x80\x02\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
#: Largest header of a safetensors file, in bytes, as the format defines it.
_LARGEST_HEADER = 100_000_000


def read(source: Union[str, os.PathLike[str], Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a checkpoint as float32, and its metadata."""
    metadata: dict[str, str] = {}
    found: Any
    if isinstance(source, Mapping):
        found = source
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with open(path, "rb") as file:
            if file.read(len(_PYTORCH[1])).startswith(_PYTORCH):
                file.seek(0)
                # From a file, because `torch.load` takes the kind of a path from its name.
                found = _load_pytorch(file, path)
            else:
                found, metadata = _read_safetensors(path)
    else:
        raise TypeError(f"the checkpoint is of type {type(source).__name__}, expected a path or a dict of tensors")
    tensors = _without_wrappers(_state_dict(found))
    return {name: value.detach().to("cpu", torch.float32) for name, value in tensors.items()}, metadata


def _load_pytorch(file: BinaryIO, path: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a state dict of PyTorch: {error}") from error


def _state_dict(found: Any) -> dict[str, Tensor]:
    """The tensors of the dict, or of the first dict below one of the known keys that has tensors."""
    if not isinstance(found, Mapping):
        raise ValueError(f"the checkpoint is of type {type(found).__name__}, expected a dict of tensors")
    for held in (found, *(found.get(holder) for holder in _HOLDERS)):
        if isinstance(held, Mapping):
            tensors = {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}
            if tensors:
                return tensors
    raise ValueError(f"the checkpoint has no tensors, expected a dict of tensors, or one under {', '.join(map(repr, _HOLDERS))}")


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes a prefix that at least half of the names have, and the tensors beside the wrapped network, until no such prefix is
    left."""
    while True:
        for prefix in _WRAPPERS:
            own = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
            if own and 2 * len(own) >= len(tensors):
                tensors = own
                break
        else:
            return _without_holder(tensors)


def _without_holder(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes the name of any other object that holds the network, such as ``student.``: what comes before the head that every
    network has. Of two networks, none is chosen."""
    for head in _HEADS:
        holders = [name[: -len(head)] for name in tensors if name.endswith(head)]
        holders = [holder for holder in holders if not holder or holder.endswith(".")]
        if len(holders) == 1:
            tensors = {name[len(holders[0]) :]: value for name, value in tensors.items() if name.startswith(holders[0])}
    return tensors


def load(network: torch.nn.Module, tensors: Mapping[str, Tensor], unused: Optional[str] = None) -> None:
    """Loads the parameters of a network. Tensors beside them are ignored, as ``vaplan predict`` ignores them. Parameters whose name
    begins with ``unused`` may be missing, because some programs leave them out.

    Raises:
        RuntimeError: a parameter is missing or has another shape.
    """
    own = network.state_dict()
    given = {name: tensors[name] for name in own if name in tensors}
    if unused is not None:
        given.update({name: own[name] for name in own if name not in given and name.startswith(unused)})
    network.load_state_dict(given)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_LARGEST_HEADER, len(data) - 8):
        raise ValueError(f"{path}: a header of {size} bytes in a file of {len(data)} bytes, expected a safetensors file")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__", {})
        tensors = {}
        body = memoryview(data)[8 + size :]
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            values = np.frombuffer(body[begin:end], _TYPES[entry["dtype"]]).reshape(entry["shape"])
            if entry["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            tensors[name] = torch.from_numpy(values.astype(np.float32))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no safetensors file of weights: {error!r}") from error
    return tensors, metadata


def write(path: Union[str, os.PathLike[str]], tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors as float32. The file appears complete or not at all."""
    header: dict[str, Any] = {"__metadata__": metadata}
    parts, end = [], 0
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu", torch.float32).contiguous().numpy()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
        parts.append(values.tobytes())
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))
    scratch.replace(path)
