//! What can go wrong between media and features.

use std::path::{Path, PathBuf};

use vaplan_dataflows::workers::WorkersError;
use vaplan_schemas::StoreError;

use super::model::ModelError;
use super::prompts::PromptsError;
use crate::ingest::IngestError;

/// A picture, sound or video that cannot be used; it loses nothing beside it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// No regular file, or it cannot be read.
    #[error(transparent)]
    Open(#[from] IngestError),
    /// A picture that cannot be decoded.
    #[error("picture `{path}` {problem}")]
    Picture {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A sound that cannot be decoded.
    #[error("sound `{path}` {problem}")]
    Sound {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A sound that only ffmpeg reads, and the program is not there.
    #[error(
        "sound `{path}` is {what}, which the program `{program}` reads, and that cannot be started ({source}): install \
         ffmpeg, or give a sound file (wav, flac, mp3)"
    )]
    FfmpegSound {
        /// Which file.
        path: PathBuf,
        /// Its codec and container.
        what: String,
        /// What was tried.
        program: PathBuf,
        /// Why it does not start.
        #[source]
        source: std::io::Error,
    },
    /// A file without a sound track.
    #[error("`{path}` has no sound track")]
    NoSound {
        /// Which.
        path: PathBuf,
    },
    /// A video that ffmpeg does not give frames of.
    #[error("video `{path}` {problem}")]
    Video {
        /// Which.
        path: PathBuf,
        /// What ffmpeg said.
        problem: String,
    },
    /// The ffmpeg program is needed and not there.
    #[error(
        "video `{path}` needs the program `{program}` for its frames, which cannot be started ({source}): install \
         ffmpeg, or give folders of frames"
    )]
    Ffmpeg {
        /// Which video.
        path: PathBuf,
        /// What was tried.
        program: PathBuf,
        /// Why it does not start.
        #[source]
        source: std::io::Error,
    },
}

/// What keeps encoding from being done; a bad file beside good ones is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A model that cannot be used, or failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Annotations, media folders or shards.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Prompts that cannot be used.
    #[error(transparent)]
    Prompts(#[from] PromptsError),
    /// A number or a choice that cannot be.
    #[error("{0}")]
    Settings(String),
    /// A file of the cache or of the results cannot be written.
    #[error("cannot {action} `{path}`")]
    Write {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The folder cannot be locked, or the store is none.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The workers of the dataflow did not start, or one of them panicked.
    #[error(transparent)]
    Workers(#[from] WorkersError),
    /// The dataflow did not start, or a part of it went away before the end.
    #[error("the dataflow stopped early: {0}")]
    Stopped(String),
}

impl EncodeError {
    /// Builds an [`EncodeError::Write`] in `map_err`.
    pub(super) fn write(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EncodeError {
        let path = path.to_owned();
        move |source| EncodeError::Write { action, path, source }
    }
}
