//! Truth and labels of a store version.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::rows::{ClassRow, Split};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables;

use super::error::EvalError;
use super::predictions;
use super::report::PredictedLabels;
use super::truth::DenseTruth;
use crate::ingest::annotations::Annotations;

/// Dense truth of `split` and a store version's labels of its videos, one per video and in its order.
///
/// The truth is that of `annotations`, or else of the store's `truth` table for the store's videos.
///
/// # Errors
/// [`EvalError::Store`] for a store that does not read back, and as [`DenseTruth::of_annotations`], [`DenseTruth::of_rows`] and
/// [`predictions::of_tables`].
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

/// Dense truth of `split`: that of `annotations`, or else of the store's `truth` table for the store's videos.
///
/// # Errors
/// As [`of_snapshot`].
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

/// Names in order; the table has each once per modality.
pub(crate) fn classes(rows: &[ClassRow]) -> Vec<Arc<str>> {
    let by_position: BTreeMap<u32, &Arc<str>> = rows.iter().map(|row| (row.position, &row.class)).collect();
    by_position.into_values().cloned().collect()
}
