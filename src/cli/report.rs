//! `vaplan report`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::StoreVersion;

use super::Global;
use crate::report::{self, ReportRequest};

/// Write the overview of a store, and timelines of some videos, as one HTML file
///
/// The file opens in any browser without a server and without a network, for mail and archives. It has the overview of
/// `vaplan serve`: counts, scores, threshold sweeps, epochs, flips, losses, classes and versions, each plot with its table.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan report --store store --out report.html
  vaplan report --store store --out report.html --video demo0001510_0_10 --video demo0001513")]
pub(super) struct ReportArgs {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Video whose timeline the report shows: its full name, or its first 11 characters if no other video starts with them;
    /// may be given several times [default: none]
    #[arg(long, value_name = "VIDEO", allow_hyphen_values = true)]
    video: Vec<String>,
    /// File to write; a former file is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &ReportArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = ReportRequest {
        store: args.store.clone(),
        version: args.version.map(StoreVersion),
        videos: args.video.clone(),
        out: args.out.clone(),
    };
    let written = report::run(&request)?;
    if !global.quiet {
        let (file, kilobytes) = (args.out.display(), written.bytes.div_ceil(1000));
        writeln!(out, "{file}: version {}, {kilobytes} kB", written.version)?;
    }
    Ok(ExitCode::SUCCESS)
}
