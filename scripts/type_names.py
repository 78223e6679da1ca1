#!/usr/bin/env python3
"""Checks that a type has one name in the whole workspace (LANGUAGE rule of CONTRIBUTING.md, "Names").

Reads every `struct`, `enum`, `union`, `trait` and type alias that is `pub`, `pub(crate)`, `pub(super)` or `pub(in ..)` in schemas/,
dataflows/, src/, bench/ and tests/. Modules under `#[cfg(test)]` are left out. Two types of one name fail, except `Args`: each command
of src/cli has one.

    scripts/type_names.py [--root DIR]      exit status 1 and a list of the names that occur more than once
"""

import argparse
import collections
import pathlib
import sys

from rust_source import Source, matching, sources

FOLDERS = ("schemas/src", "schemas/tests", "dataflows/src", "dataflows/tests", "src", "bench/src", "tests")
# Names that may still have several types. A name that is unique by now must leave this list, or the check fails.
LEFTOVERS: frozenset[str] = frozenset()
KINDS = ("struct", "enum", "union", "trait", "type")


def public_types(source: Source) -> list[tuple[str, int]]:
    """Name and line of each type that is visible outside its own module."""
    found, stream = [], source.tokens
    for index, token in enumerate(stream):
        if token.text != "pub":
            continue
        after = index + 1
        if after < len(stream) and stream[after].text == "(":
            after = matching(stream, after) + 1
        while after < len(stream) and stream[after].text in ("unsafe", "auto"):
            after += 1
        if after + 1 < len(stream) and stream[after].text in KINDS:
            found.append((stream[after + 1].text, source.line(token.at)))
    return found


def duplicates(root: pathlib.Path) -> dict[str, list[str]]:
    """The names that more than one type has, each with `file:line` of all its types."""
    places = collections.defaultdict(list)
    for folder in FOLDERS:
        for source in sources(root / folder):
            for name, line in public_types(source):
                path = source.path.relative_to(root).as_posix()
                if name == "Args" and path.startswith("src/cli/"):
                    continue
                places[name].append(f"{path}:{line}")
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def main() -> int:
    parser = argparse.ArgumentParser(description="Check that each public type has a name of its own.")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    every = duplicates(parser.parse_args().root)
    done = sorted(LEFTOVERS - every.keys())
    for name in done:
        print(f"type_names: `{name}` no longer needs its entry in LEFTOVERS of scripts/type_names.py", file=sys.stderr)
    found = {name: where for name, where in every.items() if name not in LEFTOVERS}
    for name, where in found.items():
        print(f"type_names: `{name}` is the name of {len(where)} types: {', '.join(where)}", file=sys.stderr)
    if found:
        print("type_names: give each type a name of its own, such as `LabelRequest` and `RelabelRequest`", file=sys.stderr)
    return 1 if found or done else 0


if __name__ == "__main__":
    sys.exit(main())
