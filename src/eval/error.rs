//! What can keep labels from being scored.

use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

/// Labels that cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The split is empty.
    #[error("split `{split}` has no videos")]
    NoVideos {
        /// Split asked for.
        split: Split,
    },
    /// Nothing says what really happens in the split's videos.
    #[error("split `{split}` has no dense truth: none of its {videos} videos has an annotated event")]
    NoTruth {
        /// Split asked for.
        split: Split,
        /// Videos in it.
        videos: usize,
    },
    /// There is nothing to score.
    #[error("none of the {videos} videos of split `{split}` has labels")]
    NoPredictions {
        /// Split asked for.
        split: Split,
        /// Videos in it.
        videos: usize,
    },
    /// A table names a class that the truth does not know.
    #[error("table `{table}` has class `{class}`, which the truth does not know (nearest: `{nearest}`)")]
    UnknownClass {
        /// Table read.
        table: &'static str,
        /// Name found.
        class: String,
        /// Nearest known name; empty where no class is known.
        nearest: String,
    },
    /// A track is not as long as its video.
    #[error(
        "table `labels`, video `{video}`, {modality}, class `{class}`: {found} segments, expected {expected}"
    )]
    Length {
        /// Video of the track.
        video: String,
        /// Modality of the track.
        modality: Modality,
        /// Class of the track.
        class: String,
        /// Segments of the track.
        found: usize,
        /// Segments of the video.
        expected: usize,
    },
    /// The store does not read back.
    #[error(transparent)]
    Store(#[from] vaplan_schemas::StoreError),
}
