"""What modules.py, type_names.py and links.py must find in small checkouts. Run by `make structure`."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))

import links  # noqa: E402
import modules  # noqa: E402
import type_names  # noqa: E402
from rust_source import Source  # noqa: E402


def tree(test: unittest.TestCase, files: dict[str, str]) -> pathlib.Path:
    """A checkout with these files, removed after the test."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    root = pathlib.Path(folder.name).resolve()
    for name, text in {"schemas/src/lib.rs": "", "dataflows/src/lib.rs": "", "src/lib.rs": "", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def edges(root: pathlib.Path, crate: str = "src") -> dict[str, list[str]]:
    """The picture's dependencies, by module; a module without any is left out."""
    return {module: sorted(used) for module, used in modules.program(root)[crate].items() if used}


class Dependencies(unittest.TestCase):
    def uses(self, code: str, path: str = "src/a/mod.rs") -> list[str]:
        files = {f"src/{name}/mod.rs": "" for name in ("a", "b", "c", "d")}
        return edges(tree(self, {**files, path: code})).get("a", [])

    def test_a_path_a_use_and_a_nested_tree_count(self):
        self.assertEqual(self.uses("fn f() { crate::b::f() }"), ["b"])
        self.assertEqual(self.uses("use crate::b;"), ["b"])
        self.assertEqual(self.uses("pub use crate::{b::{self, x as y, deep::{m, n}}, c::*};"), ["b", "c"])
        self.assertEqual(self.uses("fn f() { use crate::d::x; }"), ["d"])
        self.assertEqual(self.uses("fn f(x: &Vec<crate::c::T>) -> impl I + use<'_> { x }"), ["c"])
        self.assertEqual(self.uses("macro_rules! m { () => { $crate::b::f() } }"), ["b"])

    def test_super_leads_out_of_the_module_from_the_right_depth(self):
        self.assertEqual(self.uses("use super::b;"), ["b"])
        self.assertEqual(self.uses("use super::b;", "src/a/deep.rs"), [])
        self.assertEqual(self.uses("use super::super::b;", "src/a/deep.rs"), ["b"])
        self.assertEqual(self.uses("use super::super::super::b;", "src/a/deep/er.rs"), ["b"])
        self.assertEqual(self.uses("mod inner { use super::super::b; use super::c; }"), ["b"])
        self.assertEqual(self.uses("mod inner { fn f() {} } use super::c;"), ["c"])

    def test_comments_strings_and_doc_examples_do_not_count(self):
        self.assertEqual(self.uses("// crate::b::x\n/* crate::b /* crate::c */ crate::d */\n/// ```\n/// use crate::b;\n/// ```\n"), [])
        self.assertEqual(self.uses('const A: &str = "crate::b::x \\" crate::c"; const B: &str = r#"crate::d " x"#;'), [])
        self.assertEqual(self.uses("fn f<'a>(q: char) -> &'a T { if q == '\"' { crate::b::f() } }"), ["b"])
        self.assertEqual(self.uses("const Q: char = '\\''; use crate::b;"), ["b"])

    def test_code_for_tests_only_does_not_count(self):
        self.assertEqual(self.uses("#[cfg(test)]\nmod tests { use crate::b; fn f() { '{'; } }\nuse crate::c;"), ["c"])
        self.assertEqual(self.uses("#[cfg(test)]\n#[allow(unused)]\nuse crate::{b, d};\nuse crate::c;"), ["c"])
        self.assertEqual(self.uses("#[cfg(all(test, unix))]\nfn f() { crate::b::f() }"), [])
        self.assertEqual(self.uses("#[cfg(any(test, unix))]\nfn f() { crate::b::f() }"), ["b"])
        self.assertEqual(self.uses("#[cfg(all(unix, not(test)))]\nfn f() { crate::b::f() }"), ["b"])

    def test_a_file_that_is_declared_for_tests_only_does_not_count(self):
        files = {"src/a/mod.rs": "#[cfg(test)]\nmod tests;\nmod rest;", "src/b.rs": "", "src/c.rs": ""}
        files |= {"src/a/tests.rs": "use crate::b;", "src/a/tests/more.rs": "use crate::b;", "src/a/rest.rs": "use crate::c;"}
        self.assertEqual(edges(tree(self, files)), {"a": ["c"]})
        beside = {"src/a.rs": "#[cfg(test)]\nmod tests;", "src/a/tests.rs": "use crate::b;", "src/b.rs": ""}
        self.assertEqual(edges(tree(self, beside)), {})

    def test_a_name_that_the_library_re_exports_counts_for_its_module(self):
        files = {"src/lib.rs": "pub mod a;\npub mod b;\npub use b::{Store, Other as Second};\npub use crate::c::C;"}
        files |= {"src/a.rs": "use crate::{Store, Second};", "src/b.rs": "", "src/c.rs": "", "src/d.rs": "fn f(x: crate::C) {}"}
        self.assertEqual(edges(tree(self, files)), {"a": ["b"], "d": ["c"]})

    def test_main_and_the_crates_of_the_workspace_count(self):
        files = {"src/bin/a.rs": "fn main() { vaplan::cli::run() }", "src/cli.rs": "use vaplan_schemas::ids::A; use crate::a;"}
        files |= {"src/a.rs": "fn f(x: vaplan_dataflows::B) {}", "dataflows/src/b.rs": "use vaplan_schemas::x; use crate::c;", "dataflows/src/c.rs": ""}
        root = tree(self, files)
        self.assertEqual(edges(root), {"bin": ["cli"], "cli": ["a", "schemas"], "a": ["dataflows"]})
        self.assertEqual(edges(root, "dataflows"), {"b": ["c"]})


class Checks(unittest.TestCase):
    def run_script(self, root: pathlib.Path, *options: str) -> tuple[int, str]:
        command = [sys.executable, SCRIPTS / "modules.py", "--root", root, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_the_picture_has_each_module_once_and_every_dependency(self):
        files = {"src/cli.rs": "use crate::{a, b, c};", "src/a.rs": "use crate::b;", "src/b.rs": "use crate::c;", "src/c.rs": ""}
        self.assertEqual(
            modules.picture(modules.program(tree(self, files))["src"]),
            "cli → b, c\n└── a\n    └── b\n        └── c",
        )

    def test_a_cycle_fails_with_the_places_that_close_it(self):
        files = {"src/a.rs": "use crate::b;\nuse crate::b::x;", "src/b.rs": "use crate::c;\nuse crate::c::x;"}
        files |= {"src/c.rs": "\n\nfn f() { crate::a::f() }", "page.md": f"{modules.BEGIN}\n{modules.END}\n"}
        root = tree(self, files)
        page = str(root / "page.md")
        status, said = self.run_script(root, "--write", page, "--check", page)
        self.assertEqual(status, 1)
        self.assertIn("cycle in src: a → b → c → a; the last step is made by src/c.rs:3\n", said)
        (root / "src/c.rs").write_text("")
        self.assertEqual(self.run_script(root, "--write", page, "--check", page), (0, ""))

    def test_a_picture_that_differs_from_the_code_fails_and_names_the_command(self):
        page = f"before\n{modules.BEGIN}\nold\n{modules.END}\nafter\n"
        root = tree(self, {"src/a.rs": "use crate::b;", "src/b.rs": "", "page.md": page})
        name = str(root / "page.md")
        status, said = self.run_script(root, "--check", name)
        self.assertEqual(status, 1)
        self.assertIn(f"run scripts/modules.py --write {name}", said)
        self.assertEqual(self.run_script(root, "--write", name, "--check", name), (0, ""))
        text = (root / "page.md").read_text()
        self.assertTrue(text.startswith("before\n") and text.endswith("\nafter\n") and "a\n└── b" in text, text)
        (root / "src/b.rs").write_text("use vaplan_schemas::X;")
        self.assertEqual(self.run_script(root, "--check", name)[0], 1)

    def test_a_page_without_markers_is_refused(self):
        root = tree(self, {"src/a.rs": "", "page.md": "text"})
        status, said = self.run_script(root, "--write", str(root / "page.md"))
        self.assertEqual(status, 1)
        self.assertIn("add both where the picture belongs", said)

    def test_a_crate_or_module_that_reaches_up_is_named(self):
        files = {"schemas/src/a.rs": "use vaplan_dataflows::x;", "dataflows/src/a.rs": "use vaplan::x;", "src/cli.rs": ""}
        files |= {"src/a.rs": "use crate::cli::Args;", "src/bin/a.rs": "use vaplan::cli::Args;"}
        said = modules.direction(tree(self, files))
        self.assertEqual(len(said), 3, said)
        self.assertIn("src/a.rs:1 names `crate::cli`, which is above a", said)

    def test_only_the_command_line_may_use_what_belongs_to_a_program(self):
        files = {"src/cli/x.rs": "use clap::Args;", "src/bin/a.rs": "use clap::Parser;", "src/a.rs": "#[derive(clap::ValueEnum)]\nenum A {}"}
        files |= {"src/b.rs": "fn f() { std::panic::set_hook(x) }", "src/c.rs": "use signal_hook;", "src/d.rs": "let clap = request.clap;"}
        root = tree(self, files)
        self.assertEqual([place.split(" ")[0] for place in modules.program_only(root)], ["src/a.rs:1", "src/b.rs:1", "src/c.rs:1"])
        allowed = frozenset({"src/a.rs", "src/b.rs", "src/c.rs", "src/d.rs"})
        self.assertEqual(modules.program_only(root, allowed), ["scripts/modules.py: src/d.rs no longer needs its entry in LEFTOVERS"])
        self.assertEqual(self.run_script(root, "--strict")[0], 1)


class TypeNames(unittest.TestCase):
    def test_a_public_name_may_occur_once(self):
        files = {"src/a.rs": "pub struct Request;\npub(crate) enum Kind {}\nstruct Private;", "src/b.rs": "pub(in crate::b) struct Request {}"}
        files |= {"schemas/src/c.rs": "pub trait Kind {}\nstruct Private;", "bench/src/lib.rs": "pub union Other {}"}
        files |= {"src/d.rs": "#[cfg(test)]\nmod tests { pub struct Other; }\n// pub struct Other;"}
        self.assertEqual(
            type_names.duplicates(tree(self, files)),
            {"Kind": ["schemas/src/c.rs:1", "src/a.rs:2"], "Request": ["src/a.rs:1", "src/b.rs:1"]},
        )

    def test_aliases_and_tests_count_as_well(self):
        files = {"src/a.rs": "pub type Key = u8;\npub struct World;\ntrait T { type Item; }", "src/b.rs": "pub(super) type Key = u16;"}
        files |= {"tests/c.rs": "pub(crate) struct World;", "dataflows/tests/law/d.rs": "pub(crate) enum World {}\ntype Item = u8;"}
        self.assertEqual(
            type_names.duplicates(tree(self, files)),
            {"Key": ["src/a.rs:1", "src/b.rs:1"], "World": ["dataflows/tests/law/d.rs:1", "src/a.rs:2", "tests/c.rs:1"]},
        )

    def test_each_command_has_args_of_its_own(self):
        files = {"src/cli/a.rs": "pub(super) struct Args {}", "src/cli/b.rs": "pub(super) struct Args {}"}
        self.assertEqual(type_names.duplicates(tree(self, files)), {})
        files["src/c.rs"] = files["src/d.rs"] = "pub struct Args;"
        self.assertEqual(list(type_names.duplicates(tree(self, files))), ["Args"])

    def test_the_script_lists_the_names_and_fails(self):
        root = tree(self, {"src/a.rs": "pub struct A;", "src/b.rs": "\npub struct A;"})
        command = [sys.executable, SCRIPTS / "type_names.py", "--root", root]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("`A` is the name of 2 types: src/a.rs:1, src/b.rs:2", done.stderr)


class Links(unittest.TestCase):
    def test_a_link_leads_to_a_file_and_a_heading(self):
        page = "# `a`: b, c_d\n## `a`: b, c_d\n## See [x](y.md)\n[1](#a-b-c_d) [2](#a-b-c_d-1) [3](#see-x) [4](y.md#z) [5](https://x/y)\n"
        files = {"README.md": "[a](docs/x.md#a-b-c_d)", "docs/x.md": page, "docs/y.md": "# Z\n```\n# no heading\n[no](link.md)\n```\n"}
        self.assertEqual(links.dead_links(tree(self, files)), [])
        files["README.md"] = "[a](docs/x.md#b) [b](none.md) [c](docs/y.md#no-heading)"
        self.assertEqual([line.split("`")[1] for line in links.dead_links(tree(self, files))], ["docs/x.md#b", "none.md", "docs/y.md#no-heading"])


class Lexer(unittest.TestCase):
    def test_positions_stay_those_of_the_file(self):
        text = '/* a\n b */ "c\nd" /// e\nfn f() {}\n'
        source = Source(pathlib.Path("x.rs"), text)
        self.assertEqual(len(source.code), len(text))
        self.assertEqual([(token.text, source.line(token.at)) for token in source.tokens[:2]], [("fn", 4), ("f", 4)])


if __name__ == "__main__":
    unittest.main()
