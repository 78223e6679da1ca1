//! Dense truth and labels of a store version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::rows::{ClassRow, Split};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables;

use super::error::EvalError;
use super::predictions;
use super::report::PredictedLabels;
use super::truth::DenseTruth;
use crate::ingest::annotations::Annotations;

/// Dense truth of `split`, and the labels of a store version: one entry per video of the truth, in the same order.
///
/// The truth comes from `annotations` if they are given. Otherwise it comes from table `truth`, for the videos of the
/// store.
///
/// # Errors
/// - Returns [`EvalError::Store`] if a table cannot be read.
/// - Returns the errors of [`DenseTruth::of_annotations`], [`DenseTruth::of_rows`] and [`predictions::of_tables`].
pub fn of_snapshot(
    snapshot: &Snapshot,
    split: Split,
    annotations: Option<&Annotations>,
) -> Result<(DenseTruth, Vec<PredictedLabels>), EvalError> {
    let truth = truth_of_snapshot(snapshot, split, annotations)?;
    let videos = snapshot.read::<tables::Videos>()?;
    let labels = snapshot.read::<tables::Labels>()?;
    let predictions = predictions::of_tables(&truth, &videos, &labels)?;
    Ok((truth, predictions))
}

/// Dense truth of `split`: from `annotations` if they are given, otherwise from table `truth`, for the videos of the
/// store.
///
/// # Errors
/// - Returns [`EvalError::Store`] if a table cannot be read.
/// - Returns the errors of [`DenseTruth::of_annotations`] and [`DenseTruth::of_rows`].
pub fn truth_of_snapshot(
    snapshot: &Snapshot,
    split: Split,
    annotations: Option<&Annotations>,
) -> Result<DenseTruth, EvalError> {
    if let Some(annotations) = annotations {
        return DenseTruth::of_annotations(annotations, split);
    }
    let videos = snapshot.read::<tables::Videos>()?;
    let classes = classes(&snapshot.read::<tables::Classes>()?);
    let names = videos
        .iter()
        .filter(|video| video.split == split)
        .map(|video| video.video.clone());
    DenseTruth::of_rows(classes, split, names, snapshot.read::<tables::Truth>()?)
}

/// The videos of a store version that have no weak label, and whose candidates were guessed from their scores.
///
/// # Errors
/// Returns [`EvalError::Store`] if the table cannot be read.
pub fn guessed(snapshot: &Snapshot) -> Result<BTreeSet<Arc<str>>, EvalError> {
    let rows = snapshot.read::<tables::Videos>()?;
    let guessed = rows.into_iter().filter(|row| row.guessed);
    Ok(guessed.map(|row| row.video).collect())
}

/// A truth, and one entry of labels per video of the truth, in its order.
pub type ScoredSample = (DenseTruth, Vec<PredictedLabels>);

/// Divides videos into those with a weak label and those with guessed candidates. `None` for a part without videos.
pub fn apart((truth, predictions): ScoredSample, guessed: &BTreeSet<Arc<str>>) -> [Option<ScoredSample>; 2] {
    let pairs = truth.videos.into_iter().zip(predictions);
    let (own, others): (Vec<_>, Vec<_>) = pairs.partition(|(video, _)| !guessed.contains(&video.name));
    [own, others].map(|part| {
        let (videos, predictions): (Vec<_>, Vec<_>) = part.into_iter().unzip();
        (!videos.is_empty()).then(|| {
            let truth = DenseTruth {
                classes: truth.classes.clone(),
                split: truth.split,
                videos,
            };
            (truth, predictions)
        })
    })
}

/// Names of the classes in order. The table has one row per class and modality.
pub(crate) fn classes(rows: &[ClassRow]) -> Vec<Arc<str>> {
    let by_position: BTreeMap<u32, &Arc<str>> = rows.iter().map(|row| (row.position, &row.class)).collect();
    by_position.into_values().cloned().collect()
}
