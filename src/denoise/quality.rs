//! Scores labels before and after a change, if dense truth is known.

use std::collections::BTreeMap;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelChangeRow, Split};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{Table, Truth};

use crate::eval::{EvalError, Level, evaluate, store};

/// Segment-level scores of the labels of a split, before and after a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The split.
    pub split: Split,
    /// Scores before the change.
    pub before: Level,
    /// Scores after the change.
    pub after: Level,
}

/// Scores each split that has dense truth and labels. `before` is the version before the change, and `changes` are the
/// labels that changed in it.
///
/// # Errors
/// Returns [`EvalError`] if the store cannot be read.
pub fn of_changes(before: &Snapshot, changes: &[LabelChangeRow]) -> Result<Vec<Quality>, EvalError> {
    let mut found = Vec::new();
    // Most stores have no dense truth, and then the labels need not be read.
    if before.files(Truth::NAME)?.is_empty() {
        return Ok(found);
    }
    for split in Split::ALL {
        let (truth, mut labels) = match store::of_snapshot(before, split, None) {
            Ok(found) => found,
            Err(EvalError::NoVideos { .. } | EvalError::NoTruth { .. }) => continue,
            Err(error) => return Err(error),
        };
        let was = match evaluate(&truth, &labels, false) {
            Ok(report) => report.scores.segment,
            Err(EvalError::NoPredictions { .. }) => continue,
            Err(error) => return Err(error),
        };
        let places = truth.videos.iter().map(|video| &*video.name).zip(0..);
        let places: BTreeMap<&str, usize> = places.collect();
        for change in changes {
            let class = truth.classes.iter().position(|class| *class == change.class);
            let (Some(&place), Some(class)) = (places.get(&*change.video), class) else {
                continue;
            };
            let labels = match change.modality {
                Modality::Audio => &mut labels[place].audio,
                Modality::Visual => &mut labels[place].visual,
            };
            if let Some(labels) = labels {
                labels.put(class, change.segment as usize, change.to);
            }
        }
        found.push(Quality {
            split,
            before: was,
            after: evaluate(&truth, &labels, false)?.scores.segment,
        });
    }
    Ok(found)
}
