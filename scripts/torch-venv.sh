#!/usr/bin/env bash
# Installs PyTorch into .venv-py, beside the Python package (`make python`): 590 MB to download, 1.3 GB on the disk.
# PyPI's wheel for Linux is the CUDA build. scripts/torch_stand_ins.py replaces the 3 GB of NVIDIA's libraries that a
# processor does not need. Does nothing if the packages are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-py
wanted=python/requirements-torch.txt
done=$venv/torch.done   # written last, so that an incomplete installation is made again

fail() { printf 'torch-venv: %s\n' "$*" >&2; exit 1; }
[ -x $venv/bin/python ] || fail "$venv is missing: run \`make python\`"
cmp -s "$wanted" "$done" && exit 0
started=$SECONDS
rm -f "$done"
# Compiling the 2,500 files of torch would take longer than the tests, which import a part of them.
$venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-compile --no-cache-dir --only-binary :all: \
    --requirement "$wanted" || fail "cannot install the packages of $wanted; is PyPI reachable?"
site=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
if [ "$(uname -s)" = Linux ]; then
    python3 -B scripts/torch_stand_ins.py "$site" || fail "cannot write the stand-ins for NVIDIA's libraries"
fi
$venv/bin/python -c 'import torch; print("torch-venv: torch", torch.__version__, "is installed in .venv-py")' ||
    fail "torch is installed, and cannot be imported: see the message above"
cp "$wanted" "$done"
printf 'torch-venv: %s s, %s MB in %s\n' "$((SECONDS - started))" "$(du -sm "$site/torch" "$site/nvidia" 2>/dev/null | awk '{sum += $1} END {print sum}')" "$site"
