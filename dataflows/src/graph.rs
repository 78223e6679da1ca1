//! The label logic as one function from collections to collections.

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::iterate::VecVariable;
use timely::dataflow::Stream;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::{Admitted, Fault, admit};
use crate::changes::{Change, changes};
use crate::denoise::denoise;
use crate::labels::labels;
use crate::marks::Marks;
use crate::pld::Pld;
use crate::prediction::Prediction;
use crate::records::{Candidate, LabelRecord, Score, VideoId};
use crate::threshold::threshold;
use crate::train::{Seat, train};

/// What labelling is made from. Each is a set: multiplicities are 0 or 1, but for `scored`, where equal copies may add up.
pub struct Inputs<'scope, T: Timestamp + Lattice> {
    /// One record per video; classes ascending.
    pub weak: VecCollection<'scope, T, (VideoId, Arc<[ClassId]>)>,
    /// Any number per video and modality.
    pub scored: VecCollection<'scope, T, (VideoId, Candidate)>,
    /// One record per modality and class.
    pub cutoffs: VecCollection<'scope, T, ((Modality, ClassId), Score)>,
    /// At most one record per video and modality.
    pub marks: VecCollection<'scope, T, (VideoId, (Modality, Arc<Marks>))>,
    /// At most one record per video and modality.
    pub predictions: VecCollection<'scope, T, (VideoId, (Modality, Arc<Prediction>))>,
    /// At most one record per modality; without one there is no PLD in it.
    pub denoising: VecCollection<'scope, T, (Modality, Pld)>,
    /// Labels of the version before the first time; see [`changes`].
    pub previous: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
}

/// What labelling gives.
pub struct Outputs<'scope, T: Timestamp + Lattice> {
    /// Features that count.
    pub admitted: VecCollection<'scope, T, (VideoId, (Modality, Admitted))>,
    /// Why a modality of a video has no labels, and which marks and predictions do not count.
    pub faults: VecCollection<'scope, T, (VideoId, Fault)>,
    /// One record per video and modality.
    pub labels: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
    /// One record per video.
    pub audio_visual: VecCollection<'scope, T, (VideoId, Arc<LabelRecord>)>,
    /// Changed cells, once a version is complete.
    pub changes: Stream<'scope, T, Vec<Change>>,
}

/// Draws the graph of the crate's front page.
pub fn labelling<'scope, T: Timestamp + Lattice>(inputs: Inputs<'scope, T>) -> Outputs<'scope, T> {
    let admission = admit(inputs.weak, inputs.scored);
    let tracks = threshold(admission.admitted.clone(), inputs.cutoffs);
    let predictions = denoise(inputs.predictions, inputs.denoising);
    let labelled = labels(tracks, predictions, inputs.marks);
    Outputs {
        admitted: admission.admitted,
        faults: admission.faults.concat(labelled.faults),
        changes: changes(labelled.labels.clone(), inputs.previous),
        labels: labelled.labels,
        audio_visual: labelled.audio_visual,
    }
}

/// As [`labelling`], with training in the loop: predictions of the epoch of a step are there from the next step on.
///
/// They come beside those of `inputs`: of several of one video and modality, those of the latest epoch count.
pub fn learning<'scope>(inputs: Inputs<'scope, u64>, seat: Option<Seat>) -> Outputs<'scope, u64> {
    let (variable, learnt) = VecVariable::new(inputs.weak.scope(), 1);
    let outputs = labelling(Inputs {
        predictions: inputs.predictions.concat(learnt),
        ..inputs
    });
    variable.set(train(outputs.labels.clone(), seat));
    outputs
}
