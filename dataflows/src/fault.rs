//! Why a row of the input has no effect.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::{ClassId, Modality};

use crate::prediction::Probability;

/// Why a modality of a video has no labels, or why a mark or a prediction of it does not count.
///
/// A fault is a row: it comes with the version that has it and is retracted with the one that mends it; all else of the
/// video goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// No features.
    Missing(Modality),
    /// Several features that differ: none is taken; their files, ascending.
    Conflict(Modality, Vec<Arc<str>>),
    /// Audio and visual features of unequal length: neither is taken.
    Lengths {
        /// T of the audio.
        audio: u32,
        /// T of the visual.
        visual: u32,
    },
    /// A class of the weak label that the features were not scored for.
    Unscored(Modality, ClassId),
    /// A person's mark where there is no label to set; of any video, also one without a weak label.
    Mark {
        /// Modality of the mark.
        modality: Modality,
        /// What there is not.
        why: MarkFault,
    },
    /// Predictions of another number of segments than the labels: none of them counts.
    Prediction {
        /// Modality of the predictions.
        modality: Modality,
        /// Their epoch.
        epoch: u64,
        /// Their T.
        segments: u32,
        /// T of the labels.
        expected: u32,
    },
    /// A prediction that is NaN, infinite or outside [0, 1]: it flips nothing and is in no base.
    Probability {
        /// Modality of the prediction.
        modality: Modality,
        /// Its epoch.
        epoch: u64,
        /// Its class.
        class: ClassId,
        /// The first such segment of the class.
        segment: u32,
        /// What it is there.
        value: Probability,
    },
}

/// What a mark needs and there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MarkFault {
    /// Any label in this modality of the video.
    Unlabelled,
    /// A label of this class: it is outside the weak label, or has no cutoff.
    Class(ClassId),
    /// This segment of the class: it is beyond the end.
    Segment {
        /// Class of the mark.
        class: ClassId,
        /// The first marked segment beyond the end.
        segment: u32,
        /// T of the labels.
        segments: u32,
    },
}
