//! Errors of networks, trainings and predictions.

use std::path::{Path, PathBuf};

use vaplan_schemas::StoreError;

use crate::error::LabelError;
use crate::eval::EvalError;
use crate::ingest::IngestError;

/// Why a training or a prediction failed. A bad feature file beside good ones is a reject, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Features that cannot be read at all.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store lacks the settings that its labels were made with.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A checkpoint cannot be used, or libtorch failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Predictions cannot be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A setting has a wrong value: its name, the value and what was expected.
    #[error("{0}")]
    Settings(String),
    /// The data set has no video to learn from.
    #[error(
        "store version {version} has no {split} video with labels and all features (videos of the split: {videos})"
    )]
    NoVideos {
        /// Store version that was read.
        version: u64,
        /// Split that was asked for.
        split: &'static str,
        /// Number of its videos, including those without labels or features.
        videos: usize,
    },
    /// The loss or its gradient is NaN or infinite.
    #[error(
        "epoch {epoch}, batch {batch}: the {what} is {value}, expected a finite number; the last checkpoint is that of the \
         epoch before (videos of the batch: {videos}); a lower learning_rate or a clip may help"
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
    /// The training was asked to stop in the middle of an epoch.
    #[error("the training was stopped in the middle of an epoch; it repeats that epoch when it continues")]
    Stopped,
    /// A file of work in progress.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What the program tried to do.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
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

/// Why a network cannot be read, written or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A file of weights cannot be used.
    #[error("`{path}`: {problem}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// The problem, with what was expected.
        problem: WeightsProblem,
    },
    /// A file cannot be opened.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Reading or writing failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What the program tried to do.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// Settings or sizes make no network.
    #[error("{0}")]
    Config(String),
    /// libtorch failed, for example for lack of memory.
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

/// The problem with a file of weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsProblem {
    /// The header or another part breaks the format.
    #[error("{0}")]
    Format(String),
    /// A pickle calls something that makes no tensor.
    #[error("asks for `{found}`, expected only tensors of a state dict; no pickle is executed")]
    Call {
        /// Module and name.
        found: String,
    },
    /// A tensor is absent.
    #[error("has no tensor `{name}`, which the network needs")]
    Missing {
        /// Name wanted.
        name: String,
    },
    /// A tensor is not a parameter of the network.
    #[error("has a tensor `{name}`, which is not a parameter of the network")]
    Unknown {
        /// Name found.
        name: String,
    },
    /// A tensor has another shape.
    #[error("tensor `{name}` has shape {found:?}, expected {expected}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// The expected shape.
        expected: String,
    },
}
