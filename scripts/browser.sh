#!/usr/bin/env bash
# Runs tests/browser/ in Chromium against a simulated store. With --screenshots, it also writes docs/images/; with
# `--measure STORE`, it measures the page on a large store instead.
# Installs what is missing: Debian's chromium and ffmpeg (apt-get, as root), and playwright-core (npm, into target/browser).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

playwright=1.65.1
tools=target/browser
vaplan=${VAPLAN:-${CARGO_TARGET_DIR:-target}/debug/vaplan}
fail() { printf 'browser: %s\n' "$*" >&2; exit 1; }

[ -x "$vaplan" ] || fail "$vaplan is missing: run \`cargo build --workspace --bin vaplan\`, or set VAPLAN to the program"
install_debian() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "$1 is missing: install it (Debian, Ubuntu: apt install $1)"
    echo "browser: installing $1"
    { apt-get update && apt-get install -y --no-install-recommends "$1" fonts-dejavu-core; } >"$tools/apt.log" 2>&1 ||
        fail "cannot install $1: see $tools/apt.log"
}
mkdir -p "$tools"
chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ]; then
    install_debian chromium
    chromium=$(command -v chromium)
fi
command -v ffmpeg >/dev/null || install_debian ffmpeg
command -v npm >/dev/null || fail "node and npm are missing: install Node.js 18 or later"
if [ ! -f "$tools/node_modules/playwright-core/package.json" ] ||
    ! grep -q "\"version\": \"$playwright\"" "$tools/node_modules/playwright-core/package.json"; then
    npm install --silent --no-audit --no-fund --prefix "$tools" "playwright-core@$playwright" ||
        fail "cannot install playwright-core; is registry.npmjs.org reachable?"
fi

export VAPLAN="$vaplan" CHROMIUM="$chromium" PLAYWRIGHT="$PWD/$tools/node_modules/playwright-core/index.mjs"
case "${1:-}" in
    --measure) exec node tests/browser/measure.mjs "$@" ;;
    *) exec node tests/browser/run.mjs "$@" ;;
esac
