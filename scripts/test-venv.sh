#!/usr/bin/env bash
# Makes .venv with the Python packages that tests and benchmarks use (about 500 MB, 30 s). Does nothing if .venv is complete.
# Needs Python 3.11 or later with venv, and PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
wanted=scripts/venv-requirements.txt
done=.venv/requirements.done   # written last, so that an incomplete .venv is made again

if [ -x .venv/bin/python ] && cmp -s "$wanted" "$done"; then exit 0; fi

fail() { printf 'test-venv: %s\n' "$*" >&2; exit 1; }
python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "$python is missing: install Python 3.11 or later, or set PYTHON to it"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old, expected 3.11 or later: set PYTHON to a newer one"
echo "test-venv: making .venv"
rm -rf .venv
"$python" -m venv .venv || fail "$python has no venv module (Debian, Ubuntu: apt install python3-venv)"
.venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --requirement "$wanted" --only-binary :all: ||
    fail "cannot install the packages of $wanted; is PyPI reachable?"
cp "$wanted" "$done"
