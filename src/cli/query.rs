//! `vaplan query`.

use std::io::Write;
use std::process::ExitCode;

use super::Global;

/// Ask a store in SQL.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global, _out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
