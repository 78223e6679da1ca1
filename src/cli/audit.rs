//! `vaplan audit`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Verdicts, Videos};

use super::choice::choices;
use super::report_format::{ReportFormat, print_json};
use super::{Global, notes};
use crate::audit::estimate::AuditEstimate;
use crate::audit::{self, AuditError, AuditReport, AuditStrata, SampleRequest, VerdictChange, sheet};

/// Measure how good labels are, by a sample of a person's verdicts
///
/// The command works where there is no dense truth. First, --sample draws segments at random and writes them to a CSV file.
/// A person watches or hears each segment and writes 1 into column `verdict` if the event occurs, 0 if it does not, and `?`
/// if the person is unsure. Then --verdicts reads the file into the store, and the report has the precision and the recall within the weak label, with
/// confidence intervals of 95 %, and the number of further verdicts that would halve an interval.
///
/// A verdict is about the video, not about a label: the store keeps it, and it judges every later label. A new sample has no
/// segment with a verdict. Without --sample and --verdicts, the command reports on the verdicts that the store has.
///
/// Rows that cannot be read are listed, and make the exit status 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan audit --store store --sample 200 --out sample.csv
  vaplan audit --store store --verdicts sample.csv
  vaplan audit --store store --by modality --split train --format json")]
pub(super) struct AuditArgs {
    /// Store to read, and to write verdicts to
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version whose labels are sampled or judged [default: the latest]
    #[arg(long, value_name = "N", conflicts_with = "verdicts")]
    version: Option<u64>,
    /// Number of segments to draw
    #[arg(long, value_name = "N", requires = "out", conflicts_with = "verdicts")]
    sample: Option<usize>,
    /// CSV file to write the sample to; it must not exist
    #[arg(long, value_name = "FILE", requires = "sample")]
    out: Option<PathBuf>,
    /// CSV file with verdicts to read into the store
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// What the sample is stratified by, and what the report is divided by
    #[arg(long, value_name = "STRATA", default_value = "class", value_parser = choices::<AuditStrata>())]
    by: AuditStrata,
    /// Seed of the sample
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Splits to sample and to judge: train, val or test; several by comma [default: all]
    #[arg(long, value_name = "SPLITS", value_delimiter = ',')]
    split: Vec<Split>,
    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ReportFormat,
}

impl AuditArgs {
    /// Returns whether the command writes a file or the store.
    pub(super) fn writes(&self) -> bool {
        self.out.is_some() || self.verdicts.is_some()
    }
}

pub(super) fn run(args: &AuditArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let splits = match args.split.as_slice() {
        [] => Split::ALL.to_vec(),
        splits => splits.to_vec(),
    };
    let store = Store::open(&args.store)?;
    let mut snapshot = store.at_version(args.version.map(StoreVersion))?;
    if let (Some(count), Some(path)) = (args.sample, &args.out) {
        anyhow::ensure!(count > 0, "--sample is 0, expected at least 1");
        anyhow::ensure!(!path.exists(), "`{}` exists, expected a new file", path.display());
        let version = snapshot.version().version;
        let judged = store.at_version(None)?.read::<Verdicts>()?;
        let request = SampleRequest {
            by: args.by,
            count,
            seed: args.seed,
            splits,
        };
        let sample = audit::draw(&snapshot, &judged, &request)?;
        if sample.is_empty() {
            let of = format!(
                " of split {}",
                args.split
                    .iter()
                    .map(|s| s.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            let of = if args.split.is_empty() { String::new() } else { of };
            return Err(AuditError::NoLabels {
                version,
                of: of + " without a verdict",
            }
            .into());
        }
        let seconds = snapshot
            .read::<Videos>()?
            .first()
            .map_or(1.0, |row| row.segment_seconds);
        let text = sheet::text(&sample, version, args.by, seconds);
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        let set = sample.iter().filter(|own| own.label).count();
        writeln!(
            out,
            "{} segments of version {version} in {}, {set} of them labelled",
            sample.len(),
            path.display()
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rejected = 0;
    if let Some(path) = &args.verdicts {
        let read = sheet::read(path, &snapshot)?;
        rejected = notes::report(&read.rejects, global.quiet);
        let (count, open) = (read.verdicts.len(), read.open);
        let change = VerdictChange {
            added: read.verdicts,
            command: global.command_line(),
            ..VerdictChange::default()
        };
        audit::change_verdicts(&store, change, &mut |holder| {
            super::stderr::tell(&format!("waiting: the store is being written by {holder}"));
        })?;
        if !global.quiet {
            super::stderr::tell(&format!(
                "{} read, {} without a verdict",
                counted(count as u64, "verdict"),
                counted(open as u64, "row")
            ));
        }
        snapshot = store.at_version(None)?;
    }
    let report = audit::report(&snapshot, &splits, args.by)?;
    for version in &report.gone {
        super::stderr::tell(&format!(
            "version {version}, which verdicts were made on, is gone: the estimates assume that its labels were those of now"
        ));
    }
    match args.format {
        ReportFormat::Json => print_json(&report, out)?,
        ReportFormat::Table => table(&report, out)?,
    }
    Ok(ExitCode::from(u8::from(rejected > 0)))
}

fn table(report: &AuditReport, out: &mut dyn Write) -> std::io::Result<()> {
    let title = format!("version {}, by {}", report.version, report.by);
    writeln!(
        out,
        "{title:<24} {:>9} {:>9} {:>8}  {:<22} {:>9}  {:<22} {:>9}",
        "segments", "labelled", "verdicts", "precision, percent", "to halve", "recall, percent", "to halve"
    )?;
    let share = |estimate: &Option<AuditEstimate>| match estimate {
        None => ("-".to_owned(), "-".to_owned()),
        Some(own) => {
            let [value, low, high] = [own.value, own.low, own.high].map(|share| share * 100.0);
            (
                format!("{value:.1} ({low:.1} to {high:.1})"),
                format!("+{}", own.more_to_halve),
            )
        }
    };
    for row in &report.rows {
        let ((precision, more), (recall, more_recall)) = (share(&row.precision), share(&row.recall));
        writeln!(
            out,
            "{:<24} {:>9} {:>9} {:>8}  {precision:<22} {more:>9}  {recall:<22} {more_recall:>9}",
            row.name.escape_debug().to_string(),
            row.segments,
            row.set,
            row.verdicts
        )?;
    }
    if report.unsure > 0 {
        writeln!(
            out,
            "unsure, and therefore left out of the estimates: {}",
            counted(report.unsure, "verdict")
        )?;
    }
    if report.unused > 0 {
        writeln!(
            out,
            "about no label of these splits in this version: {}",
            counted(report.unused, "verdict")
        )?;
    }
    Ok(())
}

/// A number with its noun.
fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
