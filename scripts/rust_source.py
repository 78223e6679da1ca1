"""Reads Rust source as far as scripts/modules.py and scripts/type_names.py need: what of a file is program code.

`program_code` blanks comments, string and character literals, and items under `#[cfg(test)]`. Every other character keeps its
place, so that a position in the answer is a position in the file. This is a lexer, not a parser: macros are not expanded.
"""

import bisect
import pathlib
import re
from typing import NamedTuple

LITERAL = re.compile(
    r"""
    (?P<line>//[^\n]*)
  | (?P<block>/\*)
  | (?P<raw>\b(?:b|c)?r(?P<hashes>\#*)")
  | (?P<string>\b[bc]?"(?:\\.|[^"\\])*"|"(?:\\.|[^"\\])*")
  | (?P<char>\bb?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}|.)|[^'\\\n])'|'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}|.)|[^'\\\n])')
    """,
    re.VERBOSE | re.DOTALL,
)
TOKEN = re.compile(r"r#[A-Za-z_]\w*|[A-Za-z_]\w*|'[A-Za-z_]\w*|\d\w*|::|->|=>|\S")


class Token(NamedTuple):
    """One token of Rust: its text and its position in the file."""

    text: str
    at: int


def blank(text: str) -> str:
    """Spaces of the same length; line ends stay, so that line numbers do."""
    return re.sub(r"[^\n]", " ", text)


def without_literals(text: str) -> str:
    """The text with comments (doc comments too), string literals and character literals blanked."""
    parts, at = [], 0
    while found := LITERAL.search(text, at):
        start, end = found.span()
        if found["block"]:
            end = _end_of_block_comment(text, start)
        elif found["raw"]:
            closing = text.find('"' + found["hashes"], end)
            end = len(text) if closing < 0 else closing + 1 + len(found["hashes"])
        parts += [text[at:start], blank(text[start:end])]
        at = end
    return "".join(parts) + text[at:]


def _end_of_block_comment(text: str, start: int) -> int:
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(text)


def tokens(code: str) -> list[Token]:
    """The tokens of code without literals."""
    return [Token(found[0], found.start()) for found in TOKEN.finditer(code)]


def matching(stream: list[Token], opening: int) -> int:
    """Index of the bracket that closes the one at `opening`, or of the last token."""
    pairs = {"(": ")", "[": "]", "{": "}"}
    wanted = []
    for index in range(opening, len(stream)):
        text = stream[index].text
        if text in pairs:
            wanted.append(pairs[text])
        elif wanted and text == wanted[-1]:
            wanted.pop()
            if not wanted:
                return index
    return len(stream) - 1


def _is_test_only(condition: list[str]) -> bool:
    """Whether tokens of `#[cfg(..)]` hold only in a test build: `test`, or `all(.., test, ..)`."""
    if condition == ["cfg", "(", "test", ")"]:
        return True
    if condition[:4] != ["cfg", "(", "all", "("]:
        return False
    depth = 0
    for index, text in enumerate(condition[4:-2], start=4):
        depth += (text == "(") - (text == ")")
        if depth == 0 and text == "test" and condition[index - 1] in ("(", ",") and condition[index + 1] in (",", ")"):
            return True
    return False


class TestItem(NamedTuple):
    """An item under `#[cfg(test)]`: its first and last position, and the module's name if it is `mod name;`."""

    start: int
    end: int
    module: str | None


def test_items(stream: list[Token]) -> list[TestItem]:
    """Items that are compiled for tests only."""
    found, index = [], 0
    while index + 1 < len(stream):
        if stream[index].text != "#" or stream[index + 1].text != "[":
            index += 1
            continue
        close = matching(stream, index + 1)
        condition = [token.text for token in stream[index + 2 : close]]
        if not _is_test_only(condition):
            index = close + 1
            continue
        end, module = _end_of_item(stream, close + 1)
        found.append(TestItem(stream[index].at, stream[end].at + len(stream[end].text), module))
        index = end + 1
    return found


def _end_of_item(stream: list[Token], index: int) -> tuple[int, str | None]:
    """Index of the last token of the item that begins at `index`, after more attributes; its name if it is `mod name;`."""
    while index + 1 < len(stream) and stream[index].text == "#" and stream[index + 1].text == "[":
        index = matching(stream, index + 1) + 1
    first = index
    is_use = False
    while index < len(stream):
        text = stream[index].text
        is_use = is_use or text == "use"
        if text in ("(", "[") or (text == "{" and is_use):
            index = matching(stream, index)
        elif text == "{":
            return matching(stream, index), None
        elif text == ";" or text == ",":  # a comma ends a field or a variant
            words = [token.text for token in stream[first:index]]
            named = words[-1] if len(words) >= 2 and words[-2] == "mod" else None
            return index, named
        elif text == "}":  # the last field of a struct, without a comma
            return index - 1, None
        index += 1
    return len(stream) - 1, None


class Source:
    """One file: its program code, its tokens, and the modules that it declares for tests only."""

    def __init__(self, path: pathlib.Path, text: str):
        self.path = path
        code = without_literals(text)
        items = test_items(tokens(code))
        for item in items:
            code = code[: item.start] + blank(code[item.start : item.end]) + code[item.end :]
        self.code = code
        self.tokens = tokens(code)
        self.test_modules = {item.module for item in items if item.module}
        self._lines = [0] + [found.end() for found in re.finditer("\n", text)]

    def line(self, at: int) -> int:
        """The line, from 1, that holds a position."""
        return bisect.bisect_right(self._lines, at)


def sources(folder: pathlib.Path) -> list[Source]:
    """Every `.rs` file below a folder, sorted by path, without the files that are compiled for tests only."""
    read = {path: Source(path, path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.rs"))}
    test_only = []
    for path, source in read.items():
        beside = path.parent if path.stem in ("mod", "lib", "main") else path.parent / path.stem
        test_only += [beside / name for name in source.test_modules]
    return [
        source
        for path, source in read.items()
        if not any(path == stem.with_suffix(".rs") or stem in path.parents for stem in test_only)
    ]
