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
use crate::show::{Look, read, render};

/// Columns where standard output is no terminal.
const WIDTH: usize = 80;

/// Show the timeline of one video: labels, truth and scores
///
/// Per modality and class a row of labels, the truth beside it where the video is annotated, and the scores that the
/// labels come from. In colour on a terminal: labels green where the truth agrees, yellow where it does not, cyan where
/// it is not known; truth without label red. Plain ASCII otherwise, and with NO_COLOR. A video that is too long for a
/// line is shown in pieces.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Video: its full name, or its first 11 characters where no other has them; one that begins with `-` comes after
    /// `--`
    video: String,
    /// Store
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Version of the store [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Annotation folder with the dense truth [default: the truth in the store]
    #[arg(long, value_name = "DIR")]
    annotations: Option<PathBuf>,
    /// Names of the classes in order, one a line [default: classes.txt of the annotations, or LLP's 25]
    #[arg(long, value_name = "FILE", env = "VAPLAN_CLASSES")]
    classes: Option<PathBuf>,
    /// Columns to use [default: those of the terminal, or 80]
    #[arg(long, value_name = "COLUMNS")]
    width: Option<usize>,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let annotations = annotations(args.annotations.as_deref(), args.classes.as_deref())?;
    if let Some(annotations) = &annotations {
        notes::report(&annotations.rejects, global.quiet);
    }
    let snapshot = Store::open(&args.store)?.at_version(args.version.map(StoreVersion))?;
    let timeline = read(&snapshot, &args.video, annotations.as_ref())?;
    let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let plain = anstream::AutoStream::choice(&std::io::stdout()) == ColorChoice::Never;
    let width = args.width.or_else(terminal).unwrap_or(WIDTH);
    render(&timeline, Look { plain, width }, out)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the annotation folder that is asked for, if one is.
pub(super) fn annotations(
    folder: Option<&Path>,
    classes: Option<&Path>,
) -> Result<Option<Annotations>, IngestError> {
    let classes = classes.map(read_classes).transpose()?;
    folder
        .map(|folder| Annotations::read_with_classes(folder, classes))
        .transpose()
}
