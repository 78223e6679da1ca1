//! The input rows of a session, and their division among the workers.

use std::sync::Arc;

use vaplan_schemas::{ClassId, Modality};

use crate::denoising::DenoisingRule;
use crate::prediction::Prediction;
use crate::records::{Candidate, Score, VideoId};
use crate::user_labels::UserLabelRecord;

/// Rows of the inputs. Each field corresponds to a field of [`Inputs`](crate::graph::Inputs).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Weak labels: one row per video, classes ascending.
    pub weak: Vec<(VideoId, Arc<[ClassId]>)>,
    /// Candidates: any number of rows per video and modality.
    pub scored: Vec<(VideoId, Candidate)>,
    /// Thresholds: one row per modality and class.
    pub thresholds: Vec<((Modality, ClassId), Score)>,
    /// User labels: at most one row per video and modality.
    pub user_labels: Vec<(VideoId, (Modality, Arc<UserLabelRecord>))>,
    /// Predictions: at most one row per video and modality.
    pub predictions: Vec<(VideoId, (Modality, Arc<Prediction>))>,
    /// Denoising rules: at most one row per modality.
    pub denoising: Vec<(Modality, DenoisingRule)>,
}

/// The input changes of a version. If a row changes, the old row is in `gone` and the new row is in `new`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Updates {
    /// Rows to remove. Each of them must have been added before.
    pub gone: Rows,
    /// Rows to add.
    pub new: Rows,
}

/// Divides the rows among the workers.
pub(super) fn shares(rows: Rows, workers: usize) -> Vec<Rows> {
    let Rows {
        weak,
        scored,
        thresholds,
        user_labels,
        predictions,
        denoising,
    } = rows;
    let (weak, scored) = (share(weak, workers), share(scored, workers));
    let (thresholds, user_labels) = (share(thresholds, workers), share(user_labels, workers));
    let (predictions, denoising) = (share(predictions, workers), share(denoising, workers));
    let mut shares: Vec<Rows> = Vec::with_capacity(workers);
    let columns = weak
        .into_iter()
        .zip(scored)
        .zip(thresholds.into_iter().zip(user_labels))
        .zip(predictions.into_iter().zip(denoising));
    for (((weak, scored), (thresholds, user_labels)), (predictions, denoising)) in columns {
        shares.push(Rows {
            weak,
            scored,
            thresholds,
            user_labels,
            predictions,
            denoising,
        });
    }
    shares
}

/// Cuts a list into one part per worker. The lengths of the parts differ by at most 1.
pub(super) fn share<D>(mut all: Vec<D>, workers: usize) -> Vec<Vec<D>> {
    let mut parts = Vec::with_capacity(workers);
    for left in (1..workers).rev() {
        let at = all.len() - all.len() / (left + 1);
        parts.push(all.split_off(at));
    }
    parts.push(all);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_gets_about_as_much_and_nothing_is_lost() {
        for (rows, workers) in [(0, 1), (1, 3), (7, 3), (9, 3), (10, 1), (2, 5)] {
            let parts = share((0..rows).collect::<Vec<u32>>(), workers);
            assert_eq!(parts.len(), workers);
            let lengths: Vec<usize> = parts.iter().map(Vec::len).collect();
            let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            assert!(most - least <= 1, "{rows} rows: {lengths:?}");
            let mut all = parts.concat();
            all.sort_unstable();
            assert_eq!(all, (0..rows).collect::<Vec<u32>>());
        }
    }
}
