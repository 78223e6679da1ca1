//! The `vaplan` program. It starts `vaplan-torch` for the commands that compute with libtorch.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

#[cfg(all(feature = "train", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod no_libtorch;

fn main() -> ExitCode {
    vaplan::cli::program::main()
}
