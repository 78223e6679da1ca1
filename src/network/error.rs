//! What can keep a network from being read, written or run.

use std::path::{Path, PathBuf};

use crate::ingest::IngestError;

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
