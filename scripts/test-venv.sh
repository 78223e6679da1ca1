#!/usr/bin/env bash
# Makes .venv with the Python packages that tests and benches use (some 500 MB, half a minute). Does nothing when it is there.
# Needs Python 3.11 or later with venv, and PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
wanted=scripts/venv-requirements.txt
done=.venv/requirements.done   # written last, so that half a venv is made anew

if [ -x .venv/bin/python ] && cmp -s "$wanted" "$done"; then exit 0; fi

fail() { printf 'test-venv: %s\n' "$*" >&2; exit 1; }
python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "$python is missing: set PYTHON to a Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old, expected 3.11 or later: set PYTHON"
echo "test-venv: making .venv"
rm -rf .venv
"$python" -m venv .venv || fail "$python has no venv module (Debian, Ubuntu: apt install python3-venv)"
.venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --requirement "$wanted" --only-binary :all: ||
    fail "cannot install the packages of $wanted; is PyPI reachable?"
cp "$wanted" "$done"
