//! `vaplan completions`.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, Global};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan completions bash > ~/.local/share/bash-completion/completions/vaplan")]
pub(super) struct CompletionsArgs {
    /// Shell that the script is for
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &CompletionsArgs, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // The generator panics if a write fails, so it writes into memory, where writes do not fail.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vaplan", &mut script);
    out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
