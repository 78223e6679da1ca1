//! `vaplan check`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;

use super::Global;

/// Check the integrity of a store version.
///
/// Reads every file: there, of the size and rows the log says, readable; rows in their bucket and order, each key
/// once; scores and labels of the same cells, of classes of the weak label; labels as score and threshold say; changes
/// that add up to the labels. Problems are listed, and make the exit status 2.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

pub(super) fn run(args: &Args, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let snapshot = Store::open(&args.store)?.at_version(args.version.map(StoreVersion))?;
    let problems = snapshot.check()?;
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    let version = snapshot.version().version;
    Ok(if problems.is_empty() {
        writeln!(out, "version {version} is whole")?;
        ExitCode::SUCCESS
    } else {
        writeln!(out, "version {version}: {} problems", problems.len())?;
        ExitCode::from(2)
    })
}
