//! The errors of networks, trainings and predictions.

use std::path::{Path, PathBuf};

use vaplan_schemas::StoreError;

use crate::error::LabelError;
use crate::eval::EvalError;
use crate::ingest::IngestError;

/// Why a training or a prediction failed. A bad feature file beside good files is a rejected row, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The features cannot be read at all.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not have the settings with which its labels were made.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A checkpoint cannot be used, or libtorch failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The predictions cannot be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A setting has a wrong value. The text has its name, the value and what was expected.
    #[error("{0}")]
    Settings(String),
    /// The data set has no video to train on.
    #[error(
        "store version {version} has no {split} video with labels and all features (videos of the split: {videos})"
    )]
    NoVideos {
        /// The store version that was read.
        version: u64,
        /// The requested split.
        split: &'static str,
        /// The number of its videos, including videos without labels or features.
        videos: usize,
    },
    /// The loss or its gradient is NaN or infinite.
    #[error(
        "epoch {epoch}, batch {batch}: the {what} is {value}, expected a finite number; the last checkpoint is that of the \
         epoch before (videos of the batch: {videos}); a lower learning_rate or a clip may help"
    )]
    NotFinite {
        /// The epoch of the training, from 1.
        epoch: u64,
        /// The batch of the epoch, from 0.
        batch: usize,
        /// The quantity: "loss", "norm of its gradient" or "sum of the network's probabilities".
        what: &'static str,
        /// The value: NaN or an infinity.
        value: f64,
        /// The names of the videos in the batch.
        videos: String,
    },
    /// The training was asked to stop in the middle of an epoch.
    #[error("the training was stopped in the middle of an epoch; it repeats that epoch when it continues")]
    Stopped,
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
}

impl TrainError {
    /// Makes a function for `map_err`.
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
    /// A file could not be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The settings or sizes do not describe a valid network.
    #[error("{0}")]
    Config(String),
    /// libtorch failed, for example because memory ran out.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl NetworkError {
    /// Makes a function for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> NetworkError {
        let path = path.to_owned();
        move |source| NetworkError::Io { action, path, source }
    }

    /// Makes a function for `map_err`.
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
    /// The header or another part of the file breaks the format.
    #[error("{0}")]
    Format(String),
    /// A pickle calls a function that does not make a tensor.
    #[error("asks for `{found}`, expected only tensors of a state dict; no pickle is executed")]
    Call {
        /// The module and name of the function.
        found: String,
    },
    /// A tensor is missing.
    #[error("has no tensor `{name}`, which the network needs; {found}")]
    Missing {
        /// The name of the missing tensor.
        name: String,
        /// The tensors of the file, for people.
        found: String,
    },
    /// A tensor has a wrong shape.
    #[error("tensor `{name}` has shape {found:?}, expected {expected}")]
    Shape {
        /// The name of the tensor.
        name: String,
        /// The shape that was found.
        found: Vec<i64>,
        /// The expected shape.
        expected: String,
    },
}
