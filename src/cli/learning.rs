//! Flags that the commands which run a network share.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::EpochRow;
use vaplan_schemas::store::Store;

use super::libtorch;
use crate::eval::Task;
use crate::ingest::features::ColumnNames;
use crate::parser::ablate::AblationLine;
use crate::parser::{FeaturePaths, Gate, Supervision, TrainSettings, registry};

/// A line about an epoch. `score` is the score that the best epoch is chosen by, if there is one.
pub(super) fn epoch_line(row: &EpochRow, score: Option<f64>, better: bool) -> String {
    let loss = crate::parser::train::named(row)["total"];
    let score = score.map_or(String::new(), |score| format!(", score {score:.1}"));
    let best = if better { ", the best so far" } else { "" };
    format!(
        "epoch {}: loss {loss:.4}{score}{best} ({:.1} s)",
        row.epoch, row.seconds
    )
}

/// Reads a value by its name. The library's types know no clap, so their names and help are given here.
fn named<T: Copy + Send + Sync + 'static>(
    values: Vec<(T, &'static str, &'static str)>,
) -> impl TypedValueParser<Value = T> {
    let possible = |(_, name, help): &(T, &'static str, &'static str)| PossibleValue::new(*name).help(*help);
    let parser = PossibleValuesParser::new(values.iter().map(possible));
    parser.map(move |given: String| {
        let found = values.iter().find(|(_, name, _)| *name == given);
        found.expect("clap lets only possible values through").0
    })
}

/// Reads a supervision.
pub(super) fn supervision() -> impl TypedValueParser<Value = Supervision> {
    let help = |supervision| match supervision {
        Supervision::Weak => "Weak labels, as HAN was published: smoothed targets, no richness terms",
        Supervision::Pseudo => "Pseudo labels as targets of each modality, no richness terms",
        Supervision::Richness => "Pseudo labels and the richness-aware loss",
    };
    let values = Supervision::ALL.map(|value| (value, value.as_str(), help(value)));
    named(values.to_vec())
}

/// Reads a line of the ablation.
pub(super) fn ablation_line() -> impl TypedValueParser<Value = AblationLine> {
    named(
        AblationLine::ALL
            .map(|line| (line, line.as_str(), line.help()))
            .to_vec(),
    )
}

/// Reads the name of a network.
pub(super) fn network() -> impl TypedValueParser<Value = &'static str> {
    let named = PossibleValuesParser::new(registry::names());
    named.map(|given: String| {
        let found = registry::names().into_iter().find(|name| *name == given);
        found.expect("clap lets only possible values through")
    })
}

/// Reads the protocol by which predictions become labels.
pub(super) fn gate() -> impl TypedValueParser<Value = Gate> {
    let help = |gate| match gate {
        Gate::Fused => "The segment's and the video's probability are at least 0.5 (HAN)",
        Gate::Own => "The segment's and the modality's probability are at least 0.5 (MA, JoMoLD, LSLD)",
        Gate::Segment => "The segment's probability is at least 0.5 (for epochs from outside)",
    };
    let all = [Gate::Fused, Gate::Own, Gate::Segment];
    named(all.map(|value| (value, value.as_str(), help(value))).to_vec())
}

/// Features that the network takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FeatureArgs {
    /// Visual features: a folder of <id>.npy (T,D) or (8T,D), a folder of Parquet shards, or one Parquet file; may be
    /// given several times
    #[arg(long, value_name = "PATH", env = "VAPLAN_VISUAL", required = true)]
    pub(super) visual: Vec<PathBuf>,
    /// Audio features, as --visual
    #[arg(long, value_name = "PATH", env = "VAPLAN_AUDIO", required = true)]
    pub(super) audio: Vec<PathBuf>,
    /// Clip features such as R(2+1)D, as --visual; required if the network takes clip features [default: none]
    #[arg(long, value_name = "PATH", env = "VAPLAN_CLIPS")]
    pub(super) clips: Vec<PathBuf>,
    /// Names of the columns of Parquet features that differ from video, segment, modality and feature, such as
    /// video=id,feature=embedding
    #[arg(long, value_name = "COLUMN=NAME,..", env = "VAPLAN_COLUMNS")]
    pub(super) columns: Option<ColumnNames>,
}

impl FeatureArgs {
    /// The paths, with pooled copies in `cache`.
    pub(super) fn paths(&self, cache: PathBuf) -> FeaturePaths {
        FeaturePaths {
            audio: self.audio.clone(),
            visual: self.visual.clone(),
            clips: self.clips.clone(),
            columns: self.columns.clone().unwrap_or_default(),
            cache,
        }
    }
}

/// The labels and features that a network is trained on.
#[derive(Debug, clap::Args)]
pub(super) struct LabelSourceArgs {
    /// Store with labels
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    pub(super) store: PathBuf,
    /// Store version whose labels the network learns [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    features: FeatureArgs,
}

impl LabelSourceArgs {
    /// Store version whose labels the network learns; `None`: the latest.
    pub(super) fn version(&self) -> Option<StoreVersion> {
        self.version.map(StoreVersion)
    }

    /// Default folder of checkpoints: in the store, or in the scratch folder for a store at a URL.
    pub(super) fn folder(&self) -> PathBuf {
        // A URL that cannot be used is refused when the store is opened.
        let own = Store::own_dir_at(&self.store).unwrap_or_else(|_| PathBuf::from("_vaplan"));
        own.join("train")
    }

    /// The features, with pooled copies in the store's folder.
    pub(super) fn features(&self) -> FeaturePaths {
        self.features.paths(self.folder().join("features"))
    }
}

/// The device and the number of threads that libtorch computes on.
#[derive(Debug, clap::Args)]
pub(super) struct MachineArgs {
    /// Threads of libtorch; results are equal bit for bit only for equal numbers [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Device to compute on: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "VAPLAN_DEVICE", value_parser = crate::parser::device)]
    device: tch::Device,
}

impl MachineArgs {
    /// The device, after a check that libtorch sees it.
    pub(super) fn device(&self) -> anyhow::Result<tch::Device> {
        crate::parser::available(self.device).map_err(anyhow::Error::msg)
    }

    /// The number of threads: as given, or one per core.
    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }

    /// Sets the number of libtorch's threads for the whole process.
    pub(super) fn set_threads(&self) {
        libtorch::set_threads(self.threads());
    }
}

/// Settings of a training.
#[derive(Debug, clap::Args)]
pub(super) struct TrainArgs {
    /// TOML file with settings of the training
    #[arg(long, value_name = "FILE", env = "VAPLAN_TRAIN_CONFIG")]
    config: Option<PathBuf>,
    /// Number of epochs [default: 40]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Videos per step [default: 16]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Seed of initial weights, order of the videos and dropout [default: 1]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Network to train; its sizes are keys of --config [default: han]
    #[arg(long, value_name = "NAME", visible_alias = "parser", value_parser = network())]
    network: Option<&'static str>,
    /// Task of the network [default: avvp]
    #[arg(long, value_name = "TASK", value_parser = super::choice::choices::<Task>())]
    task: Option<Task>,
    /// Labels and loss that the network learns from [default: pseudo+richness]
    #[arg(long, value_name = "WHAT", value_parser = supervision())]
    supervision: Option<Supervision>,
    /// Learning rate [default: 0.0003]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
}

impl TrainArgs {
    /// The settings: flags over the file, the file over the defaults.
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
        if let Some(name) = self.network {
            let named = settings.network.of_network(name);
            settings.network = named.map_err(|problem| anyhow::anyhow!("--network {name}: {problem}"))?;
        }
        settings.check()?;
        Ok(settings)
    }
}
