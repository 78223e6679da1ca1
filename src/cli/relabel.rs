//! `vaplan relabel` and `vaplan plan`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use vaplan_dataflows::CandidateRule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::LabelChangeRow;

use super::choice::choices;
use super::cluster::{ClusterArgs, followed, starting};
use super::paths::path_or_url;
use super::progress::Bar;
use super::report_format::{ReportFormat, print_json};
use super::rule::RuleArgs;
use super::{Global, notes, workers};
use crate::engine::cluster::outcome::ClusterOutcome;
use crate::engine::rebase::{self, RebaseRequest};
use crate::engine::{Listener, Progress};
use crate::relabel::{self, RelabelRequest, RelabelSummary, estimate};
use crate::world::changes::{ChangeRows, Changes, WeakEdit, of_class};
use crate::world::settings::{ClassThreshold, RuleName, SettingsRequest, ThresholdsFile};

/// Change a store, at a cost that depends on what the change touches
///
/// The command takes any number of changes and commits them as one store version. The table label_changes lists the
/// labels that changed. The tables equal, row for row, those of a new store that is labelled with the changed inputs
/// and settings. The command does not read rows that the changes cannot touch. If nothing changes, it commits nothing.
///
/// Bad rows of the given files are left out, listed in the table rejects, and make the exit status 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan relabel --store store --threshold visual/Dog=1.1
  vaplan relabel --store store --user corrections.csv --dry-run
  vaplan relabel --store store --user edited.eaf --user label-studio.json
  vaplan relabel --store store --predictions epoch-7 --epoch 7 --denoise visual
  vaplan relabel --store store --weak-add new_videos.csv --visual clip --audio clap")]
pub(super) struct Args {
    /// Store to change
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    #[command(flatten)]
    changes: ChangeArgs,
    /// Record that the inputs below folder OLD are below folder NEW now. No label changes
    ///
    /// OLD is the path that the table settings states. The command replaces OLD in the paths of features, weak labels
    /// and rejected rows. It refuses NEW if a file is missing there, or if its features do not give the scores of the
    /// store. `.=FOLDER` is for stores of older programs, which recorded relative paths. OLD must not contain `=`. No
    /// other change can be made in the same command.
    #[arg(long, value_name = "OLD=NEW", value_parser = old_new)]
    rebase: Option<(PathBuf, PathBuf)>,
    /// Print the labels that would change, one per line with + or -, and commit nothing
    #[arg(long)]
    dry_run: bool,
    /// Number of dataflow workers; it does not change the tables [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_WORKERS")]
    workers: Option<std::num::NonZeroUsize>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Estimate what a change would touch, or list what a run would do
///
/// The command takes the same changes as `relabel`. It prints which rows the changes can touch: videos, files, bytes,
/// and seconds. The seconds are estimated from how fast this machine read the keys of these rows. With the file of a
/// `run`, the command lists which stages are done and which a run would do. It writes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// File of a `run`, to list its stages instead of estimating changes
    #[cfg(feature = "train")]
    #[arg(value_name = "CONFIG", conflicts_with = "store")]
    pub(super) config: Option<PathBuf>,
    /// Store to read
    #[cfg_attr(
        feature = "train",
        arg(
            long,
            value_name = "DIR",
            env = "VAPLAN_STORE",
            required_unless_present = "config"
        )
    )]
    #[cfg_attr(
        not(feature = "train"),
        arg(long, value_name = "DIR", env = "VAPLAN_STORE", required = true)
    )]
    store: Option<PathBuf>,
    #[command(flatten)]
    changes: ChangeArgs,
    /// Format of the plan
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(super) format: ReportFormat,
}

/// The changes of a store.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Changes")]
struct ChangeArgs {
    /// Threshold of one class, such as visual/Dog=1.1; may be given several times
    #[arg(long, value_name = "MODALITY/CLASS=R", value_parser = of_class::<f64>)]
    threshold: Vec<(Modality, Arc<str>, f64)>,
    /// Threshold of every visual class: relative to uniform (softmax), or the logit itself [default: the store's
    /// setting]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    visual_threshold: Option<f64>,
    /// Threshold of every audio class, as --visual-threshold [default: the store's setting]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    audio_threshold: Option<f64>,
    /// TOML file with rule, scale and thresholds, as for `label`; a setting that the file does not name stays
    #[arg(long, value_name = "FILE")]
    thresholds: Option<PathBuf>,
    /// Rule that turns cosines into scores [default: the store's setting]
    #[arg(long, value_name = "RULE", value_parser = choices::<RuleName>())]
    rule: Option<RuleName>,
    /// Classes that can be labelled in a video without a weak label, as for `label`: weak, all or top:K [default: the store's
    /// setting]
    #[arg(long, value_name = "RULE")]
    candidates: Option<CandidateRule>,
    /// Factor that multiplies visual cosines [default: the store's setting]
    #[arg(long, value_name = "K")]
    visual_scale: Option<f64>,
    /// Factor that multiplies audio cosines [default: the store's setting]
    #[arg(long, value_name = "K")]
    audio_scale: Option<f64>,
    /// CSV file with new weak labels, which replace those of its videos; new videos are added. Columns: filename,
    /// event_labels, and split if it is not train. May be given several times
    #[arg(long, value_name = "CSV")]
    weak: Vec<PathBuf>,
    /// CSV file with classes to add to weak labels. Columns: filename, event_labels. May be given several times
    #[arg(long, value_name = "CSV")]
    weak_add: Vec<PathBuf>,
    /// CSV file with classes to remove from weak labels; a row without event_labels removes its video. May be given
    /// several times
    #[arg(long, value_name = "CSV")]
    weak_remove: Vec<PathBuf>,
    /// File with the new class names in order, one per line; a class that it does not list retires
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Visual text embeddings of all classes: npy (C,D), or Parquet with class and feature
    #[arg(long, value_name = "FILE")]
    visual_text: Option<PathBuf>,
    /// Audio text embeddings of all classes, as --visual-text
    #[arg(long, value_name = "FILE")]
    audio_text: Option<PathBuf>,
    /// Text embedding of one class: npy (D,); may be given several times
    #[arg(long, value_name = "MODALITY/CLASS=NPY", value_parser = path_of_class)]
    prompt: Vec<(Modality, Arc<str>, PathBuf)>,
    /// Visual features to read: a folder or file that is new, or that changed or was deleted since it was read. May be
    /// given several times
    #[arg(long, value_name = "PATH")]
    visual: Vec<PathBuf>,
    /// Audio features, as --visual
    #[arg(long, value_name = "PATH")]
    audio: Vec<PathBuf>,
    /// Visual features to remove: an input of the store. May be given several times
    #[arg(long, value_name = "PATH")]
    remove_visual: Vec<PathBuf>,
    /// Audio features to remove, as --remove-visual
    #[arg(long, value_name = "PATH")]
    remove_audio: Vec<PathBuf>,
    /// File with labels that a person set: CSV, an ELAN file (.eaf), or Label Studio's export in format JSON. Columns of
    /// CSV: video, modality, class, label (0, 1 or withdraw), and either segment, or onset and offset in segments, or
    /// start_seconds and end_seconds. May be given several times
    #[arg(long, value_name = "FILE")]
    user: Vec<PathBuf>,
    /// Predictions of epoch --epoch: a folder with audio/<id>.npy and visual/<id>.npy (T,C), or Parquet with video,
    /// modality, segment, probability
    #[arg(long, value_name = "PATH", requires = "epoch")]
    predictions: Option<PathBuf>,
    /// Number of the epoch of --predictions, at least 1
    #[arg(long, value_name = "N", requires = "predictions", value_parser = clap::value_parser!(u64).range(1..=crate::world::resolve::MOST_EPOCH))]
    epoch: Option<u64>,
    /// Modalities whose labels predictions may flip: visual, audio, both, or none [default: the
    /// store's setting, or visual for the first epoch]
    #[arg(long, value_name = "MODALITIES", value_delimiter = ',')]
    denoise: Option<Vec<DenoisedModality>>,
    #[command(flatten)]
    denoising: RuleArgs,
    /// Commit also if most videos lose all labels of a modality, because their features are missing or cannot be used
    #[arg(long)]
    allow_missing: bool,
    /// Store version whose rule, thresholds, prompts and denoising settings are restored, in a new version
    #[arg(long, value_name = "N")]
    to_version: Option<u64>,
}

/// A value of `--denoise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DenoisedModality {
    /// Audio labels.
    Audio,
    /// Visual labels.
    Visual,
    /// Labels of both modalities.
    Both,
    /// No labels; the store also forgets the rule and its parameters.
    None,
}

impl ChangeArgs {
    /// The modalities of `--denoise`; an empty list for `none`.
    fn denoised(&self) -> anyhow::Result<Option<Vec<Modality>>> {
        let Some(given) = &self.denoise else {
            return Ok(None);
        };
        anyhow::ensure!(
            given.len() == 1 || !given.contains(&DenoisedModality::None),
            "--denoise names `none` beside a modality, expected `none` alone"
        );
        let modalities = |own: &DenoisedModality| match own {
            DenoisedModality::Audio => &[Modality::Audio][..],
            DenoisedModality::Visual => &[Modality::Visual],
            DenoisedModality::Both => &Modality::ALL,
            DenoisedModality::None => &[],
        };
        let mut modalities: Vec<Modality> = given.iter().flat_map(modalities).copied().collect();
        modalities.sort();
        modalities.dedup();
        Ok(Some(modalities))
    }

    fn changes(&self) -> anyhow::Result<Changes> {
        let mut rows = ChangeRows::default();
        let weak = [
            (WeakEdit::Set, &self.weak),
            (WeakEdit::Add, &self.weak_add),
            (WeakEdit::Remove, &self.weak_remove),
        ];
        for (edit, files) in weak {
            for file in files {
                rows.read_weak(edit, file)?;
            }
        }
        for file in &self.user {
            rows.read_user(file)?;
        }
        if let Some(file) = &self.classes {
            rows.read_classes(file)?;
        }
        let texts = [
            (Modality::Audio, &self.audio_text),
            (Modality::Visual, &self.visual_text),
        ];
        for (modality, file) in texts {
            if let Some(file) = file {
                rows.read_text(modality, file)?;
            }
        }
        for (modality, class, file) in &self.prompt {
            rows.read_prompt(*modality, class, file)?;
        }
        if let Some((path, epoch)) = self.predictions.as_ref().zip(self.epoch) {
            rows.read_predictions(path, epoch)?;
        }
        let thresholds = self
            .threshold
            .iter()
            .map(|(modality, class, threshold)| ClassThreshold {
                modality: *modality,
                class: class.clone(),
                threshold: *threshold,
            });
        Ok(Changes {
            settings: SettingsRequest {
                rule: self.rule,
                visual_threshold: self.visual_threshold,
                audio_threshold: self.audio_threshold,
                visual_scale: self.visual_scale,
                audio_scale: self.audio_scale,
                file: self.thresholds.as_deref().map(ThresholdsFile::read).transpose()?,
                fit: false,
                candidates: self.candidates,
                event_shares: Default::default(),
            },
            thresholds: thresholds.collect(),
            rows,
            features: [self.audio.clone(), self.visual.clone()],
            removed: [self.remove_audio.clone(), self.remove_visual.clone()],
            epoch: None,
            denoising: self.denoising.request(self.denoised()?)?,
            to_version: self.to_version,
            delivered: Vec::new(),
            allow_missing: self.allow_missing,
            ..Changes::default()
        })
    }

    fn some(&self) -> anyhow::Result<Changes> {
        let changes = self.changes()?;
        anyhow::ensure!(
            !changes.is_empty(),
            "no change is named, expected at least one: see --help"
        );
        Ok(changes)
    }
}

/// Reads `OLD=NEW`.
fn old_new(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => {
            Ok((path_or_url(old.as_ref())?, path_or_url(new.as_ref())?))
        }
        _ => Err(format!(
            "`{text}`, expected OLD=NEW, such as `/data/clip=/mnt/clip`"
        )),
    }
}

fn path_of_class(text: &str) -> Result<(Modality, Arc<str>, PathBuf), String> {
    let (modality, class, path) = of_class::<PathBuf>(text)?;
    Ok((modality, class, path_or_url(&path)?))
}

fn rebase(
    args: &Args,
    (from, to): &(PathBuf, PathBuf),
    global: &Global,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.changes.changes()?.is_empty() && !args.dry_run,
        "--rebase with other changes or with --dry-run, expected --rebase alone: run relabel twice"
    );
    let (bar, listener) = listener("comparing features", global);
    let request = RebaseRequest {
        store: args.store.clone(),
        from: from.clone(),
        to: to.clone(),
        workers: workers(args.workers),
        command: global.command_line(),
    };
    let summary = rebase::run(&request, &listener)?;
    bar.finish();
    writeln!(
        out,
        "version {}: {} feature inputs moved to `{}`, with the files of {} videos; no label changed",
        summary.version.version,
        summary.inputs,
        to.display(),
        summary.videos
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    args.cluster.serve("relabel")?;
    let cluster = args.cluster.settings()?;
    anyhow::ensure!(
        cluster.is_none() || (args.rebase.is_none() && !args.dry_run),
        "--rebase and --dry-run are the work of one process, expected them without --hosts"
    );
    if let Some(moves) = &args.rebase {
        return rebase(args, moves, global, out);
    }
    let (bar, listener) = listener("relabelling", global);
    let request = RelabelRequest {
        store: args.store.clone(),
        changes: args.changes.some()?,
        workers: workers(args.workers),
        dry_run: args.dry_run,
        command: global.command_line(),
    };
    let outcome = match cluster {
        Some(settings) => {
            starting(&settings, &bar);
            relabel::cluster::run(&request, &settings, &listener)?
        }
        None => ClusterOutcome::Led(Box::new(relabel::run(&request, &listener)?)),
    };
    let summary = match outcome {
        ClusterOutcome::Led(summary) => *summary,
        ClusterOutcome::Followed { version, rejects } => {
            bar.finish();
            return followed(version, rejects, out);
        }
    };
    bar.finish();
    print_changes(&summary.changes, out)?;
    let rejected = notes::report(&summary.rejected, global.quiet);
    if summary.version.is_none() && request.changes.has_no_correction() {
        writeln!(
            out,
            "nothing changed, and no version was made: the files have no correction that can be used"
        )?;
    } else if !args.dry_run {
        print_version(&summary, out)?;
    }
    Ok(if rejected > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// Returns a progress bar of shards, and the listener that updates it.
pub(super) fn listener(doing: &'static str, global: &Global) -> (Arc<Bar>, Listener) {
    let bar = Arc::new(Bar::new(doing, "shards", global));
    let own_bar = bar.clone();
    let listener = Listener::new(move |progress| match progress {
        Progress::Waiting(holder) => own_bar.say(&format!("waiting: the store is being written by {holder}")),
        Progress::Planned { shards, .. } => own_bar.total(shards as u64),
        Progress::Shard { .. } => own_bar.add(1),
        Progress::Committing => own_bar.message("committing"),
    });
    (bar, listener)
}

/// Prints one line for each label that changes, with + or -.
pub(super) fn print_changes(changes: &[LabelChangeRow], out: &mut dyn Write) -> std::io::Result<()> {
    for row in changes {
        let sign = if row.to { '+' } else { '-' };
        let (video, modality, class, segment) = (&row.video, row.modality, &row.class, row.segment);
        writeln!(
            out,
            "{sign} {video}\t{modality}\t{class}\t{segment}\t{}",
            row.rule.as_str()
        )?;
    }
    Ok(())
}

/// Prints the version that was committed, and what it changed.
pub(super) fn print_version(summary: &RelabelSummary, out: &mut dyn Write) -> std::io::Result<()> {
    match &summary.version {
        Some(version) => writeln!(
            out,
            "version {}: {} labels set, {} unset; {} videos looked at, and tracks of {} others",
            version.version, summary.set, summary.unset, summary.videos.0, summary.videos.1
        ),
        None => writeln!(out, "nothing to do: the store holds what the change asks for"),
    }
}

#[cfg(feature = "train")]
impl PlanArgs {
    /// Returns whether the command plans a run, not a change of a store.
    pub(super) fn of_a_run(&self) -> bool {
        self.config.is_some()
    }
}

/// The estimate as JSON.
fn json(estimate: &estimate::Estimate) -> serde_json::Value {
    let tables = estimate.tables.iter().map(|(table, extent)| {
        let value = serde_json::json!({
            "rows": extent.rows,
            "videos": extent.videos,
            "files": extent.files,
            "bytes": extent.bytes,
        });
        ((*table).to_owned(), value)
    });
    serde_json::json!({
        "everything": estimate.everything,
        "videos": estimate.videos,
        "rescored": estimate.rescored,
        "tracks": estimate.tracks,
        "tables": tables.collect::<serde_json::Map<_, _>>(),
        "feature_files": estimate.features.0,
        "feature_bytes": estimate.features.1,
        "seconds": estimate.seconds,
    })
}

/// Estimates the work of a change. `run::plan` plans a run.
pub(super) fn plan(args: &PlanArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let store = args.store.as_ref().context("expected --store")?;
    let estimate = estimate::estimate(store, &args.changes.some()?)?;
    match args.format {
        ReportFormat::Table => write!(out, "{estimate}")?,
        ReportFormat::Json => print_json(&json(&estimate), out)?,
    }
    Ok(ExitCode::SUCCESS)
}
