//! `vaplan vacuum`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::store::Store;

use super::Global;

/// Remove files that only old versions need.
///
/// Versions before the last N, unless they are being read, can no longer be opened; `log` still lists them. Removed are
/// their data files, files that killed runs left, and entries of the tables' logs that no kept version needs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store to clear
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// How many versions stay
    #[arg(long, value_name = "N")]
    keep: NonZeroUsize,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let store = Store::open(&args.store)?;
    let lock =
        store.lock(&mut |holder| super::stderr::tell(&format!("waiting for {holder}, which writes")))?;
    let done = store.vacuum(&lock, args.keep.get(), args.dry_run)?;
    let verb = if args.dry_run { "would remove" } else { "removed" };
    writeln!(
        out,
        "{verb} {} files and {} log entries, {} bytes",
        done.files, done.entries, done.bytes
    )?;
    if let (Some(first), Some(last)) = (done.kept.first(), done.kept.last()) {
        writeln!(
            out,
            "{} versions can be opened, {first} to {last}",
            done.kept.len()
        )?;
    }
    for version in &done.read {
        writeln!(out, "version {version} stays because it is being read")?;
    }
    Ok(ExitCode::SUCCESS)
}
