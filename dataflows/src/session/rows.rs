//! What goes into a session and what comes out.

use std::sync::Arc;

use vaplan_schemas::{ClassId, Modality};

use super::worker::Answer;
use crate::admit::Admitted;
use crate::changes::Change;
use crate::fault::Fault;
use crate::marks::Marks;
use crate::pld::Pld;
use crate::prediction::Prediction;
use crate::records::{Candidate, LabelRecord, Score, VideoId};

/// Rows of the inputs, each as [`Inputs`](crate::graph::Inputs) says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// One per video; classes ascending.
    pub weak: Vec<(VideoId, Arc<[ClassId]>)>,
    /// Any number per video and modality.
    pub scored: Vec<(VideoId, Candidate)>,
    /// One per modality and class.
    pub cutoffs: Vec<((Modality, ClassId), Score)>,
    /// At most one per video and modality.
    pub marks: Vec<(VideoId, (Modality, Arc<Marks>))>,
    /// At most one per video and modality.
    pub predictions: Vec<(VideoId, (Modality, Arc<Prediction>))>,
    /// At most one per modality.
    pub denoising: Vec<(Modality, Pld)>,
}

/// What a version changes in the inputs: a replaced row is one gone and one new.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Updates {
    /// Rows that were there.
    pub gone: Rows,
    /// Rows that are there now.
    pub new: Rows,
}

/// Labels of a video and modality.
pub type Labelled = (VideoId, Modality, Arc<LabelRecord>);

/// What a version changed: records that came (+1) and went (-1), every list sorted and each record once. Of version 0
/// it is all there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Features that count.
    pub admitted: Vec<((VideoId, Modality, Admitted), isize)>,
    /// Labels, one record per video and modality.
    pub labels: Vec<(Labelled, isize)>,
    /// Labels that both modalities share, one record per video.
    pub audio_visual: Vec<((VideoId, Arc<LabelRecord>), isize)>,
    /// What has no effect, and why.
    pub faults: Vec<((VideoId, Fault), isize)>,
    /// Cells whose label is another than in the version before.
    pub changes: Vec<Change>,
}

impl Outcome {
    pub(super) fn take(&mut self, answer: Answer) {
        let Outcome {
            admitted,
            labels,
            audio_visual,
            faults,
            changes,
        } = answer;
        self.admitted.extend(admitted);
        self.labels.extend(labels);
        self.audio_visual.extend(audio_visual);
        self.faults.extend(faults);
        self.changes.extend(changes);
    }

    /// The same for every number of workers. Each worker's part is sorted, and the sort makes use of it.
    pub(super) fn sort(&mut self) {
        self.admitted.sort();
        self.labels.sort();
        self.audio_visual.sort();
        self.faults.sort();
        self.changes.sort();
    }
}

/// Rows for each of the workers.
pub(super) fn shares(rows: Rows, workers: usize) -> Vec<Rows> {
    let Rows {
        weak,
        scored,
        cutoffs,
        marks,
        predictions,
        denoising,
    } = rows;
    let (weak, scored) = (share(weak, workers), share(scored, workers));
    let (cutoffs, marks) = (share(cutoffs, workers), share(marks, workers));
    let (predictions, denoising) = (share(predictions, workers), share(denoising, workers));
    let mut shares: Vec<Rows> = Vec::with_capacity(workers);
    let columns = weak
        .into_iter()
        .zip(scored)
        .zip(cutoffs.into_iter().zip(marks))
        .zip(predictions.into_iter().zip(denoising));
    for (((weak, scored), (cutoffs, marks)), (predictions, denoising)) in columns {
        shares.push(Rows {
            weak,
            scored,
            cutoffs,
            marks,
            predictions,
            denoising,
        });
    }
    shares
}

/// A list cut into as many parts as there are workers, of about the same length.
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
