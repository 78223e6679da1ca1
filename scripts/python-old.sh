#!/usr/bin/env bash
# Runs the tests of arrays and of reading a store with the oldest numpy and pyarrow that the Python package supports, on the oldest Python
# of 3.9 to 3.12 that the machine has. Makes .venv-py-old (200 MB) for them. The extension module is the one in .venv-py
# (`make python`): its binary interface (abi3) is that of every Python from 3.9 on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-py-old
wanted=python/requirements-old.txt
done=$venv/requirements.done   # written last, so that an incomplete environment is made again

fail() { printf 'python-old: %s\n' "$*" >&2; exit 1; }
package=$(.venv-py/bin/python -c 'import pathlib, vaplan; print(pathlib.Path(vaplan.__file__).parent)') ||
    fail "the package is missing in .venv-py: run \`make python\`"
if ! { [ -x $venv/bin/python ] && cmp -s "$wanted" "$done"; }; then
    old=
    # numpy 1.26 has wheels for these versions only. A command of pyenv can exist and refuse to run.
    for python in ${PYTHON_OLD:-python3.9 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.9.*/bin/python3.9 python3.10 python3.11 python3.12 python3}; do
        if "$python" -c 'import sys, venv; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            old=$python
            break
        fi
    done
    if [ -z "$old" ]; then
        echo "python-old: no Python 3.9 to 3.12 on this machine, so numpy 1.26 was not tested; set PYTHON_OLD to one"
        exit 0
    fi
    echo "python-old: making $venv with $("$old" --version)"
    rm -rf $venv
    "$old" -m venv $venv || fail "$old has no venv module (Debian, Ubuntu: apt install python3-venv)"
    $venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --requirement "$wanted" --only-binary :all: ||
        fail "cannot install the packages of $wanted; is PyPI reachable?"
    cp "$wanted" "$done"
fi
site=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$package" "$site/vaplan"
$venv/bin/python -c 'import sys, numpy, pyarrow; print("python-old: Python", sys.version.split()[0], "numpy", numpy.__version__, "pyarrow", pyarrow.__version__)'
$venv/bin/python -B -m pytest -q -p no:cacheprovider python/tests/test_evaluate.py python/tests/test_labels.py python/tests/test_calibrate.py
