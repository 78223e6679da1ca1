//! `vaplan eval`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{RejectRow, Split};
use vaplan_schemas::store::Store;

use super::{Global, notes};
use crate::eval::{Prediction, Protocol, Task, Truth, evaluate, localize, predictions, store};

/// Score labels against dense truth
///
/// Scores are F-scores in percent, at segment level and at event level, of audible (A), visible (V) and audio-visual
/// (AV) events, with Type@AV and Event@AV: those of the public LLP evaluator, for any number of classes and segments.
/// Labels are scored as they are (protocol `labels`).
///
/// With --epoch, a training's predictions are scored instead. Published numbers differ in how these become 0s and 1s:
/// protocol `fused` asks that the segment's and the video's probability be at least 0.5 (HAN), `own` that the segment's and
/// the modality's be (MA, JoMoLD, LSLD).
///
/// The labels are those of a store, or of two folders (`--audio-labels`, `--visual-labels`) of npy files, `<first 11 characters of the video>.npy` or
/// `<video>.npy`, integers of shape (T, C), 0 or 1. A video without labels counts as nothing predicted, is reported,
/// and makes the exit status 1.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store whose labels are scored, unless label folders are given
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: Option<PathBuf>,
    /// Version of the store [default: the latest]
    #[arg(long, value_name = "N", requires = "store")]
    version: Option<u64>,
    /// Annotation folder with the dense truth [default: the truth in the store]
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "store",
        env = "VAPLAN_ANNOTATIONS"
    )]
    annotations: Option<PathBuf>,
    /// Names of the classes in order, one a line [default: classes.txt of the annotations, or LLP's 25]
    #[arg(long, value_name = "FILE", env = "VAPLAN_CLASSES")]
    classes: Option<PathBuf>,
    /// Folder of audio labels to score
    #[arg(
        long,
        value_name = "DIR",
        requires_all = ["annotations", "visual_labels"],
        required_unless_present = "store"
    )]
    audio_labels: Option<PathBuf>,
    /// Folder of visual labels to score
    #[arg(
        long,
        value_name = "DIR",
        requires_all = ["annotations", "audio_labels"],
        required_unless_present = "store"
    )]
    visual_labels: Option<PathBuf>,
    /// Epoch whose predictions are scored, not labels
    #[cfg(feature = "train")]
    #[arg(long, value_name = "N", requires = "store", conflicts_with_all = ["audio_labels", "visual_labels"])]
    epoch: Option<u64>,
    /// How an epoch's probabilities become 0s and 1s
    #[cfg(feature = "train")]
    #[arg(long, value_name = "PROTOCOL", default_value = "fused", requires = "epoch", value_parser = super::learning::gate())]
    protocol: crate::parser::Gate,
    /// Part of the data set to score: train, val or test
    #[arg(long, value_name = "SPLIT")]
    split: Split,
    /// What is scored; of `ave`, segment accuracy
    #[arg(long, value_name = "TASK", default_value = "avvp")]
    task: Task,
    /// Form of the result: a table with one decimal, or JSON unrounded
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Add the segment-level F-score of each class, its counts summed over all videos (task avvp)
    #[arg(long)]
    per_class: bool,
}

/// Form of the result.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if args.task == Task::Ave && args.per_class {
        anyhow::bail!("--per-class is of task avvp, expected it without --task ave");
    }
    let Inputs {
        truth,
        predictions,
        rejects,
        protocol,
    } = args.read()?;
    let rejected = notes::report(&rejects, global.quiet);
    if args.task == Task::Ave {
        let report = localize(&truth, &predictions, protocol)?;
        match args.format {
            Format::Table => write!(out, "{report}")?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        }
        if report.missing > 0 {
            let (count, all) = (report.missing, report.videos);
            eprintln!("vaplan: {count} of {all} videos lack labels of a modality, scored as background");
        }
        let complete = rejected == 0 && report.missing == 0;
        return Ok(if complete {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        });
    }
    let mut report = evaluate(&truth, &predictions, args.per_class)?;
    report.protocol = protocol;
    for (modality, missing) in [
        ("audio", &report.missing.audio),
        ("visual", &report.missing.visual),
    ] {
        if let Some(first) = missing.first() {
            let (count, all) = (missing.len(), report.videos);
            let have = if count == 1 { "has" } else { "have" };
            eprintln!(
                "vaplan: {count} of {all} videos {have} no {modality} labels, scored as nothing predicted; \
                 first `{first}`"
            );
        }
    }
    match args.format {
        Format::Table => write!(out, "{report}")?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    let complete = rejected == 0 && report.missing.is_empty();
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// What is scored, and against what.
struct Inputs {
    truth: Truth,
    /// One per video of the truth.
    predictions: Vec<Prediction>,
    /// Odd and rejected rows of the annotations and labels.
    rejects: Vec<RejectRow>,
    /// How predictions became 0s and 1s.
    protocol: Protocol,
}

impl Args {
    fn read(&self) -> anyhow::Result<Inputs> {
        let annotations = super::show::annotations(self.annotations.as_deref(), self.classes.as_deref())?;
        let mut rejects = Vec::new();
        #[cfg(feature = "train")]
        if let (Some(folder), Some(epoch)) = (&self.store, self.epoch) {
            let snapshot = Store::open(folder)?.at_version(self.version.map(StoreVersion))?;
            let truth = store::truth_of_snapshot(&snapshot, self.split, annotations.as_ref())?;
            let predicted = crate::parser::record::read(&snapshot, epoch)?;
            return Ok(Inputs {
                predictions: crate::parser::validate::labels(&truth, &predicted, |video| match self.task {
                    Task::Avvp => video.labels(self.protocol),
                    Task::Ave => video.single(self.protocol),
                }),
                truth,
                rejects: annotations.map_or_else(Vec::new, |annotations| annotations.rejects),
                protocol: self.protocol.protocol(),
            });
        }
        let (truth, predictions) = match (&self.store, &annotations, &self.audio_labels, &self.visual_labels)
        {
            (_, Some(annotations), Some(audio), Some(visual)) => {
                let truth = Truth::of_annotations(annotations, self.split)?;
                let (predictions, more) = predictions::of_folders(&truth, annotations, audio, visual)?;
                rejects = more;
                (truth, predictions)
            }
            (Some(folder), ..) => {
                let snapshot = Store::open(folder)?.at_version(self.version.map(StoreVersion))?;
                store::of_snapshot(&snapshot, self.split, annotations.as_ref())?
            }
            _ => anyhow::bail!("expected --store, or --annotations, --audio-labels and --visual-labels"),
        };
        rejects.splice(
            ..0,
            annotations
                .into_iter()
                .flat_map(|annotations| annotations.rejects),
        );
        Ok(Inputs {
            truth,
            predictions,
            rejects,
            protocol: Protocol::Labels,
        })
    }
}
