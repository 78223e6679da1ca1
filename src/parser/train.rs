//! `vaplan train`: trains on the labels of a store and writes the epochs to the store. It can be killed at any
//! moment.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{EpochRow, RejectRow, Split};
use vaplan_schemas::store::Store;

use super::Weights;
use super::data::{Dataset, FeaturePaths};
use super::error::TrainError;
use super::model::{ModelSource, write_model};
use super::probabilities::VideoProbabilities;
use super::record::Recorder;
use super::settings::TrainSettings;
use super::trainer::TrainStep;
use super::training::{Advance, Committed, TrainedEpoch, Training, TrainingDriver, TrainingSpec};
use super::validate::Truths;
use crate::world::World;
use crate::world::hash::{feed, hash};

/// Name of the folder of the trained model, in the folder of the checkpoints.
pub(crate) const MODEL: &str = "model";

/// The request of a training.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// The store to read labels from and to write epochs to.
    pub store: PathBuf,
    /// The store version with the labels; `None` means the latest version.
    pub version: Option<StoreVersion>,
    /// The paths of the features.
    pub features: FeaturePaths,
    /// The settings of the training.
    pub settings: TrainSettings,
    /// The device to compute on.
    pub device: tch::Device,
    /// The folder of the checkpoints.
    pub out: PathBuf,
    /// The command line, for the `versions` table.
    pub command: String,
}

/// The progress that a training reports.
#[derive(Clone, Debug)]
pub enum TrainProgress {
    /// The features of more videos were read.
    Read {
        /// The number of videos.
        videos: u64,
    },
    /// Another process holds the store's lock. The text names this process.
    Waiting(String),
    /// All inputs are read.
    Planned {
        /// The number of epochs of the training.
        epochs: u64,
        /// The number of epochs that an earlier run completed.
        done: u64,
        /// The number of videos that an epoch trains on.
        videos: u64,
    },
    /// A step is complete.
    Step(TrainStep),
    /// An epoch is in the store, and its checkpoint is kept.
    Epoch {
        /// Its row in table `epochs`.
        row: Box<EpochRow>,
        /// The score that decides the best epoch; `None` if the split has no dense truth.
        score: Option<f64>,
        /// Whether it is the best epoch so far.
        better: bool,
    },
}

/// The result of a training.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// The number of completed epochs.
    pub epochs: u64,
    /// The number of epochs that an earlier run completed; `None` if this run began from the start.
    pub resumed: Option<u64>,
    /// The best epoch's number in the store, and its score.
    pub best: Option<(u64, Option<f64>)>,
    /// The number of videos that an epoch trains on.
    pub videos: usize,
    /// The number of train videos without labels or features.
    pub left_out: usize,
    /// The features that could not be used.
    pub rejects: Vec<RejectRow>,
    /// The file with the weights of the best epoch.
    pub checkpoint: PathBuf,
    /// The folder of the trained model, which `parse` applies.
    pub model: PathBuf,
}

/// Trains a network. A training that was interrupted continues, and a complete training stays as it is.
///
/// # Errors
/// Returns [`TrainError`] if an input cannot be used at all, a loss is not finite, or the store cannot be written.
pub fn run(
    request: &TrainRequest,
    on_progress: &mut dyn FnMut(TrainProgress),
) -> Result<TrainSummary, TrainError> {
    request.settings.check()?;
    let store = Store::open(&request.store)?;
    let snapshot = store.at_version(request.version)?;
    let mut dataset = Dataset::read(&snapshot, &request.features, &mut |videos| {
        on_progress(TrainProgress::Read { videos });
    })?;
    if request.settings.soft_labels > 0.0 {
        dataset.read_margins(&snapshot)?;
    }
    let run = run_hash(&request.settings.identity(), &dataset);
    let spec = TrainingSpec {
        settings: request.settings.clone(),
        device: request.device,
        folder: request.out.clone(),
        // The data set of `train` never changes, and the hash of the training covers it.
        data: run.clone(),
        run,
        start: None,
        labels: snapshot.version().version,
    };
    let mut training = Training::open(spec, &dataset)?;
    let truths = Truths::read(&snapshot)?;
    let recorder = Recorder {
        store,
        command: request.command.clone(),
        run: training.spec().run.clone(),
    };
    on_progress(TrainProgress::Planned {
        epochs: request.settings.epochs,
        done: training.done(),
        videos: training.videos() as u64,
    });
    let mut driver = StoreDriver {
        recorder: &recorder,
        on_progress,
        epoch: None,
    };
    while training.advance(&dataset, &truths, &mut driver)? != Advance::Done {
        if let Some(epoch) = driver.epoch.take() {
            (driver.on_progress)(epoch);
        }
    }
    let model = request.out.join(MODEL);
    let source = ModelSource {
        checkpoint: &training.checkpoint(),
        settings: &request.settings,
        features: &request.features,
        segment_seconds: World::read(&snapshot)?.segment_seconds,
    };
    write_model(&model, &source)?;
    summary(&training, &dataset, (&recorder, model))
}

/// Commits each epoch as a store version.
struct StoreDriver<'a> {
    recorder: &'a Recorder,
    on_progress: &'a mut dyn FnMut(TrainProgress),
    /// The report of a committed epoch. It is sent only after the checkpoint is kept too.
    epoch: Option<TrainProgress>,
}

impl TrainingDriver for StoreDriver<'_> {
    type Error = TrainError;

    fn on_step(&mut self, step: TrainStep) -> ControlFlow<()> {
        (self.on_progress)(TrainProgress::Step(step));
        ControlFlow::Continue(())
    }

    fn commit_epoch(&mut self, _spec: &TrainingSpec, trained: TrainedEpoch) -> Result<Committed, TrainError> {
        let TrainedEpoch {
            row,
            predicted,
            score,
            better,
        } = trained;
        let row = self.recorder.record(row, &predicted, &mut |holder| {
            (self.on_progress)(TrainProgress::Waiting(holder.to_owned()));
        })?;
        self.epoch = Some(TrainProgress::Epoch {
            row: Box::new(row),
            score,
            better,
        });
        Ok(Committed::Now)
    }

    fn commit_best(
        &mut self,
        _spec: &TrainingSpec,
        epoch: u64,
        predicted: Vec<(Split, Vec<VideoProbabilities>)>,
    ) -> Result<Committed, TrainError> {
        let predicted: Vec<_> = predicted.into_iter().flat_map(|(_, videos)| videos).collect();
        if !predicted.is_empty() {
            self.recorder.add(epoch, &predicted, &mut |holder| {
                (self.on_progress)(TrainProgress::Waiting(holder.to_owned()));
            })?;
        }
        Ok(Committed::Now)
    }
}

fn summary(
    training: &Training,
    dataset: &Dataset,
    (recorder, model): (&Recorder, PathBuf),
) -> Result<TrainSummary, TrainError> {
    let latest = recorder.store.at_version(None)?;
    let best = match training.best() {
        Some((epoch, score)) => {
            let number = recorder.number(&latest, epoch)?;
            number.map(|number| (number, score))
        }
        None => None,
    };
    let all = dataset.videos.get(&Split::Train).copied().unwrap_or(0);
    Ok(TrainSummary {
        epochs: training.done(),
        resumed: training.resumed(),
        best,
        videos: training.videos(),
        left_out: all - training.videos(),
        rejects: dataset.features.rejects(),
        checkpoint: training.checkpoint(),
        model,
    })
}

/// The SHA-256, in hex, of the text of the settings, the videos with their labels, and the features.
pub(crate) fn run_hash(settings: &str, dataset: &Dataset) -> String {
    hash(|sum| {
        feed(sum, [settings]);
        feed(sum, dataset.classes.iter().map(|class| &**class));
        // Hash the rows and not the files, because `optimize` moves the same rows to other files.
        dataset.examples.iter().for_each(|example| example.feed(sum));
        let features = &dataset.features;
        for table in [
            Some(&features.audio),
            Some(&features.visual),
            features.clips.as_ref(),
        ] {
            feed(sum, [table.map_or("", |table| table.fingerprint())]);
        }
    })
}

/// The classes that a checkpoint names; `None` if this program did not write it.
pub(super) fn classes_of(weights: &Weights) -> Option<Vec<Arc<str>>> {
    let classes = weights.metadata.get("classes")?;
    Some(classes.split('\n').map(Arc::from).collect())
}

/// The losses and scores of an epoch by name.
pub fn named(row: &EpochRow) -> BTreeMap<&str, f64> {
    let all = row.losses.iter().chain(&row.metrics);
    all.map(|(name, value)| (&**name, *value)).collect()
}
