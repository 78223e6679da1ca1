//! `vaplan completions`.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, Global};

/// Print shell completions.
///
/// For bash: vaplan completions bash > ~/.local/share/bash-completion/completions/vaplan
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shell to complete for
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // The generator panics where writing fails: into memory it does not.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vaplan", &mut script);
    out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
