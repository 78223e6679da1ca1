#!/usr/bin/env bash
# Makes .venv-py with the Python package `vaplan` and what tests it, from the sources in python/. Installs the package as a
# user does, with pip. Needs Python 3.11 or later with venv, PyPI, and Rust.
#
# PROFILE=dev (default) builds with the dependencies that the other targets built. PROFILE=release makes the package
# that users get, and takes as long as a release build. With --packages, the script makes the environment without the package.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-py
wanted=python/requirements-dev.txt
done=$venv/requirements.done   # written last, so that an incomplete environment is made again

fail() { printf 'python-venv: %s\n' "$*" >&2; exit 1; }
if ! { [ -x $venv/bin/python ] && cmp -s "$wanted" "$done"; }; then
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null || fail "$python is missing: install Python 3.11 or later, or set PYTHON to it"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old, expected 3.11 or later: set PYTHON to a newer one"
    echo "python-venv: making $venv"
    rm -rf $venv
    "$python" -m venv $venv || fail "$python has no venv module (Debian, Ubuntu: apt install python3-venv)"
    $venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --requirement "$wanted" --only-binary :all: ||
        fail "cannot install the packages of $wanted; is PyPI reachable?"
    cp "$wanted" "$done"
fi

[ "${1:-}" != --packages ] || exit 0

# `as-workspace` gives the dependencies the features of a build of the whole workspace, so that cargo has built them already.
PATH="$PWD/$venv/bin:$PATH" MATURIN_PEP517_ARGS="--profile ${PROFILE:-dev} --features as-workspace" \
    $venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --force-reinstall ./python ||
    fail "cannot build the package of python/"
$venv/bin/python -c 'import vaplan; print("python-venv: vaplan", vaplan.__version__, "is installed in .venv-py")'
