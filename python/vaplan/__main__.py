"""``vaplan`` on the command line, and ``python -m vaplan``."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from . import _native, _torch_program


def main() -> int:
    """Runs the program ``vaplan`` in this process, and returns its exit status."""
    arguments = sys.argv[1:]
    name_onnxruntime()
    command = _torch_program.command_of(arguments)
    if command is not None:
        return _torch_program.run(command, arguments)
    return _native.run(["vaplan", *arguments])


def name_onnxruntime() -> None:
    """Names the library of the installed package ``onnxruntime`` in ``ORT_DYLIB_PATH``, unless the variable is set. The
    commands that encode media load that library. Does not import the package."""
    spec = importlib.util.find_spec("onnxruntime")
    if os.environ.get("ORT_DYLIB_PATH") or spec is None or spec.origin is None:
        return
    found = sorted(Path(spec.origin).parent.glob("capi/libonnxruntime.*"))
    if found:
        os.environ["ORT_DYLIB_PATH"] = str(found[-1])


if __name__ == "__main__":
    sys.exit(main())
