//! A whole training, from a store to a store, that can be killed at any moment.
//!
//! ```text
//! each epoch: course ── a store version ── checkpoint; after the last: the best epoch's predictions
//! ```

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
use super::record::Recorder;
use super::settings::TrainSettings;
use super::training::{Brief, Course, Learned};
use super::validate::Truths;
use crate::world::hash::{feed, hash};

/// What is asked of a training.
#[derive(Clone, Debug)]
pub struct Request {
    /// Store to read labels from and to write epochs to.
    pub store: PathBuf,
    /// Version whose labels are learnt; none: the latest.
    pub version: Option<StoreVersion>,
    /// Features.
    pub features: FeaturePaths,
    /// How.
    pub settings: TrainSettings,
    /// Threads of libtorch; results are the same, bit for bit, only for the same number.
    pub threads: usize,
    /// Where to compute.
    pub device: tch::Device,
    /// Folder of the checkpoints.
    pub out: PathBuf,
    /// What was asked, as a command line, for the `versions` table.
    pub command: String,
}

/// What a training tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress {
    /// So many more videos' features were read.
    Read {
        /// Videos.
        videos: u64,
    },
    /// Another process writes to the store.
    Waiting(String),
    /// All is read.
    Planned {
        /// Epochs asked for.
        epochs: u64,
        /// Of these, done by a run before.
        done: u64,
        /// Videos of an epoch.
        videos: u64,
    },
    /// A step was made.
    Step(super::trainer::Step),
    /// An epoch is in the store.
    Epoch {
        /// As there.
        row: Box<EpochRow>,
        /// What the best is chosen by; none: there is nothing to choose by.
        score: Option<f64>,
        /// It is the best so far.
        better: bool,
    },
}

/// What a training did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Epochs done.
    pub epochs: u64,
    /// Of these, done by a run before.
    pub resumed: Option<u64>,
    /// Number in the store of the best epoch, and its score.
    pub best: Option<(u64, Option<f64>)>,
    /// Videos learnt from.
    pub videos: usize,
    /// Train videos without labels or features.
    pub left_out: usize,
    /// Features that could not be used.
    pub rejects: Vec<RejectRow>,
    /// The best epoch's weights.
    pub checkpoint: PathBuf,
}

/// Trains what is asked; a training that was interrupted goes on, one that is done does nothing.
///
/// # Errors
/// [`TrainError`]: an input that cannot be used at all, a loss that is no number, a store that cannot be written.
pub fn run(request: &Request, told: &mut dyn FnMut(Progress)) -> Result<Summary, TrainError> {
    request.settings.check()?;
    super::set_threads(request.threads);
    let store = Store::open(&request.store)?;
    let snapshot = store.at_version(request.version)?;
    let dataset = Dataset::read(&snapshot, &request.features, &mut |videos| {
        told(Progress::Read { videos });
    })?;
    let settings = serde_json::to_string(&request.settings).expect("settings are JSON");
    let run = run_hash(&settings, &dataset);
    let brief = Brief {
        settings: request.settings.clone(),
        device: request.device,
        folder: request.out.clone(),
        // Nothing that it learns from changes on the way.
        learnt: run.clone(),
        run,
        labels: snapshot.version().version,
    };
    let mut course = Course::open(brief, &dataset)?;
    let truths = Truths::read(&snapshot)?;
    let recorder = Recorder {
        store,
        command: request.command.clone(),
        run: course.brief().run.clone(),
    };
    told(Progress::Planned {
        epochs: request.settings.epochs,
        done: course.done(),
        videos: course.learnt() as u64,
    });
    while course.done() < request.settings.epochs {
        let Learned {
            row,
            predicted,
            score,
            better,
        } = course.epoch(&dataset, &truths, &[], |step| {
            told(Progress::Step(step));
            ControlFlow::Continue(())
        })?;
        let row = recorder.record(row, &predicted, &mut |holder| {
            told(Progress::Waiting(holder.to_owned()));
        })?;
        course.save(&dataset)?;
        told(Progress::Epoch {
            row: Box::new(row),
            score,
            better,
        });
    }
    if let Some((best, _)) = course.best().filter(|_| !course.finished()) {
        let predicted = course.by_best(&dataset, request.settings.left_to_best())?;
        if !predicted.is_empty() {
            recorder.add(best, &predicted, &mut |holder| {
                told(Progress::Waiting(holder.to_owned()));
            })?;
        }
        course.finish(&dataset)?;
    }
    summary(&course, &dataset, &recorder)
}

fn summary(course: &Course, dataset: &Dataset, recorder: &Recorder) -> Result<Summary, TrainError> {
    let latest = recorder.store.at_version(None)?;
    let best = match course.best() {
        Some((epoch, score)) => {
            let number = recorder.number(&latest, epoch)?;
            number.map(|number| (number, score))
        }
        None => None,
    };
    let all = dataset.videos.get(&Split::Train).copied().unwrap_or(0);
    Ok(Summary {
        epochs: course.done(),
        resumed: course.resumed(),
        best,
        videos: course.learnt(),
        left_out: all - course.learnt(),
        rejects: dataset.features.rejects(),
        checkpoint: course.checkpoint(),
    })
}

/// Names what is asked: settings, videos with their labels, features.
pub(crate) fn run_hash(settings: &str, dataset: &Dataset) -> String {
    hash(|sum| {
        feed(sum, [settings]);
        feed(sum, dataset.classes.iter().map(|class| &**class));
        // What was read, not the files it came from: the same rows may come to lie in others.
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

/// Reads the classes that a checkpoint of `train` names.
pub(super) fn classes_of(weights: &Weights) -> Option<Vec<Arc<str>>> {
    let classes = weights.metadata.get("classes")?;
    Some(classes.split('\n').map(Arc::from).collect())
}

/// Losses and scores by name, for showing.
pub fn named(row: &EpochRow) -> BTreeMap<&str, f64> {
    let all = row.losses.iter().chain(&row.metrics);
    all.map(|(name, value)| (&**name, *value)).collect()
}
