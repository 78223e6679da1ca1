//! Finds the media files of each video.
//!
//! A media folder can have `<video>.mp4` (or another video file), `<video>.wav` (or another sound file), and folders
//! `<video>/` of frames. `<video>` is the full name of a video or its first 11 characters. If a video has both, a
//! folder of frames is used instead of the pictures of a video file, and a sound file instead of the sound of a video
//! file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::rows::{RejectKind, RejectRow};

use crate::ingest::IngestError;
use crate::ingest::annotations::{KeyError, Roster};

/// Extensions of video files.
const VIDEO: [&str; 22] = [
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts", "flv", "f4v", "wmv",
    "asf", "3gp", "3g2", "ogv", "vob", "mxf", "divx", "rm",
];
/// Extensions of sound files.
const SOUND: [&str; 24] = [
    "wav", "wave", "w64", "rf64", "flac", "mp3", "mp2", "ogg", "oga", "opus", "spx", "m4a", "m4b", "aac",
    "ac3", "eac3", "mka", "wma", "aif", "aiff", "aifc", "caf", "au", "amr",
];

/// The folder or file with the pictures of a video.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pictures {
    /// A folder of frames.
    Frames(PathBuf),
    /// A video file.
    Video(PathBuf),
}

impl Pictures {
    /// Path of the folder or file.
    pub fn path(&self) -> &Path {
        match self {
            Pictures::Frames(path) | Pictures::Video(path) => path,
        }
    }
}

/// The media of one video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// The full name from the annotations; without annotations, the name of the files.
    pub name: Arc<str>,
    /// The pictures of the video.
    pub pictures: Option<Pictures>,
    /// The file with the sound of the video; it can be a video file.
    pub sound: Option<PathBuf>,
    /// Does the video have several files of one kind? Then none of these is used, and a rejected row names all of them.
    pub ambiguous: bool,
}

#[derive(Default)]
struct FoundFiles {
    frames: Vec<PathBuf>,
    video: Vec<PathBuf>,
    sound: Vec<PathBuf>,
}

/// Finds the media of all videos, in the order of their names. If `names` is given, only videos with these names are
/// used.
///
/// A file whose name means two videos becomes a rejected row, and so do two files of one kind for the same video. The
/// function does not choose one of them, because the choice could be wrong. One note for each folder counts the media that
/// match no name, and without names the folders that have no frames.
///
/// # Errors
/// Returns [`IngestError::Io`] if a folder cannot be listed.
pub fn find(
    folders: &[PathBuf],
    names: Option<&[Arc<str>]>,
) -> Result<(Vec<Media>, Vec<RejectRow>), IngestError> {
    let roster = names.map(|names| Roster::new(names.iter().cloned()));
    let mut found: BTreeMap<Arc<str>, FoundFiles> = BTreeMap::new();
    let mut rejects = Vec::new();
    for folder in folders {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
            paths.push(entry.map_err(IngestError::io("list", folder))?.path());
        }
        paths.sort_unstable();
        let mut unused: Vec<PathBuf> = Vec::new();
        for path in paths {
            let Some((key, kind)) = kind(&path) else { continue };
            let has_frames = || super::frames::list(&path).is_ok_and(|frames| !frames.paths.is_empty());
            let name: Arc<str> = match (&roster, names) {
                (Some(roster), Some(names)) => match roster.resolve(key) {
                    Ok(position) => names[position].clone(),
                    Err(KeyError::Unknown) => {
                        if kind != MediaKind::Frames || has_frames() {
                            unused.push(path);
                        }
                        continue;
                    }
                    Err(ambiguous) => {
                        rejects.push(reject(
                            RejectKind::AmbiguousKey,
                            &path,
                            key,
                            ambiguous.to_string(),
                        ));
                        continue;
                    }
                },
                // Without names, a folder counts as a video only if it has frames.
                _ if kind == MediaKind::Frames && super::frames::list(&path).is_ok() && !has_frames() => {
                    unused.push(path);
                    continue;
                }
                _ => key.into(),
            };
            let own = found.entry(name).or_default();
            match kind {
                MediaKind::Frames => own.frames.push(path),
                MediaKind::Video => own.video.push(path),
                MediaKind::Sound => own.sound.push(path),
            }
        }
        rejects.extend(note_unused(folder, &unused, names.is_some()));
    }
    let media = settle(found, &mut rejects);
    Ok((media, rejects))
}

/// The note on the media of a folder that are not used; none if there are no such media.
fn note_unused(folder: &Path, unused: &[PathBuf], annotated: bool) -> Option<RejectRow> {
    let example = name_of(unused.first()?);
    let count = unused.len();
    let reason = if annotated {
        format!(
            "{count} media match no annotated video and are not used, for example `{example}`: expected the full name of a \
             video or its first 11 characters"
        )
    } else {
        format!(
            "{count} folders have no frames (jpg, png ..) and are not used, for example `{example}`: name them with --media \
             if they have media inside"
        )
    };
    Some(RejectRow::note(
        RejectKind::UnknownVideo,
        folder.display().to_string(),
        reason,
    ))
}

/// Finds the media that paths name: a path is a media file, a folder of frames, or a folder of media as in [`find`]. A path
/// that is none of these becomes a rejected row.
///
/// # Errors
/// Returns [`IngestError::Io`] if a folder cannot be listed.
pub fn of_paths(paths: &[PathBuf]) -> Result<(Vec<Media>, Vec<RejectRow>), IngestError> {
    let mut found: BTreeMap<Arc<str>, FoundFiles> = BTreeMap::new();
    let mut rejects = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        // `.` and `..` have no name, but the folder that they mean has one.
        let spelled = match path.file_name() {
            Some(_) => path.clone(),
            None => crate::ingest::seen::one_spelling(path),
        };
        let has_frames = || super::frames::list(&spelled).is_ok_and(|frames| !frames.paths.is_empty());
        if !spelled.is_dir() || has_frames() {
            files.push(spelled);
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(&spelled).map_err(IngestError::io("list", &spelled))? {
            inside.push(entry.map_err(IngestError::io("list", &spelled))?.path());
        }
        let is_media = |path: &PathBuf| match kind(path) {
            Some((_, MediaKind::Frames)) => {
                super::frames::list(path).is_ok_and(|frames| !frames.paths.is_empty())
            }
            other => other.is_some(),
        };
        inside.retain(is_media);
        if inside.is_empty() {
            let reason = format!("holds no media, {EXPECTED}");
            rejects.push(reject(RejectKind::Media, &spelled, &name_of(&spelled), reason));
        }
        files.extend(inside);
    }
    files.sort_unstable();
    // The same file can be named twice, by itself and by its folder.
    files.dedup_by_key(|path| crate::ingest::seen::one_spelling(path));
    for path in files {
        match kind(&path) {
            Some((name, kind)) if path.exists() => {
                let own = found.entry(name.into()).or_default();
                match kind {
                    MediaKind::Frames => own.frames.push(path),
                    MediaKind::Video => own.video.push(path),
                    MediaKind::Sound => own.sound.push(path),
                }
            }
            _ => {
                let what = if path.exists() {
                    "is no medium"
                } else {
                    "does not exist"
                };
                let reason = format!("{what}, {EXPECTED}");
                rejects.push(reject(RejectKind::Media, &path, &name_of(&path), reason));
            }
        }
    }
    let media = settle(found, &mut rejects);
    Ok((media, rejects))
}

/// The suffix of the name of a folder of frames that stands beside files of other kinds.
pub const FRAMES: &str = ".frames";

/// Whether the name of a file is that of a video or sound file, or, with `folder`, that of a folder `VIDEO.frames`.
pub fn is_medium(name: &str, folder: bool) -> bool {
    match folder {
        true => name.strip_suffix(FRAMES).is_some_and(|video| !video.is_empty()),
        false => kind_of_file(name).is_some(),
    }
}

/// The media of one video in one place: a video or sound file, or a folder `VIDEO.frames`. `None` if the name says neither.
pub fn one(name: &str, path: &Path) -> Option<Media> {
    let path = path.to_owned();
    let (video, kind) = match path.is_dir() {
        true => (name.strip_suffix(FRAMES)?, MediaKind::Frames),
        false => kind_of_file(name)?,
    };
    let media = Media {
        name: video.into(),
        pictures: None,
        sound: None,
        ambiguous: false,
    };
    Some(match kind {
        MediaKind::Frames => Media {
            pictures: Some(Pictures::Frames(path)),
            ..media
        },
        MediaKind::Video => Media {
            pictures: Some(Pictures::Video(path.clone())),
            sound: Some(path),
            ..media
        },
        MediaKind::Sound => Media {
            sound: Some(path),
            ..media
        },
    })
}

const EXPECTED: &str =
    "expected a video (mp4 ..), a sound file (wav ..), or a folder of frames (jpg, png ..)";

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The media of each video. Two files of one kind for the same video become a rejected row.
fn settle(found: BTreeMap<Arc<str>, FoundFiles>, rejects: &mut Vec<RejectRow>) -> Vec<Media> {
    let mut media = Vec::with_capacity(found.len());
    for (name, own) in found {
        let mut ambiguous = false;
        let mut one = |mut paths: Vec<PathBuf>| {
            if let [first, others @ ..] = paths.as_slice()
                && !others.is_empty()
            {
                let others: Vec<String> = others
                    .iter()
                    .map(|path| format!("`{}`", path.display()))
                    .collect();
                let reason = format!(
                    "video `{name}` is also in {}, expected one: none is used",
                    others.join(", ")
                );
                rejects.push(reject(RejectKind::RepeatedVideo, first, &name, reason));
                ambiguous = true;
                return None;
            }
            paths.pop()
        };
        let (frames, video, sound) = (one(own.frames), one(own.video), one(own.sound));
        media.push(Media {
            sound: sound.or_else(|| video.clone()),
            pictures: frames.map(Pictures::Frames).or(video.map(Pictures::Video)),
            ambiguous,
            name,
        });
    }
    media
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MediaKind {
    Frames,
    Video,
    Sound,
}

/// Returns the name of the video that a path belongs to, and the kind of media that the path has. Returns `None` for
/// hidden files and for files that are not media.
fn kind(path: &Path) -> Option<(&str, MediaKind)> {
    let name = path.file_name()?.to_str()?;
    if name.starts_with('.') {
        return None;
    }
    if path.is_dir() {
        return Some((name, MediaKind::Frames));
    }
    kind_of_file(name)
}

/// Returns the name of the video that a file belongs to, and the kind of media that the file has.
fn kind_of_file(name: &str) -> Option<(&str, MediaKind)> {
    // The name of a video may have dots, so only the part after the last dot is the extension.
    let (stem, extension) = name.rsplit_once('.')?;
    let extension = extension.to_ascii_lowercase();
    if VIDEO.contains(&&*extension) {
        Some((stem, MediaKind::Video))
    } else if SOUND.contains(&&*extension) {
        Some((stem, MediaKind::Sound))
    } else {
        None
    }
}

fn reject(kind: RejectKind, path: &Path, video: &str, reason: String) -> RejectRow {
    RejectRow::reject(kind, path.display().to_string(), reason).video(video)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_name_and_frames_and_sound_files_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let touch = |name: &str| std::fs::write(at(name), b"").unwrap();
        for name in [
            "aaaaaaaaaaa.mp4",
            "bbbbbbbbbbb_0_10.mkv",
            "bbbbbbbbbbb.WAV",
            "other.wav",
            "ccccccccccc.wav",
            "ccccccccccc.mp3",
            "notes.txt",
            "ddddddddddd.mp4",
        ] {
            touch(name);
        }
        std::fs::create_dir(at("aaaaaaaaaaa")).unwrap();
        touch("aaaaaaaaaaa/000001.jpg");
        std::fs::create_dir(at("empty")).unwrap();
        let names: Vec<Arc<str>> = [
            "aaaaaaaaaaa_0_10",
            "bbbbbbbbbbb_0_10",
            "ccccccccccc_0_10",
            "ddddddddddd_0_10",
            "ddddddddddd_20_30",
        ]
        .map(Arc::from)
        .to_vec();
        let (media, rejects) = find(&[folder.path().to_owned()], Some(&names)).unwrap();
        let wanted = |name: &str, pictures: Option<Pictures>, sound: Option<&str>| Media {
            name: name.into(),
            pictures,
            sound: sound.map(at),
            ambiguous: false,
        };
        assert_eq!(
            media,
            [
                wanted(
                    "aaaaaaaaaaa_0_10",
                    Some(Pictures::Frames(at("aaaaaaaaaaa"))),
                    Some("aaaaaaaaaaa.mp4")
                ),
                wanted(
                    "bbbbbbbbbbb_0_10",
                    Some(Pictures::Video(at("bbbbbbbbbbb_0_10.mkv"))),
                    Some("bbbbbbbbbbb.WAV")
                ),
                Media {
                    ambiguous: true,
                    ..wanted("ccccccccccc_0_10", None, None)
                },
            ]
        );
        let reasons: Vec<&str> = rejects.iter().map(|row| &*row.reason).collect();
        assert_eq!(reasons.len(), 3);
        assert!(
            reasons[1]
                .starts_with("1 media match no annotated video and are not used, for example `other.wav`"),
            "{reasons:?}"
        );
        assert!(
            reasons[0].starts_with("key `ddddddddddd` means both"),
            "{reasons:?}"
        );
        assert!(reasons[2].contains("`ccccccccccc_0_10` is also in") && reasons[2].ends_with("none is used"));
        let (all, rejects) = find(&[folder.path().to_owned()], None).unwrap();
        assert!(
            rejects[0]
                .reason
                .starts_with("1 folders have no frames (jpg, png ..) and are not used, for example `empty`"),
            "{rejects:?}"
        );
        let names: Vec<&str> = all.iter().map(|media| &*media.name).collect();
        assert_eq!(
            names,
            [
                "aaaaaaaaaaa",
                "bbbbbbbbbbb",
                "bbbbbbbbbbb_0_10",
                "ccccccccccc",
                "ddddddddddd",
                "other"
            ]
        );
    }
}
