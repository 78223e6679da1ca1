"""``vaplan`` on the command line, and ``python -m vaplan``."""

from __future__ import annotations

import sys

from . import _native, _torch_program


def main() -> int:
    """Runs the program ``vaplan`` in this process, and returns its exit status."""
    arguments = sys.argv[1:]
    command = _torch_program.command_of(arguments)
    if command is not None:
        return _torch_program.run(command, arguments)
    return _native.run(["vaplan", *arguments])


if __name__ == "__main__":
    sys.exit(main())
