//! The `vaplan` program.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = vaplan::cli::Cli::parse();
    #[cfg(feature = "train")]
    if cli.learns() {
        vaplan::cli::libtorch::wait_asleep();
    }
    let mut out = anstream::stdout().lock();
    let done = cli
        .run(&mut out)
        .and_then(|code| out.flush().map(|()| code).map_err(Into::into));
    match done {
        Ok(code) => code,
        // A reader that went away (`| head`) wants no more, and no complaint.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            vaplan::cli::stderr::tell(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
