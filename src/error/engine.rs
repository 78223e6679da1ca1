//! What keeps a labelling run from being done.

use std::path::PathBuf;

use vaplan_dataflows::similarity::PromptError;
use vaplan_schemas::StoreError;

use super::cluster::ClusterError;
use crate::ingest::error::IngestError;

/// What keeps a labelling run from being done; a bad row beside good ones is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// An input that cannot be read at all.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Several processes cannot do it together, or one of them was lost.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Rule, scale or threshold.
    #[error("{0}")]
    Settings(String),
    /// A store version that does not say what its labels were made by.
    #[error("version {version}: {problem}")]
    World {
        /// Store version.
        version: u64,
        /// What is missing or wrong.
        problem: String,
    },
    /// A change that cannot be made.
    #[error("{0}")]
    Change(String),
    /// Text embeddings that are no directions.
    #[error("`{path}`: {problem}")]
    Prompts {
        /// File of the embeddings.
        path: PathBuf,
        /// What is wrong.
        problem: PromptError,
    },
    /// Two full names with one hash; rename one.
    #[error(
        "videos `{first}` and `{second}` have one 64-bit hash, expected names that differ in it: rename one"
    )]
    Collision {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// The splits asked for hold no video.
    #[error("`{annotations}` has no video of split {splits}")]
    NoVideos {
        /// Annotation folder.
        annotations: PathBuf,
        /// Splits asked for.
        splits: String,
    },
    /// Scores of a finished shard could not be kept.
    #[error("cannot {action} `{path}`")]
    Stage {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The caller cancelled the run before its commit began.
    #[error("the run was cancelled before its commit: the store is as it was")]
    Cancelled,
    /// The dataflow did not start, or a part of it went away before the end.
    #[error("the dataflow stopped early: {0}")]
    Stopped(String),
}
