//! `vaplan eval`.

#[cfg(feature = "train")]
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{RejectRow, Split};
use vaplan_schemas::store::Store;
#[cfg(feature = "train")]
use vaplan_schemas::{store::Snapshot, tables::Videos};

use super::choice::choices;
use super::{Global, notes};
use crate::eval::store::ScoredSample;
use crate::eval::{
    DenseTruth, EvalReport, Localization, PredictedLabels, Protocol, Task, evaluate, localize, predictions,
    store,
};
#[cfg(feature = "train")]
use crate::parser::{Gate, probabilities::VideoProbabilities};

/// Score labels against dense truth
///
/// The command prints F-scores in percent of audible (A), visible (V) and audio-visual (AV) events, with Type@AV and
/// Event@AV, at segment level and at event level. The scores are those of the public LLP evaluator, for any number of
/// classes and segments. Labels are scored as they are (protocol labels).
///
/// With --epoch, the predictions of a trained parser are scored instead. Published numbers differ in how probabilities
/// become 0s and 1s. Protocol fused requires that the probabilities of the segment and of the video are at least 0.5
/// (HAN). Protocol own requires that the probabilities of the segment and of the modality are at least 0.5 (MA, JoMoLD,
/// LSLD).
///
/// The labels come from a store, or from two folders of npy files (--audio-labels and --visual-labels). A file is named
/// after the first 11 characters of the video or after its full name, and holds integers 0 or 1 of shape (T, C). A
/// video without labels is scored as nothing predicted, is reported, and makes the exit status 1.
///
/// Videos of a store without a weak label, whose candidate classes `label --candidates` guessed, are scored by themselves, after the
/// others; in JSON, under the key guessed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan eval --store store --split val,test
  vaplan eval --store store --split test --per-class --format json
  vaplan eval --annotations llp --audio-labels audio --visual-labels visual --split val")]
pub(super) struct EvalArgs {
    /// Store to read labels from, unless label folders are given
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: Option<PathBuf>,
    /// Store version to read [default: the latest]
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
    /// File with the class names in order, one per line [default: classes.txt of the annotations, or LLP's 25 classes]
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
    /// Epoch whose predictions are scored, instead of labels
    #[cfg(feature = "train")]
    #[arg(long, value_name = "N", requires = "store", conflicts_with_all = ["audio_labels", "visual_labels"])]
    epoch: Option<u64>,
    /// Rule by which probabilities become 0s and 1s
    #[cfg(feature = "train")]
    #[arg(long, value_name = "PROTOCOL", default_value = "fused", requires = "epoch", value_parser = super::learning::gate())]
    protocol: Gate,
    /// Splits to score, each by itself: train, val or test; several by comma
    #[arg(long, value_name = "SPLITS", value_delimiter = ',', required = true)]
    split: Vec<Split>,
    /// Task to score
    #[arg(long, value_name = "TASK", default_value = "avvp", value_parser = choices::<Task>())]
    task: Task,
    /// Format of the result: a table, or one JSON object for each split
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: EvalFormat,
    /// Add the segment-level F-score of each class, with counts summed over all videos (task avvp only)
    #[arg(long)]
    per_class: bool,
}

/// Format of the result.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum EvalFormat {
    /// A text table with one decimal.
    Table,
    /// JSON with unrounded numbers.
    Json,
}

pub(super) fn run(args: &EvalArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if args.task == Task::Ave && args.per_class {
        anyhow::bail!("--per-class is given with --task ave, expected --per-class only with --task avvp");
    }
    let several = args.split.len() > 1;
    let mut complete = true;
    for (position, &split) in args.split.iter().enumerate() {
        if let (true, EvalFormat::Table) = (several, args.format) {
            let space = if position > 0 { "\n" } else { "" };
            writeln!(out, "{space}split {split}")?;
        }
        complete &= score(args, split, global, out)?;
    }
    Ok(ExitCode::from(u8::from(!complete)))
}

/// Scores one split. Returns whether nothing was left out.
fn score(args: &EvalArgs, split: Split, global: &Global, out: &mut dyn Write) -> anyhow::Result<bool> {
    let EvalInputs {
        truth,
        predictions,
        rejects,
        protocol,
        guessed,
    } = args.read(split)?;
    let rejected = notes::report(&rejects, global.quiet);
    let [own, guessed] = store::apart((truth, predictions), &guessed);
    let mut complete = rejected == 0;
    let mut part = |sample: Option<ScoredSample>| -> anyhow::Result<Option<ScoredVideos>> {
        let Some(sample) = sample else { return Ok(None) };
        let (scored, all) = report(args, &sample, protocol)?;
        complete &= all;
        Ok(Some(scored))
    };
    let parts = ScoredParts {
        own: part(own)?,
        guessed: part(guessed)?,
    };
    match args.format {
        EvalFormat::Table => {
            if let Some(table) = &parts.own {
                write!(out, "{table}")?;
            }
            if let Some(table) = &parts.guessed {
                let space = if parts.own.is_some() { "\n" } else { "" };
                writeln!(
                    out,
                    "{space}videos without a weak label, whose candidate classes were guessed"
                )?;
                write!(out, "{table}")?;
            }
        }
        EvalFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&parts)?)?,
    }
    Ok(complete)
}

/// The scores of a split: of the videos with a weak label, and of those with guessed candidates.
#[derive(serde::Serialize)]
struct ScoredParts {
    #[serde(flatten)]
    own: Option<ScoredVideos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guessed: Option<ScoredVideos>,
}

/// The scores of a task.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum ScoredVideos {
    Avvp(Box<EvalReport>),
    Ave(Localization),
}

impl fmt::Display for ScoredVideos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScoredVideos::Avvp(report) => report.fmt(f),
            ScoredVideos::Ave(report) => report.fmt(f),
        }
    }
}

/// Scores some videos of a split. Returns also whether every video has labels.
fn report(
    args: &EvalArgs,
    (truth, predictions): &ScoredSample,
    protocol: Protocol,
) -> anyhow::Result<(ScoredVideos, bool)> {
    if args.task == Task::Ave {
        let report = localize(truth, predictions, protocol)?;
        if report.missing > 0 {
            let (count, all) = (report.missing, report.videos);
            super::stderr::tell(&format!(
                "{count} of {all} videos lack labels of a modality, scored as background"
            ));
        }
        let complete = report.missing == 0;
        return Ok((ScoredVideos::Ave(report), complete));
    }
    let mut report = evaluate(truth, predictions, args.per_class)?;
    report.protocol = protocol;
    for (modality, missing) in [
        ("audio", &report.missing.audio),
        ("visual", &report.missing.visual),
    ] {
        if let Some(first) = missing.first() {
            let (count, all) = (missing.len(), report.videos);
            let have = if count == 1 { "has" } else { "have" };
            super::stderr::tell(&format!(
                "{count} of {all} videos {have} no {modality} labels, scored as nothing predicted; \
                 first `{first}`"
            ));
        }
    }
    let complete = report.missing.is_empty();
    Ok((ScoredVideos::Avvp(Box::new(report)), complete))
}

/// Labels to score, and the truth to score them against.
struct EvalInputs {
    truth: DenseTruth,
    /// One entry per video of the truth, in its order.
    predictions: Vec<PredictedLabels>,
    /// Notes and rejected rows of the annotations and labels.
    rejects: Vec<RejectRow>,
    /// Protocol that turned predictions into 0s and 1s.
    protocol: Protocol,
    /// Videos without a weak label, whose candidates were guessed.
    guessed: BTreeSet<Arc<str>>,
}

impl EvalArgs {
    /// Checks that an epoch predicted the split, and has the probabilities that the protocol needs.
    #[cfg(feature = "train")]
    fn check_epoch(
        &self,
        split: Split,
        epoch: u64,
        snapshot: &Snapshot,
        truth: &DenseTruth,
        predicted: &[VideoProbabilities],
    ) -> anyhow::Result<()> {
        let protocol = self.protocol.as_str();
        let outside = predicted.iter().any(|video| video.all.is_empty());
        anyhow::ensure!(
            !outside || self.protocol == Gate::Segment,
            "epoch {epoch} came from outside and has no probabilities of whole videos, which protocol `{protocol}` needs: \
             choose `--protocol segment`"
        );
        let names: BTreeSet<&str> = predicted.iter().map(|video| &*video.video).collect();
        if truth.videos.iter().any(|video| names.contains(&*video.name)) {
            return Ok(());
        }
        let mut splits: BTreeMap<&str, usize> = BTreeMap::new();
        for row in snapshot.read::<Videos>()? {
            if names.contains(&*row.video) {
                *splits.entry(row.split.as_str()).or_default() += 1;
            }
        }
        let splits: Vec<String> = splits
            .iter()
            .map(|(split, videos)| format!("{videos} of split `{split}`"))
            .collect();
        anyhow::bail!(
            "epoch {epoch} predicted no video of split `{split}` that has dense truth. It predicted {}: choose another split \
             or epoch",
            if splits.is_empty() {
                "no video of this version".to_owned()
            } else {
                splits.join(", ")
            }
        )
    }

    fn read(&self, split: Split) -> anyhow::Result<EvalInputs> {
        let annotations = super::show::annotations(self.annotations.as_deref(), self.classes.as_deref())?;
        let mut rejects = Vec::new();
        let mut guessed = BTreeSet::new();
        #[cfg(feature = "train")]
        if let (Some(folder), Some(epoch)) = (&self.store, self.epoch) {
            let snapshot = Store::open(folder)?.at_version(self.version.map(StoreVersion))?;
            let truth = store::truth_of_snapshot(&snapshot, split, annotations.as_ref())?;
            let predicted = crate::parser::record::read(&snapshot, epoch)?;
            self.check_epoch(split, epoch, &snapshot, &truth, &predicted)?;
            return Ok(EvalInputs {
                predictions: crate::parser::validate::labels(&truth, &predicted, |video| match self.task {
                    Task::Avvp => video.labels(self.protocol),
                    Task::Ave => video.single(self.protocol),
                }),
                truth,
                rejects: annotations.map_or_else(Vec::new, |annotations| annotations.rejects),
                protocol: self.protocol.protocol(),
                guessed: store::guessed(&snapshot)?,
            });
        }
        let (truth, predictions) = match (&self.store, &annotations, &self.audio_labels, &self.visual_labels)
        {
            (_, Some(annotations), Some(audio), Some(visual)) => {
                let truth = DenseTruth::of_annotations(annotations, split)?;
                let (predictions, more) = predictions::of_folders(&truth, annotations, audio, visual)?;
                rejects = more;
                (truth, predictions)
            }
            (Some(folder), ..) => {
                let snapshot = Store::open(folder)?.at_version(self.version.map(StoreVersion))?;
                guessed = store::guessed(&snapshot)?;
                store::of_snapshot(&snapshot, split, annotations.as_ref())?
            }
            _ => anyhow::bail!("expected --store, or --annotations, --audio-labels and --visual-labels"),
        };
        rejects.splice(
            ..0,
            annotations
                .into_iter()
                .flat_map(|annotations| annotations.rejects),
        );
        Ok(EvalInputs {
            truth,
            predictions,
            rejects,
            protocol: Protocol::Labels,
            guessed,
        })
    }
}
