//! `vaplan check`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;

use super::Global;

/// Check the integrity of a store version
///
/// The command reads every file of the version. It checks that each file exists, can be read, and has the size and
/// number of rows that the log states; that rows are in their bucket and in order, with each key once; that scores and
/// labels cover the same segments of the classes of the weak label; that each label follows from score and threshold;
/// and that the label changes add up to the labels. It lists every problem. A problem makes the exit status 2.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan check --store store
  vaplan check --store store --version 3")]
pub(super) struct CheckArgs {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

pub(super) fn run(args: &CheckArgs, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
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
