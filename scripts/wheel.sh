#!/usr/bin/env bash
# Makes the wheel that users install: the package of python/ in a release build, with the program `vaplan-torch` and without
# libtorch. The program loads the libtorch of the user's package torch. Needs .venv-py (`make python`) and LIBTORCH or third_party/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
limit=60000000   # bytes of the wheel
own=python/vaplan/bin
target=${CARGO_TARGET_DIR:-target}

fail() { printf 'wheel: %s\n' "$*" >&2; exit 1; }
"${CARGO:-cargo}" build --release --workspace --bin vaplan-torch
mkdir -p $own
trap 'rm -rf "$own"' EXIT
strip -o $own/vaplan-torch "$target/release/vaplan-torch"
PATH="$PWD/.venv-py/bin:$PATH" .venv-py/bin/python -m pip --quiet --disable-pip-version-check wheel --no-deps --no-build-isolation \
    --wheel-dir "$target/wheels" ./python || fail "cannot build the package of python/"
wheel=$(ls -t "$target"/wheels/vaplan-*.whl | head -1)
names=$(.venv-py/bin/python -m zipfile -l "$wheel")
grep -q 'vaplan/bin/vaplan-torch' <<<"$names" || fail "$wheel has no vaplan/bin/vaplan-torch"
if grep -E 'lib(torch|c10|gomp)[^ ]*\.so' <<<"$names"; then fail "$wheel contains libtorch, which belongs to package torch"; fi
bytes=$(stat -c %s "$wheel")
[ "$bytes" -lt $limit ] || fail "$wheel has $bytes bytes, expected fewer than $limit"
echo "wheel: $wheel, $bytes bytes"
