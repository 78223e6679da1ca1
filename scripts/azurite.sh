#!/usr/bin/env bash
# Installs Azurite, the emulator of Azure Blob Storage that tests of stores at az:// start, into target/azurite (190 MB, 40 s).
# Does nothing if it is there. Needs Node.js 18 or later and registry.npmjs.org.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
azurite=3.35.0
tools=target/azurite
installed=$tools/node_modules/azurite/package.json

if [ -f "$installed" ] && grep -q "\"version\": \"$azurite\"" "$installed"; then exit 0; fi
fail() { printf 'azurite: %s\n' "$*" >&2; exit 1; }
command -v npm >/dev/null || fail "node and npm are missing: install Node.js 18 or later"
echo "azurite: installing $azurite"
mkdir -p "$tools"
npm install --silent --no-audit --no-fund --prefix "$tools" "azurite@$azurite" ||
    fail "cannot install azurite; is registry.npmjs.org reachable?"
