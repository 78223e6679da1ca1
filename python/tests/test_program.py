"""The program `vaplan` of the wheel."""

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vaplan
from conftest import REPOSITORY

LIBTORCH = Path(os.environ.get("LIBTORCH") or REPOSITORY / "third_party" / "libtorch")

MODULE = [sys.executable, "-m", "vaplan"]


def run(*words, **environment):
    words = [*MODULE, *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment})


def test_the_program_is_on_the_path_and_a_module():
    script = Path(sys.executable).with_name("vaplan")
    for words in ([str(script)], MODULE):
        done = subprocess.run([*words, "--version"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"vaplan {vaplan.__version__}\n")


def test_commands_print_and_exit_as_the_program_does(store):
    done = run("eval", "--store", store.path, "--split", "test", "--format", "json")
    assert done.returncode == 0 and json.loads(done.stdout)["videos"] == 24
    missing = run("show", "--store", store.path, "nobody")
    assert missing.returncode == 2 and missing.stderr.startswith("vaplan: no video `nobody`")
    unknown = run("lable")
    assert unknown.returncode == 2 and "unrecognized subcommand 'lable'" in unknown.stderr


def test_the_versions_table_has_the_command_line(own):
    run("relabel", "--store", own.path, "--visual-threshold", "1.05")
    commands = own.versions()["command"].to_pylist()
    assert commands[1].startswith("vaplan relabel --store ") and commands[1].endswith("--visual-threshold 1.05")
    own.refresh().relabel(thresholds={"visual": 1.06})
    assert own.versions()["command"].to_pylist()[2] == "vaplan.relabel(thresholds={'visual': 1.06})"


def test_training_says_what_it_needs():
    done = run("train", "--help", VAPLAN_TORCH="/nowhere/vaplan-torch")
    assert done.returncode == 2
    assert "command `train` computes with libtorch, which this package does not contain" in done.stderr
    assert "`/nowhere/vaplan-torch` is no file" in done.stderr


@pytest.fixture
def named(tmp_path):
    """The path of a program that prints how it was started."""
    program = tmp_path / "vaplan-torch"
    program.write_text('#!/bin/sh\necho "$VAPLAN_HANDED_OVER $*"\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    "words",
    [
        "train --store x",
        "--quiet parse video.mp4 --model model",
        "watch --store x --inbox y --train job.toml",
        "watch --train=job.toml --store x --inbox y",
        "plan job.toml",
        "plan --format json job.toml",
        "--log-format json train --store x",
        "--log-format=json train --store x",
        "--scratch watch --cache-bytes 5 -q run job.toml",
        "plan --log-format json -- job.toml",
    ],
)
def test_what_computes_with_libtorch_is_handed_to_the_program_that_is_named(words, named):
    done = run(*words.split(), VAPLAN_TORCH=named)
    assert (done.returncode, done.stdout) == (0, f"1 {words}\n")


def test_what_computes_without_libtorch_stays_in_this_process(named, store):
    for words in (["watch", "--help"], ["plan", "--help"], ["plan", "--store", store.path, "--visual-threshold", "1.1"]):
        done = run(*words, VAPLAN_TORCH=named)
        assert done.returncode == 0 and done.stdout and not done.stdout.startswith("1 ")
    done = run("plan", "--visual-threshold", "1.1", VAPLAN_TORCH=named, VAPLAN_STORE=store.path)
    assert done.returncode == 0 and not done.stdout.startswith("1 ")


@pytest.mark.parametrize("words", ["plan --visual-threshold 1.1", "plan --format json", "plan --threshold visual/Dog=1.1"])
def test_a_plan_without_a_store_asks_for_the_store(words, named):
    done = run(*words.split(), VAPLAN_TORCH=named)
    assert done.returncode == 2 and done.stdout == "" and "--store" in done.stderr


def test_help_lists_the_commands_that_can_be_started(named, tmp_path):
    """The package of PYTHONPATH stands before an installed torch."""
    fits, older = package_of_torch(tmp_path / "fits", "2.13.0"), package_of_torch(tmp_path / "older", "2.12.1")
    for words in ([], ["--help"], ["help"], ["demo", "--dir", "x"]):
        done = run(*words, VAPLAN_TORCH=named, PYTHONPATH=str(fits))
        assert (done.returncode, done.stdout) == (0, f"1 {' '.join(words)}\n")
    for words in (["--help"], ["help"]):
        done = run(*words, VAPLAN_TORCH=named, PYTHONPATH=str(older))
        assert done.returncode == 0 and " relabel " in done.stdout and " train " not in done.stdout


def package_of_torch(folder: Path, version: str) -> Path:
    """A folder for PYTHONPATH with a package torch of this version. Its libraries are those of libtorch."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("raise ImportError('the program must not import torch')\n")
    (folder / "torch" / "lib").symlink_to(LIBTORCH / "lib")
    info = folder / f"torch-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    return folder


def test_training_takes_the_libtorch_of_a_torch_that_fits(program_in_the_wheel, tmp_path, made, own):
    if not LIBTORCH.is_dir():
        pytest.skip("needs libtorch: `make native`, or LIBTORCH")
    fits = package_of_torch(tmp_path / "fits", "2.13.0+cpu")
    settings = tmp_path / "train.toml"
    settings.write_text("epochs = 1\n")
    features = [word for name in ("audio", "visual") for word in (f"--{name}", made / "features" / name)]
    words = ["train", "--store", own.path, *features, "--config", settings]
    done = run(*words, PYTHONPATH=str(fits), LD_DEBUG="libs")
    loaded = [line.split()[-1] for line in done.stderr.splitlines() if "calling init" in line and "libtorch_cpu" in line]
    assert loaded == [str(fits / "torch/lib/libtorch_cpu.so")], done.stderr[-2000:]
    assert done.returncode == 0
    assert own.refresh().sql("SELECT count(*) AS n FROM epochs").to_pylist() == [{"n": 1}]


def test_training_without_a_torch_that_fits_says_which_to_install(program_in_the_wheel, tmp_path):
    """The package of PYTHONPATH stands before an installed torch."""
    older = package_of_torch(tmp_path / "older", "2.12.1")
    cases = [(older, "is 2.12.1")]
    if importlib.util.find_spec("torch") is None:
        cases.append((tmp_path, "is not installed"))
    for path, found in cases:
        done = run("train", "--help", PYTHONPATH=str(path))
        assert done.returncode == 2 and done.stdout == ""
        assert found in done.stderr and "pip install 'torch==2.13.*'" in done.stderr


def test_encoding_takes_the_library_of_the_package_onnxruntime(tmp_path):
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('the program must not import it')\n")
    library = tmp_path / "onnxruntime" / "capi" / "libonnxruntime.so.1.31.1"
    library.write_text("no library\n")
    code = "import os; from vaplan import __main__ as m; m.name_onnxruntime(); print(os.environ['ORT_DYLIB_PATH'])"
    for named, expected in (("", str(library)), ("/own/libonnxruntime.so", "/own/libonnxruntime.so")):
        given = {**os.environ, "PYTHONPATH": str(tmp_path), "ORT_DYLIB_PATH": named}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)
        assert done.stdout == f"{expected}\n", done.stderr


def test_the_extension_is_not_linked_to_libtorch():
    words = ["readelf", "-d", vaplan._native.__file__]
    linked = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[2:]
    needed = [line.split("[")[1] for line in linked if "(NEEDED)" in line]
    assert needed and not any("torch" in name or "python" in name for name in needed)


INTERRUPTED = """
import sys, vaplan
store = vaplan.open(sys.argv[1])
try:
    print("ready", flush=True)
    store.sql("SELECT count(*) FROM labels a, labels b, labels c WHERE a.score < b.score AND b.score < c.score")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_stops_a_query(store):
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED, store.path], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=300)[0] == "interrupted\n"


def test_every_public_name_is_there_and_the_program_loads_neither_numpy_nor_pyarrow():
    for name in vaplan.__all__:
        assert getattr(vaplan, name) is not None and name in dir(vaplan)
    with pytest.raises(AttributeError, match="module 'vaplan' has no attribute 'evaluat'"):
        vaplan.evaluat  # noqa: B018
    code = "import sys, vaplan.__main__; print([name for name in ('numpy', 'pyarrow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_stub_names_what_the_extension_has():
    stub = ast.parse(Path(vaplan._native.__file__).with_name("_native.pyi").read_text())

    def public(names):
        return {name for name in names if not name.startswith("_")}

    named = {"__version__"}
    for node in stub.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            named.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            named.add(node.target.id)
        if isinstance(node, ast.ClassDef) and not issubclass(getattr(vaplan._native, node.name), Exception):
            own = public(member.name for member in node.body if isinstance(member, ast.FunctionDef))
            assert own == public(dir(getattr(vaplan._native, node.name))), node.name
    assert public(named) == public(dir(vaplan._native))


PANIC = """
import numpy, vaplan
try:
    vaplan.sample(FOLDER)
except vaplan.VaplanError as error:
    print("raised", error)
print(vaplan.generate(numpy.ones((1, 1, 1)), numpy.ones((1, 1))).shape)
"""


def test_a_panic_is_an_exception_and_the_process_goes_on(tmp_path):
    """Builds with debug assertions panic where the variable says."""
    code = PANIC.replace("FOLDER", repr(str(tmp_path)))
    given = {**os.environ, "VAPLAN_FAULT": "panic-decide"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("raised ") and "panicked" in first and last == "(1, 1, 1)"
    with pytest.raises(FileNotFoundError):
        vaplan.open(tmp_path / "store")
