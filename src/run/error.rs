//! The error of a run.

use std::path::PathBuf;

use vaplan_schemas::StoreError;

use crate::calibrate::CalibrateError;
use crate::error::LabelError;
use crate::eval::EvalError;
use crate::parser::TrainError;

/// Error of a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A file cannot be used.
    #[error("`{path}`: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected instead.
        problem: String,
    },
    /// Media cannot be encoded.
    #[cfg(feature = "encode")]
    #[error(transparent)]
    Encode(#[from] crate::encode::EncodeError),
    /// The labels cannot be made.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The parser cannot be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The denoising rule cannot be chosen.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// The labels or predictions cannot be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process committed a version during the run. The run stops, because its graph holds the labels of the
    /// version before.
    #[error(
        "version {found} was made meanwhile by `{command}`, expected none after {expected}: run again, it goes on"
    )]
    Changed {
        /// Last version that this run read or committed.
        expected: u64,
        /// Latest version of the store.
        found: u64,
        /// Command line that made the latest version.
        command: String,
    },
    /// Another command changed the labels since the last run, and the run would take the change back.
    #[error(
        "another command changed the labels of store `{store}` since the last run, and this run would take the change \
         back: {changes}. Write these values into the file of the run to keep them, or add `--force` to take them back"
    )]
    Foreign {
        /// Store of the run.
        store: PathBuf,
        /// What differs from the file.
        changes: String,
    },
    /// The dataflow ended early.
    #[error("the run stopped early: {0}")]
    Stopped(String),
}
