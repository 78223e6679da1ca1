#!/usr/bin/env python3
"""Draws which modules of the program name which others, and checks that the picture is right and has no cycle.

A module is a folder or file directly below src/. It depends on another one if its program code names it: `crate::world::x`,
`use crate::{eval, world}`, `super::super::world`, at any depth of a use tree. Comments, doc examples, strings and everything under
`#[cfg(test)]` do not count. Names that src/lib.rs re-exports count for the module that they come from. In src,
`vaplan_schemas::..` and `vaplan_dataflows::..` are dependencies on these crates. The crates' own modules are drawn by the same rule.

    scripts/modules.py                              print the picture
    scripts/modules.py --check docs/architecture.md exit status 1 if there is a cycle, or if the page shows another picture
    scripts/modules.py --write docs/architecture.md write the picture into the page, between its two markers
    scripts/modules.py --strict                     exit status 1 if a crate that only the command line may use is named elsewhere

The options combine. `--root DIR` reads another checkout.
"""

import argparse
import collections
import pathlib
import sys
from typing import NamedTuple

from rust_source import Source, Token, matching, sources

BEGIN = "<!-- modules: begin, written by scripts/modules.py -->"
END = "<!-- modules: end -->"
# Package folder, its name in code, and the crates of the workspace that it must never name.
CRATES = {
    "schemas": ("vaplan_schemas", ("vaplan_dataflows", "vaplan")),
    "dataflows": ("vaplan_dataflows", ("vaplan",)),
}
# What belongs to a program, not to a library: only src/cli and src/bin name it.
PROGRAM_ONLY = ("clap", "signal_hook", "indicatif", "anstream")
PANIC_HOOK = ("panic", "set_hook")
# Files that may still break the rule above. An entry that is no longer needed fails the check, too.
LEFTOVERS: frozenset[str] = frozenset()


class Use(NamedTuple):
    """One place that names a module."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


Graph = dict[str, dict[str, list[Use]]]


class Reader:
    """Collects the dependencies between the top-level modules of one crate."""

    def __init__(self, root: pathlib.Path, folder: pathlib.Path, outside: dict[str, str]):
        self.root, self.folder = root, folder
        # name in code → module of the picture, for other crates of the workspace
        self.outside = outside
        self.files = sources(folder)
        self.modules = {self._top(source) for source in self.files} - {"lib", "bin"}
        self.exports: dict[str, str] = {}
        self.graph: Graph = {module: {} for module in sorted(self.modules)}

    def _module_path(self, source: Source) -> list[str]:
        parts = list(source.path.relative_to(self.folder).with_suffix("").parts)
        return parts[:-1] if parts[-1] == "mod" else parts

    def _top(self, source: Source) -> str:
        return self._module_path(source)[0]

    def read(self) -> Graph:
        """The graph: for each module, the modules that it names, and where."""
        for source in self.files:
            if self._module_path(source) == ["lib"]:
                self._read_exports(source)
        for source in self.files:
            path = self._module_path(source)
            if path != ["lib"]:
                self._read_file(source, path)
        return self.graph

    def _read_exports(self, source: Source) -> None:
        """What lib.rs re-exports, by its last name or its alias."""
        stream = source.tokens
        for index, token in enumerate(stream):
            if token.text != "use":
                continue
            for path, alias, _ in _use_tree(stream, index + 1):
                parts = path[1:] if path[0] in ("crate", "self") else path
                if len(parts) > 1 and parts[0] in self.modules:
                    self.exports[alias or parts[-1]] = parts[0]

    def _read_file(self, source: Source, module: list[str]) -> None:
        stream = source.tokens
        inline: list[tuple[str, int]] = []  # inline modules that are open, and the index of their closing bracket
        index = 0
        while index < len(stream):
            while inline and index > inline[-1][1]:
                inline.pop()
            here = ([] if module[:1] == ["bin"] else module) + [name for name, _ in inline]
            text = stream[index].text
            if text == "mod" and index + 2 < len(stream) and stream[index + 2].text == "{":
                inline.append((stream[index + 1].text, matching(stream, index + 2)))
                index += 3
            elif text == "use" and not _is_bound(stream, index):
                index = self._read_use(source, module, here, index + 1)
            elif _starts_path(stream, index):
                path, end = _path(stream, index)
                self._add(source, module, here, path, stream[index])
                index = end
            else:
                index += 1

    def _read_use(self, source: Source, module: list[str], here: list[str], index: int) -> int:
        end = index
        for path, _, token in _use_tree(source.tokens, index):
            self._add(source, module, here, path, token)
        while end < len(source.tokens) and source.tokens[end].text != ";":
            end += 1
        return end

    def _add(self, source: Source, module: list[str], here: list[str], path: list[str], token: Token) -> None:
        named = self._resolve(here, path)
        top = module[0]
        if named is None or named == top:
            return
        use = Use(source.path.relative_to(self.root).as_posix(), source.line(token.at))
        self.graph.setdefault(top, {}).setdefault(named, []).append(use)

    def _resolve(self, here: list[str], path: list[str]) -> str | None:
        """The top-level module, or crate, that a path in module `here` names; None if it names none."""
        parts = list(path)
        if parts[0] in self.outside:
            crate = self.outside[parts[0]]
            if crate:
                return crate
            base: list[str] = []  # programs name the library
            parts = parts[1:]
        elif parts[0] in ("crate", "self", "super"):
            base = [] if parts[0] == "crate" else list(here)
            if parts[0] != "super":
                parts = parts[1:]
            while parts and parts[0] == "super":
                base, parts = base[:-1], parts[1:]
        else:
            return None
        full = base + parts
        if not full:
            return None
        return full[0] if full[0] in self.modules else self.exports.get(full[0])


def _is_bound(stream: list[Token], index: int) -> bool:
    """Whether `use` at `index` begins the captures of `impl Trait + use<..>`."""
    return index + 1 < len(stream) and stream[index + 1].text == "<"


def _starts_path(stream: list[Token], index: int) -> bool:
    """Whether the token is the first name of a path of two names or more."""
    token = stream[index].text
    if not (token[0].isalpha() or token[0] == "_"):
        return False
    if index + 1 >= len(stream) or stream[index + 1].text != "::":
        return False
    return index == 0 or stream[index - 1].text != "::"


def _path(stream: list[Token], index: int) -> tuple[list[str], int]:
    """The names of the path at `index`, and the index after them."""
    path = [stream[index].text]
    index += 1
    while index + 1 < len(stream) and stream[index].text == "::" and _is_name(stream[index + 1].text):
        path.append(stream[index + 1].text)
        index += 2
    return path, index


def _is_name(text: str) -> bool:
    return text[0].isalpha() or text[0] == "_"


def _use_tree(stream: list[Token], index: int) -> list[tuple[list[str], str | None, Token]]:
    """Every path of the use tree at `index`, its alias, and its last token."""
    found: list[tuple[list[str], str | None, Token]] = []

    def tree(index: int, prefix: list[str]) -> int:
        path, last = list(prefix), stream[index]
        while index < len(stream):
            text = stream[index].text
            if text == "::":
                index += 1
            elif text == "{":
                index += 1
                while index < len(stream) and stream[index].text != "}":
                    index = tree(index, path)
                    if index < len(stream) and stream[index].text == ",":
                        index += 1
                return index + 1
            elif text == "as":
                found.append((path, stream[index + 1].text, last))
                return index + 2
            elif text == "*" or _is_name(text):
                last = stream[index]
                if text != "*" and not (text == "self" and path):
                    path = [*path, text]
                index += 1
            else:
                break
        found.append((path, None, last))
        return index

    if index < len(stream):
        tree(index, [])
    return [(path, alias, token) for path, alias, token in found if path]


def program(root: pathlib.Path) -> dict[str, Graph]:
    """For src, dataflows and schemas: dependencies between the modules; for src on the two other crates, too."""
    names = {name: folder for folder, (name, _) in CRATES.items()}
    graphs = {"src": Reader(root, root / "src", {**names, "vaplan": ""}).read()}
    for folder in reversed(CRATES):
        graphs[folder] = Reader(root, root / folder / "src", {}).read()
    return graphs


def layers(graph: Graph) -> list[str]:
    """Modules, users before what they use, as far as there is no cycle; by name among equals."""
    users = {module: 0 for module in graph}
    for used in graph.values():
        for module in used:
            users[module] = users.get(module, 0) + 1
    order, left = [], dict(users)
    while left:
        free = sorted(module for module, count in left.items() if count == 0) or [min(left)]
        for module in free:
            del left[module]
            order.append(module)
            for used in graph.get(module, {}):
                if used in left:
                    left[used] -= 1
    return order


def picture(graph: Graph) -> str:
    """The tree: one line for each module, with what it uses below it or, if that is drawn elsewhere, after the arrow."""
    rank = {module: place for place, module in enumerate(layers(graph))}
    drawn: set[str] = set()
    lines: list[str] = []

    def draw(module: str, lead: str, here: str) -> None:
        drawn.add(module)
        used = sorted(graph.get(module, {}), key=rank.__getitem__)
        below = [other for other in used if other not in drawn and not _reached(graph, other, used)]
        drawn.update(below)  # before any of them is drawn: none of them draws another one
        elsewhere = sorted(set(used) - set(below))
        head = f"{lead}{module}"
        lines.extend(_wrapped(f"{head} → ", elsewhere, here + ("│   " if below else "    ")) if elsewhere else [head])
        for other in below:
            last = other == below[-1]
            draw(other, here + ("└── " if last else "├── "), here + ("    " if last else "│   "))

    for module in sorted(graph, key=rank.__getitem__):
        if module not in drawn:
            draw(module, "", "")
    return "\n".join(lines)


def _reached(graph: Graph, module: str, others: list[str]) -> bool:
    """Whether one of the others uses the module, at any distance: it is drawn below that one."""
    seen: set[str] = set()
    left = [other for other in others if other != module]
    while left:
        for used in graph.get(left.pop(), {}):
            if used == module:
                return True
            if used not in seen:
                seen.add(used)
                left.append(used)
    return False


def _wrapped(lead: str, names: list[str], here: str, width: int = 118) -> list[str]:
    lines, line = [], lead
    for name in names:
        text = name + ("" if name == names[-1] else ", ")
        if len(line) + len(text.rstrip()) > width and line != lead:
            lines.append(line.rstrip())
            line = here + "    "
        line += text
    return [*lines, line]


def cycles(graph: Graph) -> list[tuple[list[str], list[Use]]]:
    """Cycles, each with the uses that close it: of its edges, the one that the fewest places make."""
    left = {module: dict(used) for module, used in graph.items()}
    found = []
    while cycle := _shortest_cycle(left):
        edges = list(zip(cycle, [*cycle[1:], cycle[0]]))
        start, end = min(edges, key=lambda edge: (len(left[edge[0]][edge[1]]), edge))
        place = cycle.index(start)
        found.append((cycle[place + 1 :] + cycle[: place + 1], left[start].pop(end)))
    return found


def _shortest_cycle(graph: dict[str, dict[str, list[Use]]]) -> list[str] | None:
    best: list[str] | None = None
    for start in sorted(graph):
        came = {start: start}
        queue = collections.deque([start])
        while queue and (best is None or len(best) > 1):
            module = queue.popleft()
            for used in sorted(graph.get(module, {})):
                if used == start:
                    path = [module]
                    while path[-1] != start:
                        path.append(came[path[-1]])
                    if best is None or len(path) < len(best):
                        best = path[::-1]
                    queue.clear()
                    break
                if used not in came:
                    came[used] = module
                    queue.append(used)
    return best


def direction(root: pathlib.Path) -> list[str]:
    """Breaches of schemas ◀ dataflows ◀ src ◀ cli, bin."""
    found = []
    for folder, (_, forbidden) in CRATES.items():
        for source in sources(root / folder / "src"):
            for index, token in enumerate(source.tokens):
                if token.text in forbidden and _starts_path(source.tokens, index):
                    path = source.path.relative_to(root).as_posix()
                    found.append(f"{path}:{source.line(token.at)} names `{token.text}`, which is above {folder}")
    for module, used in Reader(root, root / "src", {"vaplan": ""}).read().items():
        if module != "bin":
            found += [f"{use} names `crate::cli`, which is above {module}" for use in used.get("cli", [])]
    return found


def program_only(root: pathlib.Path, leftovers: frozenset[str] = LEFTOVERS) -> list[str]:
    """Files outside src/cli that name what only a program may use, and entries of `leftovers` that are no longer needed."""
    found, needed = [], set()
    for folder in [*(f"{crate}/src" for crate in CRATES), "src"]:
        for source in sources(root / folder):
            path = source.path.relative_to(root).as_posix()
            if path.startswith(("src/bin/", "src/cli/")):
                continue
            for index, token in enumerate(source.tokens):
                named = token.text if token.text in PROGRAM_ONLY and _names_crate(source.tokens, index) else None
                if token.text == PANIC_HOOK[1]:
                    named = "::".join(PANIC_HOOK)
                if named and path in leftovers:
                    needed.add(path)
                elif named:
                    found.append(f"{path}:{source.line(token.at)} names `{named}`, which only src/cli and src/bin may name")
    found += [f"scripts/modules.py: {path} no longer needs its entry in LEFTOVERS" for path in sorted(leftovers - needed)]
    return found


def _names_crate(stream: list[Token], index: int) -> bool:
    """Whether the token is the first name of a path, or all that a `use` names."""
    if _starts_path(stream, index):
        return True
    return index > 0 and stream[index - 1].text == "use"


def pictures(graphs: dict[str, Graph]) -> str:
    """The pictures of all crates, each under the name of its folder."""
    return "\n\n".join(f"{folder}/\n{picture(graph)}" for folder, graph in graphs.items())


def block(graphs: dict[str, Graph]) -> str:
    """What stands in the page, markers included."""
    return f"{BEGIN}\n```text\n{pictures(graphs)}\n```\n{END}"


def stale(page: str, graphs: dict[str, Graph]) -> bool:
    """Whether the page shows other pictures than those of the graphs."""
    return block(graphs) not in page


def written(page: str, graphs: dict[str, Graph]) -> str:
    """The page with the pictures of the graphs between the markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no line {BEGIN} followed by a line {END}: add both where the picture belongs")
    return before + block(graphs) + after


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw and check the dependencies between the program's modules.")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--check", type=pathlib.Path, metavar="PAGE")
    parser.add_argument("--write", type=pathlib.Path, metavar="PAGE")
    parser.add_argument("--strict", action="store_true")
    args = parser.parse_args()
    root = args.root.resolve()
    graphs = program(root)
    problems = []
    if args.write:
        try:
            page = written(args.write.read_text(encoding="utf-8"), graphs)
        except ValueError as error:
            print(f"modules: {args.write}: {error}", file=sys.stderr)
            return 1
        args.write.write_text(page, encoding="utf-8")
    if args.check:
        for folder, graph in graphs.items():
            for cycle, uses in cycles(graph):
                path = " → ".join([*cycle, cycle[0]])
                problems.append(f"cycle in {folder}: {path}; the last step is made by {', '.join(map(str, uses))}")
        problems += direction(root)
        if stale(args.check.read_text(encoding="utf-8"), graphs):
            problems.append(f"{args.check} shows other modules than the code has: run scripts/modules.py --write {args.check}")
    if args.strict:
        problems += program_only(root)
    if not (args.check or args.write or args.strict):
        print(pictures(graphs))
    for problem in problems:
        print(f"modules: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
