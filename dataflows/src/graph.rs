//! The label logic as one function from collections to collections.

use std::sync::Arc;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::iterate::VecVariable;
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::Stream;
use timely::dataflow::operators::Exchange;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::{Admitted, Rejection, admit};
use crate::candidates::CandidateRule;
use crate::changes::{Change, changes};
use crate::denoise::denoise;
use crate::denoising::DenoisingRule;
use crate::labels::labels;
use crate::placement::Placement;
use crate::prediction::Prediction;
use crate::records::{Candidate, LabelRecord, Score, VideoId};
use crate::threshold::threshold;
use crate::train::{LearnerHandle, train};
use crate::user_labels::UserLabelRecord;

/// Inputs of the graph.
///
/// Each input is a set: the multiplicity of a record is 0 or 1. The exception is `scored`, where equal copies can have
/// a multiplicity above 1.
///
/// All records of a video must be on one worker, and all thresholds and denoising rules on every worker:
/// [`Feed::new`](crate::feed::Feed::new) places them.
pub struct Inputs<'scope, T: Timestamp + Lattice> {
    /// Weak labels: one record per video, classes ascending.
    pub weak: VecCollection<'scope, T, (VideoId, Arc<[ClassId]>)>,
    /// The rule that guesses the candidate classes of a video: at most one record per video, only for videos whose weak
    /// label is empty. The copies of features of such a video have scores of every class.
    pub guessed: VecCollection<'scope, T, (VideoId, CandidateRule)>,
    /// Copies of features: any number per video and modality.
    pub scored: VecCollection<'scope, T, (VideoId, Candidate)>,
    /// Thresholds: one record per modality and class.
    pub thresholds: VecCollection<'scope, T, ((Modality, ClassId), Score)>,
    /// User labels: at most one record per video and modality.
    pub user_labels: VecCollection<'scope, T, (VideoId, (Modality, Arc<UserLabelRecord>))>,
    /// Predictions: at most one record per video and modality.
    pub predictions: VecCollection<'scope, T, (VideoId, (Modality, Arc<Prediction>))>,
    /// Denoising rules: at most one record per modality. A modality without a rule is not denoised.
    pub denoising: VecCollection<'scope, T, (Modality, DenoisingRule)>,
    /// Labels of the version before the first time of the dataflow; see [`changes`].
    pub previous: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
}

/// Outputs of the graph.
pub struct Outputs<'scope, T: Timestamp + Lattice> {
    /// Features that count, at most one record per video and modality.
    pub admitted: VecCollection<'scope, T, (VideoId, (Modality, Admitted))>,
    /// Why a modality of a video has no labels, and which user labels and predictions have no effect.
    pub rejections: VecCollection<'scope, T, (VideoId, Rejection)>,
    /// Labels: one record per video and modality.
    pub labels: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
    /// Changed labels of each version, emitted when the version is complete.
    pub changes: Stream<'scope, T, Vec<Change>>,
}

impl<'scope, T: Timestamp + Lattice> Outputs<'scope, T> {
    /// Moves the outputs to the first `workers` workers. The outputs of a video are on one worker.
    pub(crate) fn collected(self, workers: u64) -> Outputs<'scope, T> {
        let to = move |video: VideoId| video.0 % workers;
        let admitted = self.admitted.inner.exchange(move |((video, _), _, _)| to(*video));
        let rejections = self
            .rejections
            .inner
            .exchange(move |((video, _), _, _)| to(*video));
        let labels = self
            .labels
            .inner
            .exchange(move |(((video, _), _), _, _)| to(*video));
        Outputs {
            admitted: admitted.as_collection(),
            rejections: rejections.as_collection(),
            labels: labels.as_collection(),
            changes: self.changes.exchange(move |change: &Change| to(change.video)),
        }
    }
}

/// Builds the graph that the front page of the crate shows. The outputs of a video are on the worker of the video.
pub fn labelling<'scope, T: Timestamp + Lattice>(inputs: Inputs<'scope, T>) -> Outputs<'scope, T> {
    let admission = admit(inputs.weak, inputs.guessed, inputs.scored);
    let denoising = inputs.denoising;
    let thresholded = threshold(admission.admitted.clone(), inputs.thresholds, denoising.clone());
    let predictions = denoise(inputs.predictions, denoising);
    let labelled = labels(thresholded, predictions, inputs.user_labels);
    Outputs {
        admitted: admission.admitted,
        rejections: admission.rejections.concat(labelled.rejections),
        changes: changes(labelled.labels.clone(), inputs.previous),
        labels: labelled.labels,
    }
}

/// Builds the graph of [`labelling`] with a learner in a loop: the predictions of the epoch of version v are an input
/// from version v + 1 on.
///
/// The predictions of the learner are added to the predictions of `inputs`. If a video and modality then has several
/// predictions, the prediction of the latest epoch counts. `placement` is that of `inputs`, because worker 0 has all
/// predictions of the learner.
pub fn learning<'scope>(
    inputs: Inputs<'scope, u64>,
    learner_handle: Option<LearnerHandle>,
    placement: Placement,
) -> Outputs<'scope, u64> {
    let (variable, learnt) = VecVariable::new(inputs.weak.scope(), 1);
    let outputs = labelling(Inputs {
        predictions: inputs
            .predictions
            .concat(placement.place(learnt, |(video, _)| *video)),
        ..inputs
    });
    variable.set(train(outputs.labels.clone(), learner_handle));
    outputs
}
