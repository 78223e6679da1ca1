//! Why a row of the input has no effect.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::{ClassId, Modality};

use crate::prediction::Probability;

/// Why a modality of a video has no labels, or why a user label or prediction of the video has no effect.
///
/// A rejection is an output row of the graph. The graph adds the row at the version with the bad input, and retracts
/// the row at the version that repairs the input. A rejection does not affect the other rows of the video.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rejection {
    /// The modality has no features.
    Missing(Modality),
    /// The modality has several features that differ, so none of them counts. The files are listed in ascending order.
    Conflict(Modality, Vec<Arc<str>>),
    /// The audio and visual features have different numbers of segments, so neither of them counts.
    Lengths {
        /// Number of segments of the audio features.
        audio: u32,
        /// Number of segments of the visual features.
        visual: u32,
    },
    /// The features have no scores for this class of the weak label.
    Unscored(Modality, ClassId),
    /// There is no label that the user label could replace. The video may also be one without a weak label.
    UserLabel {
        /// Modality of the user label.
        modality: Modality,
        /// What is missing.
        why: UserLabelRejection,
    },
    /// The predictions have another number of segments than the labels, so none of them counts.
    Prediction {
        /// Modality of the predictions.
        modality: Modality,
        /// Epoch of the predictions.
        epoch: u64,
        /// Number of segments of the predictions.
        segments: u32,
        /// Number of segments of the labels.
        expected: u32,
    },
    /// A prediction is NaN or outside [0, 1]. It flips no label, and its loss is not part of the base.
    Probability {
        /// Modality of the prediction.
        modality: Modality,
        /// Epoch of the prediction.
        epoch: u64,
        /// Class of the prediction.
        class: ClassId,
        /// First segment of the class with such a value.
        segment: u32,
        /// Value found.
        value: Probability,
    },
}

/// What a user label needs and the video does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum UserLabelRejection {
    /// The video has no labels in this modality.
    Unlabelled,
    /// The video has no labels of this class, because the class is not in the weak label or has no threshold.
    Class(ClassId),
    /// The segment is beyond the last segment of the video.
    Segment {
        /// Class of the user label.
        class: ClassId,
        /// First segment with a user label beyond the last segment.
        segment: u32,
        /// Number of segments of the labels.
        segments: u32,
    },
}
