//! `vaplan label`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use vaplan_dataflows::CandidateRule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::Global;
use super::choice::choices;
use super::cluster::{ClusterArgs, followed, starting};
use super::notes;
use super::progress::Bar;
use crate::engine::cluster::outcome::ClusterOutcome;
use crate::engine::{Listener, Progress};
use crate::ingest::features::ColumnNames;
use crate::label::cluster;
use crate::label::{self, LabelRequest};
use crate::world::settings::{RuleName, SettingsRequest, ThresholdsFile};
use crate::world::shares::EventShares;

/// Label feature shards, or media, into a store
///
/// The command compares every segment's feature with the text embedding of every class, and commits scores and pseudo
/// labels as one store version. A label can be set only for classes of the video's weak label, or with --candidates for
/// classes that are guessed from the scores of a video without one. The new version holds
/// exactly the splits of --split. A second run with the same input commits nothing. A run after an interrupted one
/// reuses the shards that were scored.
///
/// With --media, --clip and --clap, features are encoded from videos, frames and sound into the store, as `vaplan
/// encode` does. Segments that are already encoded are reused. A changed prompt, threshold or rule encodes no media
/// again.
///
/// Rejected rows and files are left out, listed in the table rejects, and make the exit status 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan label --store store --annotations llp --visual clip --visual-text clip_text.npy --audio clap --audio-text clap_text.npy
  vaplan label --store store --annotations llp --media videos --clip clip-model --clap clap-model
  vaplan label --store store --annotations llp --pseudo-labels valor/visual valor/audio")]
pub(super) struct LabelArgs {
    /// Store to write; the command creates it if it does not exist
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Annotations in LLP's format: *train.csv, *val_pd.csv, *test_pd.csv, *eval_audio.csv, *eval_visual.csv
    #[arg(long, value_name = "DIR", env = "VAPLAN_ANNOTATIONS")]
    annotations: PathBuf,
    /// File with the class names in order, one per line [default: classes.txt of the annotations, or LLP's 25 classes]
    #[arg(long, value_name = "FILE", env = "VAPLAN_CLASSES")]
    classes: Option<PathBuf>,
    /// Visual features: a folder of <id>.npy (T,D), a folder of Parquet shards, or one Parquet file
    #[arg(long, value_name = "PATH", env = "VAPLAN_VISUAL", requires = "visual_text")]
    visual: Option<PathBuf>,
    /// Visual text embeddings: npy (C,D), or Parquet with class and feature
    #[arg(long, value_name = "FILE", env = "VAPLAN_VISUAL_TEXT")]
    visual_text: Option<PathBuf>,
    /// Audio features, as --visual
    #[arg(long, value_name = "PATH", env = "VAPLAN_AUDIO", requires = "audio_text")]
    audio: Option<PathBuf>,
    /// Audio text embeddings, as --visual-text
    #[arg(long, value_name = "FILE", env = "VAPLAN_AUDIO_TEXT")]
    audio_text: Option<PathBuf>,
    /// Labels of another program instead of features: two folders of <id>.npy (T,C) of 0 and 1 (integers, booleans or
    /// floats), visual first. A label of a class that the weak label lacks is not set
    #[arg(
        long,
        value_names = ["VISUAL_DIR", "AUDIO_DIR"],
        num_args = 2,
        conflicts_with_all = ["visual", "audio", "rule", "visual_threshold", "audio_threshold", "visual_scale", "audio_scale", "thresholds", "fit_thresholds", "candidates", "columns", "hosts"]
    )]
    pseudo_labels: Option<Vec<PathBuf>>,
    /// Splits to label
    #[arg(
        long,
        value_name = "SPLITS",
        value_delimiter = ',',
        default_value = "train,val,test",
        env = "VAPLAN_SPLIT"
    )]
    split: Vec<Split>,
    /// Rule that turns cosines into scores [default: softmax]
    #[arg(long, value_name = "RULE", env = "VAPLAN_RULE", value_parser = choices::<RuleName>())]
    rule: Option<RuleName>,
    /// Threshold of every visual class: relative to uniform (softmax, default 1.025), or the logit itself
    #[arg(
        long,
        value_name = "R",
        env = "VAPLAN_VISUAL_THRESHOLD",
        allow_negative_numbers = true
    )]
    visual_threshold: Option<f64>,
    /// Threshold of every audio class: relative to uniform (softmax, default 0.95), or the logit itself
    #[arg(
        long,
        value_name = "R",
        env = "VAPLAN_AUDIO_THRESHOLD",
        allow_negative_numbers = true
    )]
    audio_threshold: Option<f64>,
    /// Factor that multiplies visual cosines [default: 1 for softmax, 100 for logit]
    #[arg(long, value_name = "K", env = "VAPLAN_VISUAL_SCALE")]
    visual_scale: Option<f64>,
    /// Factor that multiplies audio cosines [default: 1 for softmax, 18.66 for logit]
    #[arg(long, value_name = "K", env = "VAPLAN_AUDIO_SCALE")]
    audio_scale: Option<f64>,
    /// TOML file with rule, scale, default and per-class thresholds; flags override its values
    #[arg(long, value_name = "FILE", env = "VAPLAN_THRESHOLDS")]
    thresholds: Option<PathBuf>,
    /// Fit a threshold for each class and modality to the features and the weak labels, without dense truth. A class that
    /// fewer than 20 videos have, or that the features do not tell, keeps the threshold of the other flags
    #[arg(long, env = "VAPLAN_FIT_THRESHOLDS")]
    fit_thresholds: bool,
    /// Classes that can be labelled in a video without a weak label (an empty event_labels): weak (none), all, or top:K, the K
    /// classes with the highest scores in both modalities together [default: weak]
    #[arg(long, value_name = "RULE", env = "VAPLAN_CANDIDATES")]
    candidates: Option<CandidateRule>,
    /// With --fit-thresholds: the share of the segments of a class's videos that have the audio event, above 0 and below 1. The
    /// threshold of each class is then the quantile of its scores that leaves this share above [default: estimated]
    #[arg(long, value_name = "SHARE", requires = "fit_thresholds", value_parser = event_share, env = "VAPLAN_AUDIO_EVENT_SHARE")]
    audio_event_share: Option<f64>,
    /// With --fit-thresholds: the same for the visual event [default: estimated]
    #[arg(long, value_name = "SHARE", requires = "fit_thresholds", value_parser = event_share, env = "VAPLAN_VISUAL_EVENT_SHARE")]
    visual_event_share: Option<f64>,
    /// Length of a segment in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        env = "VAPLAN_SEGMENT_SECONDS"
    )]
    segment_seconds: f64,
    /// Names of the columns of Parquet features that differ from video, segment, modality and feature, such as
    /// video=id,feature=embedding. The store records them
    #[arg(long, value_name = "COLUMN=NAME,..", env = "VAPLAN_COLUMNS")]
    columns: Option<ColumnNames>,
    /// Commit also if most videos of the store lose all labels of a modality, because their features are missing or
    /// cannot be used
    #[arg(long)]
    allow_missing: bool,
    /// Number of dataflow workers; it does not change the tables [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_WORKERS")]
    workers: Option<std::num::NonZeroUsize>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[cfg(feature = "encode")]
    #[command(flatten)]
    media: super::media::MediaArgs,
    /// Commit the labels of the videos that are encoded already after this number of videos (`5000`) or this time (`30s`,
    /// `10m`, `2h`), while other videos are being encoded; whole buckets only, of about 1,024 videos each. Needs --media
    /// [default: one version at the end]
    #[cfg(feature = "encode")]
    #[arg(
        long,
        value_name = "N|TIME",
        env = "VAPLAN_COMMIT_EVERY",
        help_heading = "Media"
    )]
    commit_every: Option<crate::label::early::CommitEvery>,
}

impl LabelArgs {
    /// Refuses arguments that name no features of a modality, or both features and a model.
    fn check(&self) -> anyhow::Result<()> {
        if self.pseudo_labels.is_some() {
            #[cfg(feature = "encode")]
            anyhow::ensure!(
                !self.media.any(),
                "--pseudo-labels and --media are given, expected one of them"
            );
            return Ok(());
        }
        for (modality, features, model) in [
            (Modality::Visual, &self.visual, "--clip"),
            (Modality::Audio, &self.audio, "--clap"),
        ] {
            #[cfg(feature = "encode")]
            let media = self.media.has(modality);
            #[cfg(not(feature = "encode"))]
            let media = false;
            anyhow::ensure!(
                features.is_some() || media,
                "no {modality} features are given, expected --{modality} and --{modality}-text, or --media and {model}"
            );
            anyhow::ensure!(
                features.is_none() || !media,
                "{modality} features are given twice, expected either --{modality} or {model}"
            );
        }
        #[cfg(feature = "encode")]
        anyhow::ensure!(
            self.commit_every.is_none() || self.media.any(),
            "--commit-every without media, expected --media: features alone are labelled as one version"
        );
        #[cfg(feature = "encode")]
        anyhow::ensure!(
            !self.cluster.given() || !self.media.any(),
            "--media is one process's work, expected `vaplan encode` first, and its features for --hosts"
        );
        Ok(())
    }

    /// Encodes media into the store. The caller must hold the returned value until the media are labelled, because it
    /// locks the encoded features.
    #[cfg(feature = "encode")]
    fn encode(
        &self,
        request: &mut LabelRequest,
        global: &Global,
    ) -> anyhow::Result<Option<crate::encode::EncodedMedia>> {
        use crate::encode;
        if !self.media.any() {
            return Ok(None);
        }
        let asked = encode::EncodeRequest {
            annotations: Some(self.annotations.clone()),
            classes: self.classes.clone(),
            splits: self.split.clone(),
            ..self.media.request(self.segment_seconds)?
        };
        let bar = Arc::new(Bar::new("encoding", "videos", global));
        let listener = super::media::MediaArgs::listener(&bar);
        let labelling = encode::StreamedLabelling {
            request: request.clone(),
            commit_every: self.commit_every,
        };
        let encoded = encode::into_store(&self.store, &asked, &labelling, &listener)?;
        bar.finish();
        let summary = &encoded.summary;
        let known = summary.segments().saturating_sub(summary.encoded);
        bar.say(&format!(
            "encoded {} segments and {} prompts; {known} segments were in the cache",
            summary.encoded, summary.prompts
        ));
        encoded.fill(request);
        Ok(Some(encoded))
    }

    fn request(&self, global: &Global) -> anyhow::Result<LabelRequest> {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Ok(LabelRequest {
            store: self.store.clone(),
            annotations: self.annotations.clone(),
            classes: self.classes.clone(),
            visual: self.visual.clone().unwrap_or_default(),
            visual_text: self.visual_text.clone().unwrap_or_default(),
            audio: self.audio.clone().unwrap_or_default(),
            audio_text: self.audio_text.clone().unwrap_or_default(),
            label_folders: [None, None],
            left_out: Vec::new(),
            splits: self.split.clone(),
            segment_seconds: self.segment_seconds,
            settings: SettingsRequest {
                rule: self.rule,
                visual_threshold: self.visual_threshold,
                audio_threshold: self.audio_threshold,
                visual_scale: self.visual_scale,
                audio_scale: self.audio_scale,
                file: self.thresholds.as_deref().map(ThresholdsFile::read).transpose()?,
                fit: self.fit_thresholds,
                candidates: self.candidates,
                event_shares: EventShares([self.audio_event_share, self.visual_event_share]),
            },
            allow_missing: self.allow_missing,
            columns: self.columns.clone().unwrap_or_default(),
            workers: self.workers.map_or_else(cores, |workers| workers.get()),
            command: global.command_line(),
        })
    }
}

/// A share of segments.
fn event_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    EventShares::check(share)
}

pub(super) fn run(args: &LabelArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    args.check()?;
    let mut request = args.request(global)?;
    if let Some([visual, audio]) = args.pseudo_labels.as_deref() {
        label::import_labels(&mut request, [audio, visual])?;
    }
    #[cfg(feature = "encode")]
    let _encoded = args.encode(&mut request, global)?;
    let bar = Arc::new(Bar::new("labelling", "shards", global));
    let own_bar = bar.clone();
    let listener = Listener::new(move |progress| match progress {
        Progress::Waiting(holder) => own_bar.say(&format!("waiting: the store is being written by {holder}")),
        Progress::Planned { shards, staged } => {
            own_bar.total(shards as u64);
            own_bar.add(staged as u64);
            if staged > 0 {
                own_bar.say(&format!(
                    "going on: {staged} of {shards} shards were scored by a run before"
                ));
            }
        }
        Progress::Shard { .. } => own_bar.add(1),
        Progress::Committing => own_bar.message("committing"),
    });
    args.cluster.serve("label")?;
    let outcome = match args.cluster.settings()? {
        Some(settings) => {
            starting(&settings, &bar);
            cluster::run(&request, &settings, &listener)?
        }
        None => ClusterOutcome::Led(Box::new(label::run(&request, &listener)?)),
    };
    bar.finish();
    let summary = match outcome {
        ClusterOutcome::Led(summary) => *summary,
        ClusterOutcome::Followed { version, rejects } => return followed(version, rejects, out),
    };
    let version = summary.version.version;
    let Some(done) = summary.done else {
        writeln!(out, "nothing to do: version {version} holds these labels")?;
        return Ok(ExitCode::SUCCESS);
    };
    for line in notes::summary(&done.rejected, false) {
        bar.say(&line);
    }
    writeln!(
        out,
        "version {version}: {} videos, {} records labelled",
        done.videos, done.records
    )?;
    for (what, labels) in [
        ("audio", done.audio),
        ("visual", done.visual),
        ("audio_visual", done.audio_visual),
    ] {
        writeln!(
            out,
            "  {what:<12} {:>9} segment labels set ({:.1} %)",
            labels.set,
            labels.percent()
        )?;
    }
    writeln!(
        out,
        "  {:<12} {:>9} against the version before",
        "changes", done.changes
    )?;
    writeln!(
        out,
        "  {:<12} {:>9} rows left out, {} notes{}",
        "rejects",
        done.rejects,
        done.notes,
        match done.rejects + done.notes {
            0 => "",
            _ => ": SELECT * FROM rejects",
        }
    )?;
    Ok(if done.rejects > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}
