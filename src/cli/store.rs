//! `vaplan store`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use vaplan_schemas::store::Store;

use super::Global;
use super::progress::Bar;

/// Copy a store to another folder or to the URL of an object store, or back
///
/// The target is empty or an older copy of the store: files that it has are not copied again, so an interrupted copy
/// continues. The content of every data file is compared with the hash in its name, and the files of the target are
/// counted at the end. Nobody can write either store during the copy. Staged shards, checkpoints of trainings, encoded
/// media and deliveries are not copied.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan store --store store --copy-to s3://bucket/store
  vaplan store --store s3://bucket/store --copy-to copy --versions 3")]
pub(super) struct StoreArgs {
    /// Store to copy
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Folder or URL to copy to
    #[arg(long, value_name = "DIR")]
    copy_to: PathBuf,
    /// Number of latest versions to copy [default: all]
    #[arg(long, value_name = "N")]
    versions: Option<NonZeroUsize>,
}

pub(super) fn run(args: &StoreArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let bar = Arc::new(Bar::new("copying", "files", global));
    let from = Store::open(&args.store)?;
    let to = Store::create(&args.copy_to)?;
    anyhow::ensure!(
        from.root() != to.root(),
        "`{}` is the store itself, expected another folder or URL",
        to.root().display()
    );
    let waiting = |holder: &str| bar.say(&format!("waiting: the store is being written by {holder}"));
    let from_lock = from.lock(&mut |holder| waiting(holder))?;
    let to_lock = to.lock(&mut |holder| waiting(holder))?;
    let versions = args.versions.map(NonZeroUsize::get);
    let done = from.copy_to(&from_lock, &to, &to_lock, versions, &|_| bar.add(1))?;
    bar.finish();
    let (first, last) = done.versions;
    writeln!(
        out,
        "versions {first} to {last} are in `{}`: {} files copied, {} bytes; {} files were there, {} bytes",
        to.root().display(),
        done.written.0,
        done.written.1,
        done.present.0,
        done.present.1
    )?;
    Ok(ExitCode::SUCCESS)
}
