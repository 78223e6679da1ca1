//! Computes the lines of the final table.

use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Snapshot;

use super::ledger::Line;
use crate::eval::{DenseTruth, EvalError, Protocol, Task, evaluate, localize, store};
use crate::parser::Gate;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::settings::{ACCURACY, METRICS};
use crate::parser::validate::metrics;

/// Scores the labels of a version on every split that has dense truth.
///
/// # Errors
/// Returns [`EvalError`] if the store cannot be read.
pub fn labels(snapshot: &Snapshot, task: Task) -> Result<Vec<Line>, EvalError> {
    let mut lines = Vec::new();
    for split in Split::ALL {
        let (truth, labels) = match store::of_snapshot(snapshot, split, None) {
            Ok(found) => found,
            Err(EvalError::NoVideos { .. } | EvalError::NoTruth { .. }) => continue,
            Err(error) => return Err(error),
        };
        let scores = match evaluate(&truth, &labels, false) {
            Ok(report) => report.scores,
            Err(EvalError::NoPredictions { .. }) => continue,
            Err(error) => return Err(error),
        };
        let accuracy = match task {
            Task::Avvp => None,
            Task::Ave => Some(localize(&truth, &labels, Protocol::Labels)?.accuracy),
        };
        lines.push(Line {
            split,
            protocol: Protocol::Labels.as_str().to_owned(),
            scores: scores.named().map(|(_, score)| score).to_vec(),
            accuracy,
        });
    }
    Ok(lines)
}

/// Scores the predictions of a parser on a split, with both protocols.
///
/// # Errors
/// Returns [`EvalError::NoPredictions`] if no video of the split has predictions.
pub fn parser(
    truth: &DenseTruth,
    predicted: &[VideoProbabilities],
    task: Task,
) -> Result<Vec<Line>, EvalError> {
    let named = metrics(truth, predicted, task)?;
    let lines = Gate::ALL.into_iter().map(|gate| {
        let of = |metric: &str| {
            let name = format!("{}.{}.{metric}", truth.split, gate.as_str());
            named
                .iter()
                .find(|(own, _)| **own == *name)
                .map(|(_, score)| *score)
        };
        Line {
            split: truth.split,
            protocol: gate.as_str().to_owned(),
            scores: METRICS.iter().filter_map(|metric| of(metric)).collect(),
            accuracy: of(ACCURACY),
        }
    });
    Ok(lines.collect())
}
