#!/usr/bin/env python3
"""Writes state dicts as torch.save does, without torch: small.pt, small_legacy.pt, held/<key>.pt with the dict under each key
that training scripts use and under one that vaplan does not know, and evil.pt, which asks for os.system.

The pickles come from Python's own pickler over classes that have PyTorch's names, so their opcodes are those of
`torch/serialization.py` (`_save`, `_legacy_save`). Two tensors share a storage, one is transposed. Run from any folder.
"""

import collections
import io
import os
import pathlib
import pickle
import struct
import sys
import types
import zipfile

HERE = pathlib.Path(__file__).parent
MAGIC = 0x1950A86A20F9469CFC6C
HOLDERS = ["model", "model_state", "model_state_dict", "net", "network", "params", "state_dict", "weights", "unknown"]

torch = types.ModuleType("torch")
utils = types.ModuleType("torch._utils")


class FloatStorage:
    pass


def _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks):
    pass


FloatStorage.__module__ = "torch"
_rebuild_tensor_v2.__module__ = "torch._utils"
torch.FloatStorage = FloatStorage
utils._rebuild_tensor_v2 = _rebuild_tensor_v2
sys.modules.update({"torch": torch, "torch._utils": utils})


class Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


class Tensor:
    def __init__(self, storage, offset, size, stride):
        self.of = storage
        self.rest = (offset, size, stride, False, collections.OrderedDict())

    def __reduce_ex__(self, protocol):
        return _rebuild_tensor_v2, (self.of, *self.rest)


class Pickler(pickle.Pickler):
    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.legacy = legacy

    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            id = ("storage", FloatStorage, thing.key, "cpu", len(thing.values))
            return id + (None,) if self.legacy else id
        return None


def state_dict():
    big = Storage("0", [i / 4 for i in range(12)])
    small = Storage("1", [-1.0, 2.5])
    state = collections.OrderedDict()
    state["module.fc.weight"] = Tensor(big, 0, (3, 2), (2, 1))
    state["module.fc.turned"] = Tensor(big, 6, (2, 3), (1, 2))
    state["module.fc.bias"] = Tensor(small, 0, (2,), (1,))
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    return state, [big, small]


def pickled(thing, legacy):
    out = io.BytesIO()
    Pickler(out, legacy).dump(thing)
    return out.getvalue()


def raw(storage):
    return struct.pack(f"<{len(storage.values)}f", *storage.values)


def zipped(path, thing, storages):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        def put(name, data):
            archive.writestr(zipfile.ZipInfo(f"small/{name}", (1980, 1, 1, 0, 0, 0)), data)
        put("data.pkl", pickled(thing, False))
        put("byteorder", b"little")
        for storage in storages:
            put(f"data/{storage.key}", raw(storage))
        put("version", b"3\n")


def main():
    state, storages = state_dict()
    zipped(HERE / "small.pt", {"epoch": 3, "state_dict": state, "loss": 0.5}, storages)
    (HERE / "held").mkdir(exist_ok=True)
    for key in HOLDERS:
        beside = {"epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
        zipped(HERE / "held" / f"{key}.pt", {**beside, key: state}, storages)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps(system, 2), pickled(state, True)]
    parts.append(pickle.dumps([storage.key for storage in storages], 2))
    parts += [struct.pack("<q", len(storage.values)) + raw(storage) for storage in storages]
    (HERE / "small_legacy.pt").write_bytes(b"".join(parts))

    class Evil:
        def __reduce_ex__(self, protocol):
            return os.system, ("touch executed",)

    zipped(HERE / "evil.pt", {"state_dict": Evil()}, storages)


main()
