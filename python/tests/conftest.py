"""What the tests share."""

import os
import shutil
from pathlib import Path

import pytest

import vaplan

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
