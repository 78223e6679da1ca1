"""The commands that compute with libtorch.

The wheel contains no libtorch. The commands below run in the program ``vaplan-torch``, which is linked to libtorch.
``make wheel`` puts that program into the wheel; ``pip install ./python`` does not build it. This module finds the program, and
the libtorch of the installed package ``torch`` for it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Optional

from . import _native

#: The commands that only ``vaplan-torch`` has.
COMMANDS = ("train", "predict", "parse", "ablate", "run")
#: The environment variable with the path of ``vaplan-torch``.
VARIABLE = "VAPLAN_TORCH"
#: The program in the wheel.
OWN = Path(__file__).with_name("bin") / "vaplan-torch"
#: The version of libtorch that the crate `tch` of this release is made for.
TORCH = "2.13"


def command_of(arguments: list[str]) -> Optional[str]:
    """The command of these arguments, if ``vaplan-torch`` runs it."""
    words = words_of(arguments)
    options = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    command = words[0] if words else "help"
    if command in COMMANDS:
        return command
    if command == "watch" and "--train" in options:
        return "watch --train"
    # A plan of changes names a store, and a plan of a run names a file.
    if command == "plan" and len(words) > 1 and "--store" not in options and "VAPLAN_STORE" not in os.environ:
        return "plan CONFIG"
    # Without libtorch, `demo` leaves out the steps that train, and `help` the commands above.
    if command == "demo" or (command == "help" and options <= {"--help", "-h"}):
        return command if ready() else None
    return None


def words_of(arguments: list[str]) -> list[str]:
    """The command and its arguments that are no options. The value of an option is no such word."""
    valued = dict(_native.options_with_values(None))
    words: list[str] = []
    values = 0  # number of values that the last option can still have
    for nth, word in enumerate(arguments):
        if word == "--":
            return words + arguments[nth + 1 :]
        if word.startswith("-"):
            values = 0 if "=" in word else valued.get(word, 0)
        elif values:
            values -= 1
        else:
            words.append(word)
            if len(words) == 1:
                valued.update(_native.options_with_values(word))
    return words


def ready() -> bool:
    """Whether there is a program ``vaplan-torch`` and a package ``torch`` that fits, so that they can be used together."""
    found = program()
    return found is not None and found.is_file() and fits(libtorch()[1])


def fits(version: str) -> bool:
    """Whether the libtorch of this version of the package ``torch`` is the one that ``vaplan-torch`` is made for."""
    return version.split("+")[0].startswith(TORCH + ".")


def program() -> Optional[Path]:
    """The program ``vaplan-torch``: named by the environment variable, in the wheel, or on the PATH."""
    named = os.environ.get(VARIABLE) or (OWN if OWN.is_file() else shutil.which("vaplan-torch"))
    return Path(named) if named else None


def libtorch() -> tuple[Optional[Path], str]:
    """The folder of libtorch's libraries in the installed package ``torch``, and its version. Does not import torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None, "not installed"
    return Path(spec.origin).parent / "lib", importlib.metadata.version("torch")


def run(command: str, arguments: list[str]) -> int:
    """Replaces this process by ``vaplan-torch``. Returns 2 after a message if that is not possible."""
    found = program()
    folder, version = libtorch()
    if found is None or not found.is_file():
        state = f"`{found}` is no file" if found else f"it is not on the PATH, and {VARIABLE} is not set"
        tell(
            f"command `{command}` computes with libtorch, which this package does not contain. It needs the program "
            f"`vaplan-torch`: {state}. Install the wheel of `make wheel`, which contains the program, or build the program in "
            f"the repository with `cargo build --release --bin vaplan-torch`, and set {VARIABLE} to its path. To train from "
            "Python, use your own PyTorch with `store.session()`"
        )
        return 2
    environment = dict(os.environ, VAPLAN_HANDED_OVER="1")
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if folder is not None and fits(version):
        paths = [str(folder), *filter(None, [environment.get("LD_LIBRARY_PATH")])]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    elif found == OWN:
        tell(
            f"command `{command}` computes with the libtorch of package torch, which is {version}, expected {TORCH}: "
            f"install it with `pip install 'torch=={TORCH}.*'`"
        )
        return 2
    else:
        tell(f"package torch is {version}, expected {TORCH}: `vaplan-torch` uses the libtorch that it was built with")
    sys.stdout.flush()
    if found == OWN and not os.access(found, os.X_OK):
        found.chmod(0o755)  # not every installer keeps the permissions of a wheel
    try:
        os.execve(found, ["vaplan", *arguments], environment)
    except OSError as error:
        tell(f"cannot start `{found}`: {error.strerror}, expected the program `vaplan-torch` of this release")
    return 2


def tell(message: str) -> None:
    """Prints a message as the program does."""
    print(f"vaplan: {message}", file=sys.stderr)
