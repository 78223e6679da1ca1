//! The media file of a video.
//!
//! The folder is listed once, when the server starts. A request names a video, which is looked up in that list: no part of
//! a request ever becomes part of a path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::ServeError;
use crate::ingest::annotations::key11;

/// Extensions of files that browsers play, with pictures.
const VIDEO: [&str; 6] = ["mp4", "m4v", "webm", "mov", "ogv", "mkv"];
/// Extensions of files that browsers play, without pictures.
const AUDIO: [&str; 8] = ["wav", "mp3", "m4a", "ogg", "oga", "opus", "flac", "aac"];
/// Depth of the folders below the media folder that are listed.
const DEPTH: usize = 4;

/// The kind of a media file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Pictures, perhaps with sound.
    Video,
    /// Sound only.
    Audio,
}

/// The playable files below a folder, by the name of the file without its extension.
#[derive(Debug, Default)]
pub(super) struct MediaIndex {
    files: BTreeMap<Arc<str>, (MediaKind, PathBuf)>,
}

impl MediaIndex {
    /// Lists a folder and the folders below it.
    ///
    /// # Errors
    /// Returns [`ServeError::Media`] if the folder cannot be listed.
    pub(super) fn read(folder: &Path) -> Result<MediaIndex, ServeError> {
        let mut index = MediaIndex::default();
        index.list(folder, DEPTH).map_err(|error| ServeError::Media {
            path: folder.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(index)
    }

    fn list(&mut self, folder: &Path, depth: usize) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                if depth > 0
                    && let Err(error) = self.list(&path, depth - 1)
                {
                    tracing::warn!(folder = %path.display(), %error, "a folder of media is left out");
                }
                continue;
            }
            // Opening a FIFO waits for a program that writes to it, possibly for ever.
            if !path.is_file() {
                continue;
            }
            let (Some(stem), Some(kind)) = (path.file_stem().and_then(|stem| stem.to_str()), kind(&path))
            else {
                continue;
            };
            // A video file shows more than the sound file of the same name. Of two alike, the first in order of path
            // counts, so that a restart shows the same file.
            let own = (kind, path.clone());
            let file = self.files.entry(stem.into()).or_insert_with(|| own.clone());
            if own < *file {
                *file = own;
            }
        }
        Ok(())
    }

    /// The file of a video: of its full name, or of its first 11 characters if `is_only` says that no other video of the
    /// store begins with them.
    pub(super) fn find(
        &self,
        video: &str,
        is_only: impl FnOnce(&str) -> bool,
    ) -> Option<&(MediaKind, PathBuf)> {
        if let Some(file) = self.files.get(video) {
            return Some(file);
        }
        let key = key11(video);
        let file = self.files.get(key)?;
        is_only(key).then_some(file)
    }
}

fn kind(path: &Path) -> Option<MediaKind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match &*extension {
        own if VIDEO.contains(&own) => Some(MediaKind::Video),
        own if AUDIO.contains(&own) => Some(MediaKind::Audio),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(index: &MediaIndex, video: &str) -> Option<String> {
        let (_, path) = index.find(video, |key| key != "abcdefghijX")?;
        Some(path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn a_file_is_found_by_the_name_of_its_video() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        for file in [
            "full_0_10.wav",
            "full_0_10.mp4",
            "deep/abcdefghijk.WebM",
            "abcdefghijX.mp4",
            "notes.txt",
        ] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let fifo = folder.path().join("pipe_0_10.mp4");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        std::os::unix::fs::symlink(
            folder.path().join("full_0_10.mp4"),
            folder.path().join("link_0_10.mp4"),
        )
        .unwrap();
        let index = MediaIndex::read(folder.path()).unwrap();
        assert_eq!(name(&index, "full_0_10").as_deref(), Some("full_0_10.mp4"));
        assert_eq!(
            name(&index, "abcdefghijk_0_10").as_deref(),
            Some("abcdefghijk.WebM")
        );
        assert_eq!(
            name(&index, "abcdefghijX_0_10"),
            None,
            "several videos begin with abcdefghijX"
        );
        assert_eq!(name(&index, "link_0_10").as_deref(), Some("link_0_10.mp4"));
        for other in [
            "pipe_0_10",
            "notes",
            "../full_0_10",
            "full_0_10.mp4",
            "deep/abcdefghijk",
            "",
            "/etc/passwd",
        ] {
            assert_eq!(name(&index, other), None, "{other}");
        }
    }
}
