//! Lists the frames of a folder in order, and chooses one frame for each segment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cut::Cut;
use crate::encode::MediaError;
use crate::encode::image::{Rgb, decode};
use crate::ingest::{IngestError, open_regular};

/// Extensions of frames.
const FRAME: [&str; 4] = ["jpg", "jpeg", "png", "ppm"];

/// The frames of a folder in order, with a note if their names are odd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameList {
    /// Paths of the frames, in order of time.
    pub paths: Vec<PathBuf>,
    /// A note for the user if the order is a guess.
    pub note: Option<String>,
}

/// Lists the frames of a folder in the order of the numbers in their names.
///
/// If the names differ only in their numbers, the function compares them number by number, from the left. A number may
/// have a fraction. Therefore `frame2.jpg` comes before `frame10.jpg`, and `00-00-01.125.png` before
/// `00-00-01.25.png`.
///
/// If the names differ in other parts too, the function compares their last numbers, provided that each name has one
/// and all of them differ. Otherwise it compares the names as text and numbers. In both cases, a note says so.
///
/// Hidden files do not count as frames.
///
/// # Errors
/// Returns [`MediaError::Open`] if the folder cannot be listed. Returns [`MediaError::Picture`] if the numbers of two
/// names are equal, such as `1.1.png` and `1.10.png`: these could be times (1.1 s twice) or counts (1 and 10).
pub fn list(folder: &Path) -> Result<FrameList, MediaError> {
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
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            frames.push((Name::of(&stem), path));
        }
    }
    // The folder lists its files in any order. Sort them as text first, so that the order after the next (stable) sort
    // is always the same.
    frames.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    let Some((first, _)) = frames.first() else {
        return Ok(FrameList::default());
    };
    let mut note = None;
    if frames.iter().all(|(name, _)| name.texts == first.texts) {
        frames.sort_by(|a, b| a.0.numbers.cmp(&b.0.numbers));
        if let Some(pair) = frames
            .windows(2)
            .find(|pair| pair[0].0.numbers == pair[1].0.numbers)
        {
            return Err(MediaError::Picture {
                path: folder.to_owned(),
                problem: format!(
                    "is a folder of frames in an unknown order: `{}` and `{}` have equal numbers, expected one frame \
                     for each number or time",
                    name(&pair[0].1),
                    name(&pair[1].1)
                ),
            });
        }
    } else {
        let lasts: BTreeSet<Option<&Number>> = frames.iter().map(|(name, _)| name.numbers.last()).collect();
        let distinct = lasts.len() == frames.len() && !lasts.contains(&None);
        let how = if distinct {
            frames.sort_by(|a, b| a.0.numbers.last().cmp(&b.0.numbers.last()));
            "by their last number"
        } else {
            frames.sort_by(|a, b| a.0.cmp(&b.0));
            "by name"
        };
        let (_, other) = frames
            .iter()
            .find(|(name, _)| name.texts != frames[0].0.texts)
            .expect("the names differ in their texts");
        note = Some(format!(
            "names of frames differ in more than numbers (`{}`, `{}`): the frames are ordered {how}",
            name(&frames[0].1),
            name(other)
        ));
    }
    Ok(FrameList {
        paths: frames.into_iter().map(|(_, path)| path).collect(),
        note,
    })
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// The name of a frame, split into texts and numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// The texts before, between and after the numbers; there is one more text than numbers.
    texts: Vec<String>,
    numbers: Vec<Number>,
}

/// A number in a name. `1.5` and `01.50` are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    /// The digits before the point without leading zeros, and how many they are. More digits mean a larger number, so
    /// the count is compared first.
    whole: (usize, String),
    /// The digits after the point, without zeros at the end. They compare as text.
    fraction: String,
}

impl Name {
    fn of(stem: &str) -> Name {
        let (mut texts, mut numbers) = (vec![String::new()], Vec::new());
        let mut rest = stem;
        while let Some(first) = rest.chars().next() {
            if !first.is_ascii_digit() {
                texts
                    .last_mut()
                    .expect("there is one more than numbers")
                    .push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (whole, after) = digits(rest);
            let (fraction, after) = match after.strip_prefix('.').map(digits) {
                Some((fraction, after)) if !fraction.is_empty() => (fraction, after),
                _ => ("", after),
            };
            let whole = whole.trim_start_matches('0');
            numbers.push(Number {
                whole: (whole.len(), whole.to_owned()),
                fraction: fraction.trim_end_matches('0').to_owned(),
            });
            texts.push(String::new());
            rest = after;
        }
        Name { texts, numbers }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Returns the frames that are chosen for the segments of a folder, in order of the segments.
///
/// # Errors
/// Returns [`MediaError::Picture`] if the folder has no frames. Returns the errors of [`list`].
pub fn chosen(folder: &Path, cut: &Cut) -> Result<FrameList, MediaError> {
    let FrameList { paths: frames, note } = list(folder)?;
    if frames.is_empty() {
        return Err(MediaError::Picture {
            path: folder.to_owned(),
            problem: format!(
                "is a folder without frames, expected files *.{}",
                FRAME.join(", *.")
            ),
        });
    }
    let chosen = cut.frames(frames.len()).into_iter();
    Ok(FrameList {
        paths: chosen.map(|at| frames[at].clone()).collect(),
        note,
    })
}

/// Reads the bytes of a file.
///
/// # Errors
/// Returns [`MediaError::Open`] if the path is not a regular file, or if the file cannot be read.
pub fn bytes(path: &Path) -> Result<Vec<u8>, MediaError> {
    let (mut file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).map_err(IngestError::io("read", path))?;
    Ok(bytes)
}

/// Decodes the picture of a file from its bytes; `path` is used in the error.
///
/// # Errors
/// Returns [`MediaError::Picture`] if the picture cannot be decoded.
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
        assert_eq!(
            names(folder.path()),
            ["v3_frame1.png", "v3_frame2.JPG", "v3_frame10.jpg"]
        );
        std::fs::write(folder.path().join("cover.jpg"), b"").unwrap();
        let found = list(folder.path()).unwrap();
        assert_eq!(
            found.paths.iter().map(|path| name(path)).collect::<Vec<_>>(),
            ["cover.jpg", "v3_frame1.png", "v3_frame2.JPG", "v3_frame10.jpg"]
        );
        assert_eq!(
            found.note.unwrap(),
            "names of frames differ in more than numbers (`cover.jpg`, `v3_frame1.png`): the frames are ordered by name"
        );
    }

    fn names(folder: &Path) -> Vec<String> {
        let found = list(folder).unwrap();
        assert_eq!(found.note, None);
        found.paths.iter().map(|path| name(path).into_owned()).collect()
    }

    /// Makes a folder of empty files with these names.
    fn named(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        names
            .iter()
            .for_each(|name| std::fs::write(folder.path().join(name), b"").unwrap());
        folder
    }

    #[test]
    fn frames_named_by_time_are_in_the_order_of_time() {
        for order in [
            &[
                "0.5.png",
                "0.75.png",
                "1.0.png",
                "1.125.png",
                "1.25.png",
                "10.0.png",
            ][..],
            &[
                "00-00-00.875.png",
                "00-00-01.000.png",
                "00-01-00.125.png",
                "01-00-00.000.png",
            ],
            &["t9.5s.jpg", "t10.25s.jpg", "t10.5s.jpg"],
            &["v1_0.png", "v1_0.125.png", "v1_2.png"],
            &["clip.2.png", "clip.10.png"],
            &[
                "20240101000000000000000000009.png",
                "20240101000000000000000000010.png",
            ],
        ] {
            let folder = named(order);
            assert_eq!(names(folder.path()), order);
        }
        let last = named(&["b_1.png", "a_2.png"]);
        let found = list(last.path()).unwrap();
        assert!(found.note.unwrap().ends_with("ordered by their last number"));
        assert!(found.paths[0].ends_with("b_1.png"));
        let unclear = named(&["1.1.png", "1.2.png", "1.10.png"]);
        let refused = list(unclear.path()).unwrap_err().to_string();
        assert!(
            refused.contains("`1.1.png` and `1.10.png` have equal numbers, expected one frame"),
            "{refused}"
        );
    }
}
