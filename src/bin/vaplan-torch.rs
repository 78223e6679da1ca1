//! The program that `vaplan` starts for commands that compute with libtorch. It has all commands of `vaplan`.
//!
//! A program that is linked to libtorch loads all libraries of libtorch before `main`. That takes 0.3 s, longer than a small
//! relabel. `vaplan` itself is therefore not linked to libtorch.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vaplan::cli::program::main_with_libtorch()
}
