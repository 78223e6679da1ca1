//! Annotations of AVE (Audio-Visual Event localization): one event per video, both audible and visible.
//!
//! The files `trainSet.txt`, `valSet.txt` and `testSet.txt` have lines of
//! `Category&VideoID&Quality&StartTime&EndTime` without a header; a first line with exactly these words is skipped.
//! Times are whole seconds, and the end is not included. The id is the name of a video. A training video has its
//! category as weak label, but no dense events, because localization is weakly supervised.
//!
//! Classes are those of `classes.txt`, or else the categories of the files in alphabetical order (D: the public code
//! numbers the classes in files that come with its features).
//!
//! Source: `data/Annotations.txt` and the split files of YapengTian/AVE-ECCV18.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::rows::{RejectKind, RejectRow, Split};
use vaplan_schemas::{ClassId, Modality};

use super::{Annotations, DenseEvent, VideoLabel, position, read_classes, unknown_class};
use crate::ingest::error::IngestError;
use crate::ingest::open::open_regular;
use crate::ingest::remote;

const SPLITS: [(Split, &str); 3] = [
    (Split::Train, "trainSet.txt"),
    (Split::Val, "valSet.txt"),
    (Split::Test, "testSet.txt"),
];
const HEADER: &str = "Category&VideoID&Quality&StartTime&EndTime";

/// The split files of a folder. An empty list means that the folder is no AVE folder.
pub(super) fn find(folder: &Path) -> Vec<(Split, PathBuf)> {
    let files = SPLITS.map(|(split, name)| (split, folder.join(name)));
    files
        .into_iter()
        .filter(|(_, path)| remote::exists(path))
        .collect()
}

struct Line<'a> {
    file: Arc<str>,
    line: u64,
    split: Split,
    class: &'a str,
    video: &'a str,
    onset: u32,
    offset: u32,
}

/// Reads the split files that [`find`] returned. A bad line becomes a rejected row.
///
/// # Errors
/// - Returns [`IngestError::Io`] or [`IngestError::Kind`] if a file cannot be read.
/// - Returns [`IngestError::ClassList`] if `classes.txt` is not a valid list of classes.
pub(super) fn read(
    folder: &Path,
    files: &[(Split, PathBuf)],
    classes: Option<Vec<Arc<str>>>,
) -> Result<Annotations, IngestError> {
    let mut texts = Vec::new();
    for (split, path) in files {
        let mut bytes = Vec::new();
        let (mut file, _) = open_regular(path)?;
        file.read_to_end(&mut bytes)
            .map_err(IngestError::io("read", path))?;
        let name: Arc<str> = path.display().to_string().into();
        texts.push((*split, name, String::from_utf8_lossy(&bytes).into_owned()));
    }
    let mut rejects = Vec::new();
    let mut lines = Vec::new();
    for (split, file, text) in &texts {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start_matches('\u{feff}').trim();
            if line.is_empty() || (number == 1 && line == HEADER) {
                continue;
            }
            match parse(line) {
                Ok((class, video, onset, offset)) => lines.push(Line {
                    file: file.clone(),
                    line: number,
                    split: *split,
                    class,
                    video,
                    onset,
                    offset,
                }),
                Err(reason) => {
                    rejects.push(RejectRow::reject(RejectKind::MalformedLine, &**file, reason).row(number));
                }
            }
        }
    }
    let list = folder.join("classes.txt");
    let classes = match classes {
        Some(classes) => classes,
        None if remote::exists(&list) => read_classes(&list)?,
        None => {
            let found: BTreeSet<&str> = lines.iter().map(|line| line.class).collect();
            found.into_iter().map(Arc::from).collect()
        }
    };
    Ok(collect(lines, classes, rejects))
}

fn collect(lines: Vec<Line<'_>>, classes: Vec<Arc<str>>, mut rejects: Vec<RejectRow>) -> Annotations {
    let mut videos: Vec<(&str, &Line<'_>, Vec<ClassId>)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut events = Vec::new();
    for line in &lines {
        let Some(class) = position(&classes, line.class) else {
            let reason = unknown_class(line.class, &classes);
            rejects.push(reject(RejectKind::UnknownClass, line, reason));
            continue;
        };
        let place = *places.entry(line.video).or_insert_with(|| {
            videos.push((line.video, line, Vec::new()));
            videos.len() - 1
        });
        let (_, first, weak) = &mut videos[place];
        if first.split != line.split {
            let reason = format!("video is of split {} already, expected one split", first.split);
            rejects.push(reject(RejectKind::RepeatedVideo, line, reason));
            continue;
        }
        if let Err(at) = weak.binary_search(&class) {
            weak.insert(at, class);
        }
        if line.split != Split::Train {
            events.extend(Modality::ALL.map(|modality| DenseEvent {
                video: place,
                modality,
                class,
                onset: line.onset,
                offset: line.offset,
            }));
        }
    }
    events.sort_by_key(|event| event.modality);
    let videos = videos.into_iter().map(|(name, first, weak)| {
        let label = VideoLabel {
            split: first.split,
            weak: weak.into(),
            source: first.file.clone(),
        };
        (name, label)
    });
    Annotations {
        videos: videos.collect(),
        classes,
        events,
        rejects,
    }
}

/// Class, video, first second, and first second after the event.
fn parse(line: &str) -> Result<(&str, &str, u32, u32), String> {
    let fields: Vec<&str> = line.split('&').map(str::trim).collect();
    let [class, video, _, start, end] = fields[..] else {
        return Err(format!("line has {} fields, expected `{HEADER}`", fields.len()));
    };
    if class.is_empty() || video.is_empty() || line.contains('\0') {
        return Err("category or video is empty or holds NUL, expected names".to_owned());
    }
    let seconds = |name: &str, text: &str| {
        let value = text
            .parse::<i32>()
            .ok()
            .and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| format!("{name} is `{text}`, expected whole seconds"))
    };
    let (onset, offset) = (seconds("StartTime", start)?, seconds("EndTime", end)?);
    if onset >= offset {
        return Err(format!("StartTime {onset} is not before EndTime {offset}"));
    }
    Ok((class, video, onset, offset))
}

fn reject(kind: RejectKind, line: &Line<'_>, reason: String) -> RejectRow {
    let row = RejectRow::reject(kind, &*line.file, reason);
    row.row(line.line).video(line.video)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_files_of_ave_are_read_as_weak_labels_and_events_of_both_modalities() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "trainSet.txt",
            "Church bell&RUhOCu3LNXM&good&0&10\nBark&-rf_AAAAAAA&good&2&7\n",
        );
        let bad = "Bark&CCCCCCCCCCC&good&7\nBark&DDDDDDDDDDD&good&7&7\nBark&RUhOCu3LNXM&good&0&1\n";
        write(
            "testSet.txt",
            &format!("{HEADER}\r\nBark&BBBBBBBBBBB&good&3&8\r\n{bad}"),
        );
        let read = Annotations::read(folder.path()).unwrap();
        assert_eq!(read.classes, ["Bark", "Church bell"].map(Arc::from));
        let video = |at: usize| {
            let video = read.videos.get(at);
            (video.name, video.split, video.weak[0].0)
        };
        assert_eq!(read.videos.len(), 3);
        assert_eq!(video(0), ("RUhOCu3LNXM", Split::Train, 1));
        assert_eq!(video(2), ("BBBBBBBBBBB", Split::Test, 0));
        let event = |event: &DenseEvent| {
            (
                event.video,
                event.modality,
                event.class.0,
                event.onset,
                event.offset,
            )
        };
        let events: Vec<_> = read.events.iter().map(event).collect();
        assert_eq!(
            events,
            [(2, Modality::Audio, 0, 3, 8), (2, Modality::Visual, 0, 3, 8)]
        );
        let reasons: Vec<_> = read
            .rejects
            .iter()
            .map(|row| (row.row.unwrap(), &*row.reason))
            .collect();
        assert_eq!(
            reasons,
            [
                (3, &*format!("line has 4 fields, expected `{HEADER}`")),
                (4, "StartTime 7 is not before EndTime 7"),
                (5, "video is of split train already, expected one split"),
            ]
        );
    }
}
