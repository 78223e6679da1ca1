//! The errors of encoding.

use std::path::{Path, PathBuf};

use vaplan_dataflows::workers::WorkersError;
use vaplan_schemas::StoreError;

use super::model::ModelError;
use super::prompts::PromptsError;
use crate::error::LabelError;
use crate::ingest::IngestError;

/// The reason why a picture, sound or video cannot be used. Encoding goes on with all other media.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The path is not a regular file, or the file cannot be read.
    #[error(transparent)]
    Open(#[from] IngestError),
    /// A picture cannot be decoded, or a video has no pictures that can be used.
    #[error("picture `{path}` {problem}")]
    Picture {
        /// Path of the file or folder.
        path: PathBuf,
        /// What is wrong with the file, as the rest of a sentence whose subject is the file.
        problem: String,
    },
    /// The video has sound, but no pictures.
    #[error(
        "video `{name}` has no video file and no folder of frames `{name}`, only the sound file `{sound}`: add the \
         pictures, or encode only the sound"
    )]
    NoPictures {
        /// Name of the video.
        name: std::sync::Arc<str>,
        /// Path of the sound file.
        sound: PathBuf,
    },
    /// A sound file cannot be decoded.
    #[error("sound `{path}` {problem}")]
    Sound {
        /// Path of the file or folder.
        path: PathBuf,
        /// What is wrong with the file, as the rest of a sentence whose subject is the file.
        problem: String,
    },
    /// The sound can be read by ffmpeg only, and the ffmpeg program cannot be started.
    #[error(
        "sound `{path}` is {what}, which the program `{program}` reads, and that cannot be started ({source}): install \
         ffmpeg, or give a sound file (wav, flac, mp3)"
    )]
    FfmpegSound {
        /// Path of the file.
        path: PathBuf,
        /// Codec and container of the file.
        what: String,
        /// The program that vaplan tried to start.
        program: PathBuf,
        /// Why the program does not start.
        #[source]
        source: std::io::Error,
    },
    /// The file has no sound track.
    #[error("`{path}` has no sound track")]
    NoSound {
        /// Path of the file or folder.
        path: PathBuf,
    },
    /// ffmpeg gives no frames of the video.
    #[error("video `{path}` {problem}")]
    Video {
        /// Path of the file or folder.
        path: PathBuf,
        /// What ffmpeg reported, as the rest of a sentence whose subject is the video.
        problem: String,
    },
    /// The video needs the ffmpeg program, and the program cannot be started.
    #[error(
        "video `{path}` needs the program `{program}` for its frames, which cannot be started ({source}): install \
         ffmpeg, or give folders of frames"
    )]
    Ffmpeg {
        /// Path of the video.
        path: PathBuf,
        /// The program that vaplan tried to start.
        program: PathBuf,
        /// Why the program does not start.
        #[source]
        source: std::io::Error,
    },
}

/// The reason why a whole encoding run fails. A media file that cannot be used does not fail the run: it becomes a
/// rejected row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A model cannot be used, or the model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Annotations, a media folder or a shard cannot be read or written.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The prompts file cannot be used.
    #[error(transparent)]
    Prompts(#[from] PromptsError),
    /// The settings of the request are invalid or contradict each other.
    #[error("{0}")]
    Settings(String),
    /// A file of the cache or of the features cannot be written.
    #[error("cannot {action} `{path}`")]
    Write {
        /// The action that failed, such as `write`.
        action: &'static str,
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// The output folder cannot be locked, or the store cannot be opened or created.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The media cannot be labelled while they are encoded.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The workers of the dataflow did not start, or one of them panicked.
    #[error(transparent)]
    Workers(#[from] WorkersError),
    /// A thread of the dataflow ended before all media were encoded.
    #[error("the dataflow stopped early: {0}")]
    Stopped(String),
}

impl EncodeError {
    /// Builds the closure for `map_err` that makes an [`EncodeError::Write`].
    pub(super) fn write(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EncodeError {
        let path = path.to_owned();
        move |source| EncodeError::Write { action, path, source }
    }
}
