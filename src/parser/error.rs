//! What keeps a training from being done.

use std::path::{Path, PathBuf};

use vaplan_schemas::StoreError;

use crate::error::LabelError;
use crate::eval::EvalError;
use crate::ingest::IngestError;

/// What keeps a training, or a prediction, from being done; a bad feature file beside good ones is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Features that cannot be read at all.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not say what its labels were made by.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A checkpoint that cannot be used, or libtorch.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Truth that predictions cannot be scored against.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A setting: its name, value and what was expected.
    #[error("{0}")]
    Settings(String),
    /// Nothing to learn from.
    #[error(
        "store version {version} has no {split} video with labels and all features (videos of the split: {videos})"
    )]
    NoVideos {
        /// Version read.
        version: u64,
        /// Split asked for.
        split: &'static str,
        /// Videos of it, with and without.
        videos: usize,
    },
    /// The loss or its gradient is no number any more.
    #[error(
        "epoch {epoch}, batch {batch}: the {what} is {value}; parameters are those before, kept in the last checkpoint \
         (videos of the batch: {videos})"
    )]
    NotFinite {
        /// Epoch of the training, from 1.
        epoch: u64,
        /// Batch of the epoch, from 0.
        batch: usize,
        /// "loss", "norm of its gradient" or "sum of the network's probabilities".
        what: &'static str,
        /// NaN, or an infinity.
        value: f64,
        /// Names of the videos in it.
        videos: String,
    },
    /// It was asked to stop, in the middle of an epoch.
    #[error("the training was stopped in the middle of an epoch, which is begun again when it goes on")]
    Stopped,
    /// A file of work in progress.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl TrainError {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
        let path = path.to_owned();
        move |source| TrainError::Io { action, path, source }
    }
}

/// What can keep a network from being read, written or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A file of weights is not what it should be.
    #[error("`{path}`: {problem}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: WeightsProblem,
    },
    /// A file cannot be opened.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Reading or writing failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Sizes that make no network.
    #[error("{0}")]
    Config(String),
    /// libtorch refused: out of memory, say.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl NetworkError {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> NetworkError {
        let path = path.to_owned();
        move |source| NetworkError::Io { action, path, source }
    }

    /// For `map_err`.
    pub(crate) fn weights(path: &Path) -> impl Fn(WeightsProblem) -> NetworkError {
        let path = path.to_owned();
        move |problem| NetworkError::Weights {
            path: path.clone(),
            problem,
        }
    }
}

/// What is wrong with a file of weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsProblem {
    /// The header or another part is not of the format.
    #[error("{0}")]
    Format(String),
    /// A pickle that wants more than tensors.
    #[error("asks for `{found}`, expected only tensors of a state dict: nothing of a pickle is executed")]
    Call {
        /// Module and name.
        found: String,
    },
    /// A tensor is absent.
    #[error("has no tensor `{name}`, expected the parameters of a HAN")]
    Missing {
        /// Name wanted.
        name: String,
    },
    /// A tensor that no part of the network has.
    #[error("has a tensor `{name}`, which is no parameter of a HAN")]
    Unknown {
        /// Name found.
        name: String,
    },
    /// A tensor of another shape.
    #[error("tensor `{name}` has shape {found:?}, expected {expected}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// As stated.
        found: Vec<i64>,
        /// What would do.
        expected: String,
    },
}
