//! Hands a command over to `vaplan-torch`, the program that is linked to libtorch.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the program that is linked to libtorch.
const PROGRAM: &str = "vaplan-torch";

/// Set for [`PROGRAM`], so that a copy of `vaplan` under that name does not start itself again and again.
const HANDED_OVER: &str = "VAPLAN_HANDED_OVER";

/// OpenMP reads this variable when libtorch is loaded, which is before `main` of [`PROGRAM`].
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Replaces this process by [`PROGRAM`] with the same arguments, and returns only if that fails. The process id stays the
/// same.
///
/// Unless the environment says otherwise, the threads of OpenMP then sleep while they wait. They spin by default, and
/// take the cores from the workers of the dataflow: `demo` took 96 to 219 s instead of 22 s on two cores.
pub(super) fn hand_over() -> String {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "vaplan".into());
    let program = match beside() {
        Ok(program) => program,
        Err(error) => return format!("cannot find the folder of this program: {error}"),
    };
    if std::env::var_os(HANDED_OVER).is_some() {
        return format!(
            "`{}` is a copy of `vaplan`, expected `{PROGRAM}` of the same build",
            program.display()
        );
    }
    // `exec` would give a file that is not a program to the shell.
    if let Err(error) = is_program(&program) {
        return not_started(&program, &error);
    }
    let mut command = Command::new(&program);
    command.env(HANDED_OVER, "1");
    command.arg0(name).args(arguments);
    if std::env::var_os(WAIT_POLICY).is_none() {
        command.env(WAIT_POLICY, "PASSIVE");
    }
    not_started(&program, &command.exec())
}

fn not_started(program: &Path, error: &std::io::Error) -> String {
    format!(
        "cannot start `{}`: {error}. This command computes with libtorch, which `{PROGRAM}` is linked to. Both programs must \
         be in one folder: build them with `cargo build --release --bins`",
        program.display()
    )
}

/// Checks that a file begins as an ELF program does.
fn is_program(path: &Path) -> std::io::Result<()> {
    let mut begin = [0; 4];
    let read = std::fs::File::open(path)?.read(&mut begin)?;
    if &begin[..read] == b"\x7fELF" {
        return Ok(());
    }
    Err(std::io::Error::other("the file is not a program"))
}

/// Path of [`PROGRAM`]: in the folder of this program.
fn beside() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // A program that was started through the dynamic loader (`ld-linux.so vaplan`) has the loader as its executable.
    let is_loader = own
        .file_name()
        .is_some_and(|file| file.as_encoded_bytes().starts_with(b"ld-"));
    let own = match std::env::args_os().next() {
        Some(first) if is_loader => std::fs::canonicalize(first)?,
        _ => own,
    };
    Ok(own.with_file_name(PROGRAM))
}
