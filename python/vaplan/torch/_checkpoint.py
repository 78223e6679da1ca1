"""Checkpoints: safetensors and state dicts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor

#: Types of safetensors that weights have.
_TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
#: Largest header of a safetensors file, in bytes, as the format defines it.
_LARGEST_HEADER = 100_000_000


def read(source: Union[str, os.PathLike[str], Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a checkpoint as float32, and its metadata."""
    metadata: dict[str, str] = {}
    if isinstance(source, Mapping):
        found: Any = source
    else:
        path = Path(source)
        if path.suffix == ".safetensors":
            found, metadata = _read_safetensors(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise ValueError(f"the checkpoint is a {type(found).__name__}, expected a dict of tensors")
    tensors = {name.removeprefix("module."): value for name, value in found.items() if isinstance(value, Tensor)}
    return {name: value.detach().to("cpu", torch.float32) for name, value in tensors.items()}, metadata


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
