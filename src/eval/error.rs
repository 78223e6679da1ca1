//! The reasons why labels cannot be scored.

use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

/// The reason why labels cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The split has no videos.
    #[error("split `{split}` has no videos")]
    NoVideos {
        /// Requested split.
        split: Split,
    },
    /// No video of the split has an annotated event.
    #[error("split `{split}` has no dense truth: none of its {videos} videos has an annotated event")]
    NoTruth {
        /// Requested split.
        split: Split,
        /// Number of videos of the split.
        videos: usize,
    },
    /// No video of the split has labels.
    #[error("none of the {videos} videos of split `{split}` has labels")]
    NoPredictions {
        /// Requested split.
        split: Split,
        /// Number of videos of the split.
        videos: usize,
    },
    /// A table names a class that is not a class of the truth.
    #[error("table `{table}` has class `{class}`, which the truth does not know (nearest: `{nearest}`)")]
    UnknownClass {
        /// Name of the table.
        table: &'static str,
        /// Class that the table names.
        class: String,
        /// Most similar known class. Empty if no class is known.
        nearest: String,
    },
    /// The labels of a video, modality and class have another length than the video.
    #[error(
        "table `labels`, video `{video}`, {modality}, class `{class}`: {found} segments, expected {expected}"
    )]
    Length {
        /// Full name of the video.
        video: String,
        /// Modality of the labels.
        modality: Modality,
        /// Class of the labels.
        class: String,
        /// Number of labels found.
        found: usize,
        /// Number of segments of the video.
        expected: usize,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] vaplan_schemas::StoreError),
}
