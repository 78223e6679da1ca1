//! The errors of `parse`.

use std::path::{Path, PathBuf};

use vaplan_schemas::{Modality, StoreError};

use crate::encode::EncodeError;
use crate::ingest::IngestError;
use crate::parser::TrainError;

/// The reason why nothing could be parsed. A single file that cannot be used is a rejected row instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The model folder cannot be used.
    #[error(transparent)]
    Model(#[from] TrainError),
    /// An encoder or the encoding failed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A folder of media cannot be listed.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The output folder cannot be locked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No path leads to media.
    #[error("no media to parse: {0}")]
    NoMedia(String),
    /// The network needs features that cannot be made of media.
    #[error("model `{model}` {problem}")]
    Unsuitable {
        /// Folder of the model.
        model: PathBuf,
        /// What the model needs, as the rest of a sentence whose subject is the model.
        problem: String,
    },
    /// The encoder of a modality is not given, or is not where the model says.
    #[error("model `{model}` needs {needed}, {problem}: name its folder by {flag} DIR")]
    EncoderMissing {
        /// Folder of the model.
        model: PathBuf,
        /// The encoder that the model needs.
        needed: String,
        /// Why the encoder cannot be used.
        problem: String,
        /// The option that names the folder.
        flag: &'static str,
    },
    /// The encoder is not the one that the model was trained with.
    #[error(
        "model `{model}` needs {needed}, but `{found}` {problem}: name the folder of the same encoder by {flag} DIR"
    )]
    EncoderChanged {
        /// Folder of the model.
        model: PathBuf,
        /// The encoder that the model needs.
        needed: String,
        /// Folder of the encoder that was opened.
        found: PathBuf,
        /// What differs.
        problem: String,
        /// The option that names the folder.
        flag: &'static str,
    },
    /// A file or folder cannot be read or written.
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

impl ParseError {
    /// Makes a function for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ParseError {
        let path = path.to_owned();
        move |source| ParseError::Io { action, path, source }
    }
}

/// The option that names the encoder of a modality.
pub(super) const fn flag(modality: Modality) -> &'static str {
    match modality {
        Modality::Visual => "--clip",
        Modality::Audio => "--clap",
    }
}
