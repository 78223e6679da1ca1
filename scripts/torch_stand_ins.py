#!/usr/bin/env python3
"""Writes stand-ins for NVIDIA's libraries beside an installed package torch, so that PyTorch runs on the processor without them.

    python3 scripts/torch_stand_ins.py SITE_PACKAGES

PyPI has one wheel of torch for Linux: the CUDA build. Its libraries are linked to a dozen libraries of NVIDIA, which are
3 GB in all, so that the loader refuses to load torch if one of them is missing. Tensors on the processor call no function of
them. A stand-in has the name, the versions and the symbols that torch asks for; each of its functions ends the process.
Libraries that are installed get no stand-in, and an installed one is found before a stand-in.

Needs `readelf`, `nm` and a C compiler (CC, or `cc`).
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

#: Libraries of the system, which every program finds, and the driver, which torch loads only where there is one.
SYSTEM = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|cuda)\.so.*)")


def output(*words):
    return subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True).stdout


def needed(library):
    return re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "--dynamic", "--wide", library))


def versions(library):
    """The versions that a library asks of others: pairs of the other library and the version's name."""
    found, of = set(), None
    for line in output("readelf", "--version-info", "--wide", library).splitlines():
        if file := re.search(r"Version: \d+  File: (\S+)", line):
            of = file[1]
        elif of and (name := re.search(r"Name: (\S+)  Flags", line)):
            found.add((of, name[1]))
        elif not line.strip():
            of = None
    return found


def undefined(library):
    """Symbols that a library takes from others: pairs of name and version, which may be empty."""
    lines = output("nm", "--dynamic", "--undefined-only", library).splitlines()
    symbols = [line.split()[1].partition("@") for line in lines if line.split()[0] == "U"]
    return {(name, version.lstrip("@")) for name, _, version in symbols}


def defined(library):
    return {line.split()[-1].partition("@")[0] for line in output("nm", "--dynamic", "--defined-only", library).splitlines()}


def write(folder, name, nodes, compiler):
    """Compiles a library `name`. `nodes` has the symbols of each version; version "" is that of symbols without one."""
    symbols = sorted(set().union(*nodes.values()))
    code = "".join(f"void {symbol}(void) {{ __builtin_trap(); }}\n" for symbol in symbols)
    script = "".join(
        f"{node} {{ global: {''.join(f'{symbol}; ' for symbol in sorted(own))}{'local: *; ' if not own else ''}}};\n"
        for node, own in nodes.items()
        if node
    )
    with tempfile.TemporaryDirectory() as scratch:
        source, versions_of = Path(scratch, "own.c"), Path(scratch, "own.map")
        source.write_text(code)
        versions_of.write_text(script)
        words = [compiler, "-shared", "-fPIC", "-nostdlib", "-w", "-fno-builtin", f"-Wl,-soname,{name}"]
        words += [f"-Wl,--version-script,{versions_of}"] if script else []
        subprocess.run([*words, str(source), "-o", str(folder / name)], check=True)


def main():
    site = Path(sys.argv[1])
    own = site / "torch" / "lib"
    if not own.is_dir():
        sys.exit(f"torch_stand_ins: {own} is missing, expected the package torch in {site}")
    libraries = sorted(own.glob("*.so*"))
    there = {path.name for path in libraries} | {path.name for path in (site / "nvidia").glob("*/lib/*.so*")}
    missing = {name for library in libraries for name in needed(library) if name not in there}
    missing = {name for name in missing if not SYSTEM.fullmatch(name)}
    if not missing:
        print("torch_stand_ins: no library is missing")
        return
    present = set().union(*map(defined, [*libraries, *(site / "nvidia").glob("*/lib/*.so*")]))
    asked = set().union(*map(versions, libraries))
    symbols = set().union(*map(undefined, libraries))
    # A symbol without a version does not name its library, so that each library without versions gets all of them.
    loose = {name for name, version in symbols if not version and name not in present and re.match(r"cu|nccl|nv", name)}
    compiler = os.environ.get("CC", "cc")
    for name in sorted(missing):
        nodes = {version: {symbol for symbol, of in symbols if of == version} for file, version in asked if file == name}
        write(own, name, nodes or {"": loose}, compiler)
    print(f"torch_stand_ins: {len(missing)} stand-ins in {own}: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
