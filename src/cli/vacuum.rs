//! `vaplan vacuum`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vaplan_schemas::store::Store;

use super::Global;

/// Remove files that only old versions need
///
/// The last --keep versions can still be opened afterwards, and the versions that a process is reading. Other versions
/// cannot; `log` still lists them. The command removes data files and log entries that no kept version needs, files
/// that killed runs left, delivered features that no kept version names, and pooled features of trainings. It prints
/// which folders stay and why. It also works on a full disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan vacuum --store store --keep 5")]
pub(super) struct Args {
    /// Store to remove files from
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Number of latest versions to keep, at least 1
    #[arg(long, value_name = "N")]
    keep: NonZeroUsize,
    /// For a store at a URL: hours that a version stays after it was the latest, because readers of an object store leave
    /// no sign; files that no version names stay as long
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    grace_hours: u32,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let grace = Duration::from_secs(u64::from(args.grace_hours) * 60 * 60);
    let store = Store::open(&args.store)?.with_grace(grace);
    let lock =
        store.lock(&mut |holder| super::stderr::tell(&format!("waiting for {holder}, which writes")))?;
    let done = store.vacuum(&lock, args.keep.get(), args.dry_run)?;
    let verb = if args.dry_run { "would remove" } else { "removed" };
    writeln!(
        out,
        "{verb} {} files and {} log entries, {} bytes",
        done.files, done.entries, done.bytes
    )?;
    for folder in &done.folders {
        let place = folder.folder.display();
        if folder.removed.0 > 0 {
            let (files, bytes) = folder.removed;
            writeln!(
                out,
                "{verb} {files} files of `{place}`, {bytes} bytes: {}",
                folder.why
            )?;
        }
        if folder.kept.0 > 0 {
            let (files, bytes) = folder.kept;
            writeln!(
                out,
                "{files} files of `{place}` stay, {bytes} bytes: {}",
                folder.why
            )?;
        }
    }
    if let (Some(first), Some(last)) = (done.kept.first(), done.kept.last()) {
        writeln!(
            out,
            "{} versions can be opened, {first} to {last}",
            done.kept.len()
        )?;
    }
    for version in &done.read {
        let why = match store.is_remote() {
            true => "it was the latest within the last --grace-hours",
            false => "it is being read",
        };
        writeln!(out, "version {version} stays because {why}")?;
    }
    Ok(ExitCode::SUCCESS)
}
