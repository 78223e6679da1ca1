#!/usr/bin/env python3
"""Checks that every relative link in the Markdown pages leads to a file, and every `#anchor` to a heading of that file.

Reads README.md, CONTRIBUTING.md, CHANGELOG.md, docs/*.md and bench/README.md. Exit status 1 and one line for each dead link.
"""

import argparse
import pathlib
import re
import sys

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def text_of(page: pathlib.Path) -> str:
    """The page without fenced code, which holds neither links nor headings."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text_of(page), flags=re.MULTILINE):
        plain = LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (unique := anchor if number == 0 else f"{anchor}-{number}") in found:
            number += 1
        found.add(unique)
    return found


def dead_links(root: pathlib.Path) -> list[str]:
    """One line for each link that leads nowhere."""
    pages = [root / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")]
    pages = [page for page in pages if page.is_file()] + sorted((root / "docs").glob("*.md"))
    found = []
    for page in pages:
        for link in LINK.findall(text_of(page)):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            shown = f"{page.relative_to(root)}: link `{link}`"
            if not target.exists():
                found.append(f"{shown}: there is no file {name}")
            elif anchor and anchor not in anchors(target):
                found.append(f"{shown}: {target.name} has no heading with this anchor")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the links between Markdown pages.")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    found = dead_links(parser.parse_args().root.resolve())
    for line in found:
        print(f"links: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
