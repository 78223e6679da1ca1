//! A whole training, from a store to a store, that can be killed at any moment.
//!
//! ```text
//! each epoch: course ── a store version ── checkpoint; after the last: the best epoch's predictions
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use vaplan_schemas::rows::{EpochRow, Split};
use vaplan_schemas::store::Store;

use super::course::{Brief, Course, Learned};
use super::data::Dataset;
use super::error::TrainError;
use super::record::Recorder;
use super::validate::Truths;
use super::{Progress, Request, Summary};
use crate::network::Weights;
use crate::world::hash::{feed, hash};

/// Trains what is asked; a training that was interrupted goes on, one that is done does nothing.
///
/// # Errors
/// [`TrainError`]: an input that cannot be used at all, a loss that is no number, a store that cannot be written.
pub fn run(request: &Request, told: &mut dyn FnMut(Progress)) -> Result<Summary, TrainError> {
    request.settings.check()?;
    crate::network::set_threads(request.threads);
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
