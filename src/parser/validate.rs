//! Scores predictions on the splits that have dense truth.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Snapshot;

use super::error::TrainError;
use super::probabilities::VideoProbabilities;
use super::settings::{ACCURACY, Gate};
use crate::eval::store::truth_of_snapshot;
use crate::eval::{DenseTruth, EvalError, EvalReport, PredictedLabels, Task, evaluate, localize};

/// The dense truth of each split that has it.
#[derive(Clone, Debug, Default)]
pub struct Truths(BTreeMap<Split, DenseTruth>);

impl Truths {
    /// Reads the truth of a store version.
    ///
    /// # Errors
    /// Returns [`TrainError::Eval`] if the store cannot be read.
    pub fn read(snapshot: &Snapshot) -> Result<Truths, TrainError> {
        let mut truths = BTreeMap::new();
        for split in Split::ALL {
            match truth_of_snapshot(snapshot, split, None) {
                Ok(truth) => drop(truths.insert(split, truth)),
                Err(EvalError::NoVideos { .. } | EvalError::NoTruth { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Truths(truths))
    }

    /// The dense truth of a split, or `None` if the split has none.
    pub fn of(&self, split: Split) -> Option<&DenseTruth> {
        self.0.get(&split)
    }
}

/// Scores predictions by a protocol. A video without predictions counts as a video without events.
///
/// # Errors
/// Returns the same errors as [`evaluate`].
pub fn score(
    truth: &DenseTruth,
    predicted: &[VideoProbabilities],
    gate: Gate,
    per_class: bool,
) -> Result<EvalReport, EvalError> {
    let mut report = evaluate(
        truth,
        &labels(truth, predicted, |video| video.labels(gate)),
        per_class,
    )?;
    report.protocol = gate.protocol();
    Ok(report)
}

/// Calls `labels_of` with the prediction of each video of the truth. Returns the label matrices; they are empty for a
/// video without predictions.
pub fn labels(
    truth: &DenseTruth,
    predicted: &[VideoProbabilities],
    labels_of: impl Fn(&VideoProbabilities) -> PredictedLabels,
) -> Vec<PredictedLabels> {
    let by_name: BTreeMap<&str, &VideoProbabilities> =
        predicted.iter().map(|video| (&*video.video, video)).collect();
    let of = |name: &str| by_name.get(name).map(|found| labels_of(found));
    let videos = truth.videos.iter();
    videos.map(|video| of(&video.name).unwrap_or_default()).collect()
}

/// The scores of a split by both protocols, named as in table `epochs`. For task `ave`, the accuracies follow.
///
/// # Errors
/// Returns the same errors as [`score`].
pub fn metrics(
    truth: &DenseTruth,
    predicted: &[VideoProbabilities],
    task: Task,
) -> Result<Vec<(Arc<str>, f64)>, EvalError> {
    let mut named = Vec::new();
    for gate in Gate::ALL {
        let scores = score(truth, predicted, gate, false)?.scores;
        for (name, value) in scores.named() {
            let name = format!("{}.{}.{name}", truth.split, gate.as_str());
            named.push((name.into(), value));
        }
    }
    for gate in Gate::ALL.into_iter().filter(|_| task == Task::Ave) {
        let single = labels(truth, predicted, |video| video.single(gate));
        let name = format!("{}.{}.{ACCURACY}", truth.split, gate.as_str());
        named.push((name.into(), localize(truth, &single, gate.protocol())?.accuracy));
    }
    Ok(named)
}
