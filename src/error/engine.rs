//! What keeps a labelling run from being done.

use std::path::PathBuf;

use vaplan_dataflows::similarity::PromptError;
use vaplan_schemas::{Modality, StoreError};

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
    /// An input of a store is not there.
    #[error(
        "{modality} features `{path}` of store `{store}` are not there, and this change needs them: put them back, name the \
         place where they are now with `vaplan relabel --store '{store}' --rebase '{path}'=NEW`, or take them out of the \
         store with `--remove-{modality} '{path}'`"
    )]
    InputGone {
        /// Store.
        store: PathBuf,
        /// Which features.
        modality: Modality,
        /// Input as the store records it.
        path: PathBuf,
    },
    /// A store of an older program records its inputs relative to the folder in which it was made.
    #[error(
        "store `{store}` records its input `{path}` relative to the folder in which it was made: run `vaplan relabel \
         --store '{store}' --rebase .=FOLDER` once with that folder (the working directory is `{here}`)"
    )]
    RelativeInputs {
        /// Store.
        store: PathBuf,
        /// Input as the store records it.
        path: PathBuf,
        /// Working directory.
        here: PathBuf,
    },
    /// Most videos would lose the labels of a modality, because their features are missing or cannot be used.
    #[error(
        "{lost} of {had} videos with {modality} labels would lose all of them, because their {modality} {inputs} are \
         missing or cannot be used{}: nothing was committed. Correct the {inputs}, or commit the loss by \
         `--allow-missing` of `label` or `relabel`",
        first.as_ref().map_or_else(String::new, |first| format!("; the first rejected row is {first}"))
    )]
    Lost {
        /// Modality of the labels.
        modality: Modality,
        /// What the inputs of the modality are: `features`, or the `labels` of another program.
        inputs: &'static str,
        /// Number of videos that would lose their labels.
        lost: usize,
        /// Number of videos with labels in the latest version.
        had: usize,
        /// File and reason of the first rejected row, if there is one.
        first: Option<String>,
    },
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
    #[error("`{annotations}` has no video of split {splits}{}", first_reject(.rejected))]
    NoVideos {
        /// Annotation folder.
        annotations: PathBuf,
        /// Splits asked for.
        splits: String,
        /// Number of rejected rows of the annotations, and the first of them with its reason.
        rejected: Option<(usize, String)>,
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

/// The rejected rows of annotations that have no video at all, as the end of a message.
fn first_reject(rejected: &Option<(usize, String)>) -> String {
    let first = rejected.as_ref();
    first.map_or_else(String::new, |(count, first)| {
        format!(": {count} of their rows were rejected, the first is {first}")
    })
}
