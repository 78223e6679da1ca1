#!/usr/bin/env bash
# Makes the wheel that users install: the package of python/ in a release build, with the program `vaplan-torch` and without
# libtorch. The program loads the libtorch of the user's package torch. Needs LIBTORCH or third_party/ (`make native`).
#
# Then tries the wheel in a fresh environment: the program, the library, and that `vaplan train` names the torch that it needs. If
# .venv-py has PyTorch (`make pytorch`), also that `vaplan train` computes with it.
#
# PROFILE=release (default) makes the wheel for users. PROFILE=dev makes one in minutes, of any size, to test these steps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
aim=60000000   # bytes of the wheel
own=python/vaplan/bin
target=${CARGO_TARGET_DIR:-target}
case ${PROFILE:-release} in
release) profile=release folder=release out=$target/wheels ;;
dev) profile=dev folder=debug out=$target/wheels/dev ;;
*) printf 'wheel: PROFILE is %s, expected release or dev\n' "$PROFILE" >&2 && exit 1 ;;
esac

fail() { printf 'wheel: %s\n' "$*" >&2; exit 1; }
scripts/python-venv.sh --packages
"${CARGO:-cargo}" build --profile $profile --workspace --bin vaplan-torch
mkdir -p $own
scratch=$(mktemp -d)
trap 'rm -rf "$own" "$scratch"' EXIT
strip -o $own/vaplan-torch "$target/$folder/vaplan-torch"
# `as-workspace`: the dependencies have the features that they have for vaplan-torch, so that cargo has built them already.
PATH="$PWD/.venv-py/bin:$PATH" MATURIN_PEP517_ARGS="--profile $profile --features as-workspace" \
    .venv-py/bin/python -m pip --quiet --disable-pip-version-check wheel --no-deps --no-build-isolation \
    --wheel-dir "$out" ./python || fail "cannot build the package of python/"
wheel=$(ls -t "$out"/vaplan-*.whl | head -1)
names=$(.venv-py/bin/python -m zipfile -l "$wheel")
grep -q 'vaplan/bin/vaplan-torch' <<<"$names" || fail "$wheel has no vaplan/bin/vaplan-torch"
if grep -E 'lib(torch|c10|gomp)[^ ]*\.so' <<<"$names"; then fail "$wheel contains libtorch, which belongs to package torch"; fi
bytes=$(stat -c %s "$wheel")
echo "wheel: $wheel, $bytes bytes"
[ "$folder" = debug ] || [ "$bytes" -lt $aim ] || echo "wheel: the aim is fewer than $aim bytes (docs/python.md)"

# ---- A fresh environment, as that of a user: no libtorch but the one of package torch
unset LIBTORCH LD_LIBRARY_PATH ORT_DYLIB_PATH VAPLAN_TORCH PYTHONPATH
sample=$PWD/assets/sample
torch=$(echo "$PWD"/.venv-py/lib/python*/site-packages)   # of .venv-py
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-compile "$wheel" || fail "cannot install $wheel"
cd "$scratch"
vaplan=venv/bin/vaplan
found=$($vaplan --version)
[ "$found" = "vaplan $(basename "$wheel" | cut -d- -f2)" ] || fail "the version is '$found', expected that of $wheel"
$vaplan synth --quiet --annotations "$sample" --out features --dim 16 >/dev/null
features="--visual features/visual --audio features/audio"
venv/bin/python -m vaplan label --quiet --store store --annotations "$sample" $features \
    --visual-text features/visual_text.npy --audio-text features/audio_text.npy
venv/bin/python -c 'import vaplan; assert vaplan.open("store").labels("test").values.shape == (24, 10, 25)'
printf 'epochs = 1\nhidden = 16\nfeedforward = 16\n' >train.toml
train="$vaplan train --quiet --store store --config train.toml $features"
if $train 2>told; then fail "vaplan train works without package torch"; fi
grep -q "package torch, which is not installed, expected 2.13" told || fail "vaplan train does not say which torch it needs: $(cat told)"
if [ -e "$torch/../../../torch.done" ]; then
    site=$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    ln -s "$torch"/torch "$torch"/torch-*.dist-info "$torch"/nvidia "$site"
    $train || fail "vaplan train does not work with package torch of .venv-py"
    echo "wheel: tried in a fresh environment, without torch and with torch"
else
    echo "wheel: tried in a fresh environment, without torch"
fi
