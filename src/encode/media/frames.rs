//! Pictures of a folder or of a video, one per segment.

use std::path::{Path, PathBuf};

use super::cut::Cut;
use crate::encode::MediaError;
use crate::encode::image::{Rgb, decode};
use crate::ingest::{IngestError, open_regular};

/// What is a frame.
const FRAME: [&str; 4] = ["jpg", "jpeg", "png", "ppm"];

/// Frames of a folder, in order: by the last number in their names where all have one, else by name.
///
/// `frame2.jpg` comes before `frame10.jpg`; hidden files are none.
///
/// # Errors
/// [`IngestError::Io`].
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let mut frames = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
        let path = entry.map_err(IngestError::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        if !name.starts_with('.') && FRAME.contains(&&*extension) {
            frames.push(path);
        }
    }
    frames.sort_unstable();
    if frames.iter().all(|path| number(path).is_some()) {
        frames.sort_by_key(|path| number(path));
    }
    Ok(frames)
}

fn number(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let head = stem.trim_end_matches(|c: char| !c.is_ascii_digit());
    let digits = &head[head.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
    digits.parse().ok()
}

/// Frames of a folder that stand for its segments, in order.
///
/// # Errors
/// [`MediaError::Picture`] for a folder without frames.
pub fn chosen(folder: &Path, cut: &Cut) -> Result<Vec<PathBuf>, MediaError> {
    let frames = list(folder)?;
    if frames.is_empty() {
        return Err(MediaError::Picture {
            path: folder.to_owned(),
            problem: format!(
                "is a folder without frames, expected files *.{}",
                FRAME.join(", *.")
            ),
        });
    }
    Ok(cut
        .frames(frames.len())
        .into_iter()
        .map(|at| frames[at].clone())
        .collect())
}

/// Bytes of a file.
///
/// # Errors
/// [`MediaError::Open`].
pub fn bytes(path: &Path) -> Result<Vec<u8>, MediaError> {
    let (mut file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).map_err(IngestError::io("read", path))?;
    Ok(bytes)
}

/// A decoded picture of a file.
///
/// # Errors
/// [`MediaError::Picture`].
pub fn picture(path: &Path, bytes: &[u8]) -> Result<Rgb, MediaError> {
    decode(bytes).map_err(|problem| MediaError::Picture {
        path: path.to_owned(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_by_number_and_an_empty_folder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let refused = chosen(folder.path(), &Cut::default()).unwrap_err().to_string();
        assert!(
            refused.ends_with("is a folder without frames, expected files *.jpg, *.jpeg, *.png, *.ppm"),
            "{refused}"
        );
        for name in [
            "v3_frame10.jpg",
            "v3_frame2.JPG",
            "v3_frame1.png",
            ".hidden.jpg",
            "list.txt",
        ] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let names = |paths: Vec<PathBuf>| -> Vec<String> {
            paths
                .iter()
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(
            names(list(folder.path()).unwrap()),
            ["v3_frame1.png", "v3_frame2.JPG", "v3_frame10.jpg"]
        );
        std::fs::write(folder.path().join("cover.jpg"), b"").unwrap();
        let by_name = names(list(folder.path()).unwrap());
        assert_eq!(
            by_name,
            ["cover.jpg", "v3_frame1.png", "v3_frame10.jpg", "v3_frame2.JPG"]
        );
    }
}
