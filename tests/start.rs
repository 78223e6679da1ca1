//! What `vaplan` loads when it starts, and how it hands a command over to `vaplan-torch`.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{assert_status, stderr, stdout};

fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

/// The shared libraries of a program, as the dynamic loader lists them.
fn libraries(program: &str) -> String {
    let listed = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .unwrap();
    stdout(&listed).to_owned()
}

#[test]
fn only_vaplan_torch_loads_libtorch() {
    assert!(libraries(env!("CARGO_BIN_EXE_vaplan-torch")).contains("libtorch_cpu.so"));
    let own = libraries(env!("CARGO_BIN_EXE_vaplan"));
    assert!(own.contains("libc.so"), "{own}");
    for library in ["torch", "c10", "onnxruntime", "libstdc++"] {
        assert!(!own.contains(library), "{own}");
    }
}

#[test]
fn a_network_command_without_vaplan_torch_beside_the_program_says_what_is_missing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = folder.path().join("vaplan");
    std::fs::hard_link(env!("CARGO_BIN_EXE_vaplan"), &program).unwrap();
    assert_status(&run(&program, &["--version"]), 0);
    let failed = run(
        &program,
        &["train", "--store", "store", "--visual", "v", "--audio", "a"],
    );
    assert_status(&failed, 2);
    let said = stderr(&failed);
    let beside = folder.path().join("vaplan-torch");
    assert!(
        said.contains(&format!("cannot start `{}`", beside.display())) && said.contains("in one folder"),
        "{said}"
    );
}

#[test]
fn a_symbolic_link_to_vaplan_finds_vaplan_torch() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("labels");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vaplan"), &link).unwrap();
    let missing = folder.path().join("missing.toml");
    let failed = run(&link, &["run", missing.to_str().unwrap()]);
    assert_status(&failed, 2);
    assert!(stderr(&failed).contains("missing.toml"), "{}", stderr(&failed));
}
