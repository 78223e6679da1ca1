//! Flags that commands which run the network share.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::EpochRow;

use crate::eval::Task;
use crate::train::{FeaturePaths, Supervision, TrainSettings};

/// A line that tells of an epoch; `score`: what the best is chosen by, where that is told.
pub(super) fn epoch_line(row: &EpochRow, score: Option<f64>, better: bool) -> String {
    let loss = crate::train::run::named(row)["total"];
    let score = score.map_or(String::new(), |score| format!(", score {score:.1}"));
    let best = if better { ", the best so far" } else { "" };
    format!(
        "epoch {}: loss {loss:.4}{score}{best} ({:.1} s)",
        row.epoch, row.seconds
    )
}

/// Features.
#[derive(Debug, clap::Args)]
pub(super) struct FeatureArgs {
    /// Visual features: a folder of <id>.npy (T,D) or (8T,D), a folder of Parquet shards, or one Parquet file; may be said
    /// several times
    #[arg(long, value_name = "PATH", env = "VAPLAN_VISUAL", required = true)]
    visual: Vec<PathBuf>,
    /// Audio features, as --visual
    #[arg(long, value_name = "PATH", env = "VAPLAN_AUDIO", required = true)]
    audio: Vec<PathBuf>,
    /// Clip features such as R(2+1)D, as --visual; a checkpoint's network takes some or none [default: none]
    #[arg(long, value_name = "PATH", env = "VAPLAN_CLIPS")]
    clips: Vec<PathBuf>,
}

impl FeatureArgs {
    /// Pooled copies go to `cache`.
    pub(super) fn paths(&self, cache: PathBuf) -> FeaturePaths {
        FeaturePaths {
            audio: self.audio.clone(),
            visual: self.visual.clone(),
            clips: self.clips.clone(),
            cache,
        }
    }
}

/// Labels to learn from, and features.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Store with labels
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    pub(super) store: PathBuf,
    /// Version whose labels are learnt [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    features: FeatureArgs,
}

impl Source {
    /// Version whose labels are learnt; none: the latest.
    pub(super) fn version(&self) -> Option<StoreVersion> {
        self.version.map(StoreVersion)
    }

    /// What is trained leaves its files here, unless told otherwise.
    pub(super) fn folder(&self) -> PathBuf {
        self.store.join("_vaplan/train")
    }

    /// Pooled copies go into the store's folder.
    pub(super) fn features(&self) -> FeaturePaths {
        self.features.paths(self.folder().join("features"))
    }
}

/// Where and on how many threads libtorch computes.
#[derive(Debug, clap::Args)]
pub(super) struct Machine {
    /// Threads of libtorch [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "VAPLAN_DEVICE", value_parser = crate::network::device)]
    pub(super) device: tch::Device,
}

impl Machine {
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }
}

/// How a network is trained.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// TOML with settings
    #[arg(long, value_name = "FILE", env = "VAPLAN_TRAIN_CONFIG")]
    config: Option<PathBuf>,
    /// Passes over the videos [default: 40]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Videos of a step [default: 16]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Names the random numbers [default: 1]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// What is asked of the network [default: avvp]
    #[arg(long, value_name = "TASK", value_parser = super::choice::choices::<Task>())]
    task: Option<Task>,
    /// What the network learns from [default: pseudo+richness]
    #[arg(long, value_name = "WHAT")]
    supervision: Option<Supervision>,
    /// Learning rate [default: 0.0003]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    #[command(flatten)]
    pub(super) machine: Machine,
}

impl How {
    /// Flags over file over defaults.
    pub(super) fn settings(&self) -> anyhow::Result<TrainSettings> {
        let mut settings = match &self.config {
            Some(path) => TrainSettings::read(path)?,
            None => TrainSettings::default(),
        };
        settings.epochs = self.epochs.unwrap_or(settings.epochs);
        settings.batch = self.batch.unwrap_or(settings.batch);
        settings.seed = self.seed.unwrap_or(settings.seed);
        settings.task = self.task.unwrap_or(settings.task);
        settings.supervision = self.supervision.unwrap_or(settings.supervision);
        settings.learning_rate = self.learning_rate.unwrap_or(settings.learning_rate);
        settings.check()?;
        Ok(settings)
    }

    pub(super) fn threads(&self) -> usize {
        self.machine.threads()
    }

    pub(super) fn device(&self) -> tch::Device {
        self.machine.device
    }
}
