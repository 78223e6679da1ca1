//! `vaplan optimize`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::store::Store;

use clap::builder::TypedValueParser;

use super::Global;

/// Merge the patches of many small changes, so that a store reads as fast as a new one
///
/// The command rewrites patch files, files with deleted rows, and small files as plain data files. It commits a version
/// that changes no row, and writes a checkpoint of the log of every table. The files of older versions stay until
/// `vacuum` removes them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan optimize --store store
  vaplan optimize --store store --reader 1")]
pub(super) struct Args {
    /// Store to rewrite
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Reader version of Delta's protocol that the tables may ask for. With 1, readers without deletion vectors (pandas,
    /// pyarrow) open the latest version. Patches of later changes ask for 3 again
    #[arg(long, value_name = "VERSION", default_value_t = 3, value_parser = clap::builder::PossibleValuesParser::new(["1", "3"]).map(|version| if version == "1" { 1u8 } else { 3 }))]
    reader: u8,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let store = Store::open(&args.store)?;
    let lock =
        store.lock(&mut |holder| super::stderr::tell(&format!("waiting for {holder}, which writes")))?;
    let (command, program) = (global.command_line(), env!("CARGO_PKG_VERSION"));
    let done = match args.reader {
        1 => store.optimize_for_every_reader(&lock, &command, program)?,
        _ => store.optimize(&lock, &command, program)?,
    };
    match done.version {
        Some(version) => writeln!(
            out,
            "version {version}: {} files, {} bytes; before {} files, {} bytes",
            done.files.1, done.bytes.1, done.files.0, done.bytes.0
        )?,
        None => writeln!(out, "nothing to rewrite: {} files", done.files.0)?,
    }
    writeln!(out, "checkpoints of {} logs", done.checkpoints)?;
    Ok(ExitCode::SUCCESS)
}
