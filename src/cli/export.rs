//! `vaplan export`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::Split;

use super::Global;
use super::choice::choices;
use crate::choice::Choice;
use crate::export::{self, ExportFormat, ExportRequest};

/// Write the labels of a store in the formats of other programs
///
/// `valor` writes audio/<id>.npy and visual/<id>.npy of shape (T, C), int64, for every video, also for a video without a
/// set label; the id is the first 11 characters of the name, or the full name if several videos have these characters.
/// `llp-csv` writes annotation files as LLP has them, with the labels as dense events. `activitynet` writes labels.json.
/// `huggingface` writes Parquet files and a dataset card. `label-studio` writes tasks with the labels as predictions, and the
/// labelling configuration; `elan` writes one .eaf file per video. `relabel --user` reads the annotations of Label Studio
/// and edited .eaf files back. `fiftyone`, `textgrid`, `audacity`, `webvtt` and `csv` write events with onset and offset.
/// The folder must not exist, or be empty; it appears complete or not at all.
///
/// A video whose name cannot be a file name, and a class whose name the format cannot hold, are left out and listed, and
/// the exit status is then 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan export --store store --format valor --out labels
  vaplan export --store store --format huggingface --split train --out dataset
  vaplan export --store store --format label-studio --media '/data/local-files/?d=videos/{video}.mp4' --out tasks
  vaplan export --store store --format elan --media /videos/{id}.mp4 --out eaf")]
pub(super) struct ExportArgs {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Format to write
    #[arg(long, value_name = "FORMAT", value_parser = choices::<ExportFormat>())]
    format: ExportFormat,
    /// Splits to write: train, val or test; several by comma [default: all]
    #[arg(long, value_name = "SPLITS", value_delimiter = ',')]
    split: Vec<Split>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Path or URL of the media of a video, for label-studio, fiftyone and elan; {video} stands for the full name and {id}
    /// for its first 11 characters. In a URL, the name is percent-encoded
    #[arg(long, value_name = "TEMPLATE", default_value = export::MEDIA)]
    media: String,
    /// Frames per second of the media, for label-studio and fiftyone, which count frames
    #[arg(long, value_name = "RATE", default_value_t = export::FRAME_RATE)]
    frame_rate: f64,
}

pub(super) fn run(args: &ExportArgs, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = ExportRequest {
        store: args.store.clone(),
        version: args.version.map(StoreVersion),
        splits: match args.split.as_slice() {
            [] => Split::ALL.to_vec(),
            splits => splits.to_vec(),
        },
        format: args.format,
        out: args.out.clone(),
        media: args.media.clone(),
        frame_rate: args.frame_rate,
    };
    let summary = export::run(&request)?;
    writeln!(
        out,
        "{} videos of version {} in {}",
        summary.videos,
        summary.version,
        args.out.display()
    )?;
    for (video, reason) in &summary.left_out {
        super::stderr::tell(&format!("video `{video}` was left out: {reason}"));
    }
    for class in &summary.left_out_classes {
        super::stderr::tell(&format!(
            "class `{}` was left out: its name has a control character, expected none in format {}",
            class.escape_debug(),
            args.format.name()
        ));
    }
    let all = summary.left_out.is_empty() && summary.left_out_classes.is_empty();
    Ok(ExitCode::from(u8::from(!all)))
}
