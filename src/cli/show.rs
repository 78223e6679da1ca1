//! `vaplan show`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::ColorChoice;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;

use super::{Global, notes};
use crate::ingest::IngestError;
use crate::ingest::annotations::{Annotations, read_classes};
use crate::show::{TimelineStyle, html, missing, read, render};

/// Width in columns if standard output is not a terminal.
const WIDTH: usize = 80;

/// Show the timeline of one video: labels, truth and scores
///
/// Each modality and class has a row of labels, a row of the dense truth if the video is annotated, and a row of the
/// scores that were compared with the threshold. On a terminal, a label is green if the truth agrees, yellow if it does
/// not, and cyan if the truth is unknown; truth without a label is red. Otherwise, and with NO_COLOR, the output is
/// plain ASCII. A video that is longer than a line is shown in pieces. With --html, the output is an HTML page without scripts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan show --store store demo0001510_0_10
  vaplan show --store store --version 1 demo0001510
  vaplan show --store store --html demo0001510 > demo0001510.html
  vaplan show --store store -- -rf_AAAAAAA_0_10")]
pub(super) struct ShowArgs {
    /// Video to show: its full name, or its first 11 characters if no other video starts with them; put `--` before a
    /// name that starts with `-`
    video: String,
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Annotation folder with the dense truth [default: the truth in the store]
    #[arg(long, value_name = "DIR")]
    annotations: Option<PathBuf>,
    /// File with the class names in order, one per line [default: classes.txt of the annotations, or LLP's 25 classes]
    #[arg(long, value_name = "FILE", env = "VAPLAN_CLASSES")]
    classes: Option<PathBuf>,
    /// Print one self-contained HTML page instead of text
    #[arg(long, conflicts_with = "width")]
    html: bool,
    /// Width of the output in columns [default: the width of the terminal, or 80]
    #[arg(long, value_name = "COLUMNS")]
    width: Option<usize>,
}

pub(super) fn run(args: &ShowArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let annotations = annotations(args.annotations.as_deref(), args.classes.as_deref())?;
    if let Some(annotations) = &annotations {
        notes::report(&annotations.rejects, global.quiet);
    }
    let snapshot = Store::open(&args.store)?.at_version(args.version.map(StoreVersion))?;
    let timeline = read(&snapshot, &args.video, annotations.as_ref())?;
    let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let plain = anstream::AutoStream::choice(&std::io::stdout()) == ColorChoice::Never;
    let width = args.width.or_else(terminal).unwrap_or(WIDTH);
    match args.html {
        true => write!(out, "{}", html(&timeline))?,
        false => render(&timeline, TimelineStyle { plain, width }, out)?,
    }
    for (modality, reasons) in missing(&snapshot, &timeline)? {
        let why = match reasons.as_slice() {
            [] => String::new(),
            reasons => format!(": {}", reasons.join("; ")),
        };
        super::stderr::tell(&format!("`{}` has no {modality} labels{why}", timeline.video));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the annotation folder, if one is given.
pub(super) fn annotations(
    folder: Option<&Path>,
    classes: Option<&Path>,
) -> Result<Option<Annotations>, IngestError> {
    let classes = classes.map(read_classes).transpose()?;
    folder
        .map(|folder| Annotations::read_with_classes(folder, classes))
        .transpose()
}
