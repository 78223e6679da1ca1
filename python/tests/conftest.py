"""What the tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import vaplan
import vaplan._torch_program

REPOSITORY = Path(__file__).resolve().parents[2]
#: Golden arrays of PLG and PLD, which the tests of the Rust crates read, too.
GOLDEN = REPOSITORY / "tests" / "golden" / "labels"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data beside the repository."""
    folder = Path(os.environ.get("VAPLAN_SHARED", REPOSITORY / ".." / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample, whose store no test changes."""
    folder = tmp_path_factory.mktemp("sample")
    vaplan.sample(folder)
    return folder


@pytest.fixture
def store(made: Path) -> vaplan.Store:
    """The sample's store, to read."""
    return vaplan.open(made / "store")


@pytest.fixture
def own(made: Path, tmp_path: Path) -> vaplan.Store:
    """A copy of the sample's store, to change."""
    shutil.copytree(made / "store", tmp_path / "store")
    return vaplan.open(tmp_path / "store")


@pytest.fixture
def program_in_the_wheel() -> Iterator[Path]:
    """The program of the wheel: that of the repository's build, if the installed wheel has none."""
    own = vaplan._torch_program.OWN
    if own.is_file():
        yield own
        return
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    built = [target / profile / "vaplan-torch" for profile in ("debug", "release")]
    there = [program for program in built if program.is_file()]
    if not there:
        pytest.skip("needs vaplan-torch: `cargo build --workspace`")
    own.parent.mkdir(exist_ok=True)
    shutil.copy2(there[0], own)
    yield own
    own.unlink()
    own.parent.rmdir()
