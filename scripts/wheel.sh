#!/usr/bin/env bash
# Makes the wheel that users install: the package of python/ in a release build, with the program `vaplan-torch` and without
# libtorch. The program loads the libtorch of the user's package torch. Needs LIBTORCH or third_party/ (`make native`).
#
# PROFILE=release (default) makes the wheel for users. PROFILE=dev makes one in minutes, of any size, to test these steps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
limit=60000000   # bytes of the wheel
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
trap 'rm -rf "$own"' EXIT
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
[ "$folder" = debug ] || [ "$bytes" -lt $limit ] || fail "$wheel has $bytes bytes, expected fewer than $limit"
echo "wheel: $wheel, $bytes bytes"
