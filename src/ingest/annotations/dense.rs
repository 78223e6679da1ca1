//! Rows of the dense files, and the events they make.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectRow, Severity, Split};

use super::classes::unknown_class;
use super::folder::Files;
use super::{AnnotatedVideo, DenseEvent, position, tsv};
use crate::ingest::error::IngestError;

/// A row of a dense file, times read.
pub(super) struct DenseRow {
    /// Position in [`Files::dense`].
    pub(super) file: usize,
    pub(super) line: u64,
    video: String,
    onset: u32,
    offset: u32,
    pub(super) label: String,
}

pub(super) fn rows(files: &Files, rejects: &mut Vec<RejectRow>) -> Result<Vec<DenseRow>, IngestError> {
    let mut rows = Vec::new();
    for (file, (_, path)) in files.dense.iter().enumerate() {
        for row in tsv::read(path, ["filename", "onset", "offset", "event_labels"], rejects)? {
            let [video, onset, offset, label] = row.fields;
            let mut reject = |reason: String| {
                rejects.push(RejectRow {
                    file: path.display().to_string(),
                    row: Some(row.line),
                    video: (!video.is_empty()).then(|| video.clone()),
                    severity: Severity::Reject,
                    reason,
                });
            };
            if video.is_empty() {
                reject("filename is empty, expected the name of a video".to_owned());
                continue;
            }
            let times = (time(&onset), time(&offset));
            let (Some(onset), Some(offset)) = times else {
                let (name, text) = if times.0.is_none() {
                    ("onset", &onset)
                } else {
                    ("offset", &offset)
                };
                let shown: String = text.chars().take(40).collect();
                reject(format!("{name} is `{shown}`, expected a whole number from 0"));
                continue;
            };
            rows.push(DenseRow {
                file,
                line: row.line,
                video,
                onset,
                offset,
                label,
            });
        }
    }
    Ok(rows)
}

/// A whole number; `3.0` is one too, since pandas writes so where a column had a gap.
fn time(text: &str) -> Option<u32> {
    let whole = text.split_once('.').map_or(text, |(whole, rest)| {
        if !rest.is_empty() && rest.bytes().all(|digit| digit == b'0') {
            whole
        } else {
            text
        }
    });
    whole.parse().ok()
}

pub(super) fn events(
    rows: Vec<DenseRow>,
    files: &Files,
    classes: &[Arc<str>],
    videos: &[AnnotatedVideo],
    rejects: &mut Vec<RejectRow>,
) -> Vec<DenseEvent> {
    let sources: Vec<String> = files
        .dense
        .iter()
        .map(|(_, path)| path.display().to_string())
        .collect();
    let at: BTreeMap<&str, usize> = videos
        .iter()
        .enumerate()
        .map(|(i, video)| (&*video.name, i))
        .collect();
    let mut events = Vec::with_capacity(rows.len());
    // Noted once: (file, video) of no split, classes per video outside its weak label with the first such row.
    let mut strangers = BTreeSet::new();
    let mut outside: BTreeMap<usize, (usize, u64, BTreeSet<ClassId>)> = BTreeMap::new();
    for row in rows {
        let mut note = |severity, reason: String| {
            rejects.push(RejectRow {
                file: sources[row.file].clone(),
                row: Some(row.line),
                video: Some(row.video.clone()),
                severity,
                reason,
            });
        };
        if row.onset >= row.offset {
            note(
                Severity::Note,
                format!(
                    "onset {} is not before offset {}: no event",
                    row.onset, row.offset
                ),
            );
        }
        let Some(&video) = at.get(row.video.as_str()) else {
            if strangers.insert((row.file, row.video.clone())) {
                note(
                    Severity::Note,
                    "video of no split, its events are not read".to_owned(),
                );
            }
            continue;
        };
        let Some(class) = position(classes, &row.label) else {
            note(Severity::Reject, unknown_class(&row.label, classes));
            continue;
        };
        if row.onset >= row.offset {
            continue;
        }
        if videos[video].weak.binary_search(&class).is_err() {
            outside
                .entry(video)
                .or_insert_with(|| (row.file, row.line, BTreeSet::new()))
                .2
                .insert(class);
        }
        let (modality, _) = files.dense[row.file];
        events.push(DenseEvent {
            video,
            modality,
            class,
            onset: row.onset,
            offset: row.offset,
        });
    }
    for (video, (file, line, found)) in outside {
        let names: Vec<String> = found
            .iter()
            .map(|class| format!("`{}`", classes[class.index()]))
            .collect();
        rejects.push(RejectRow {
            file: sources[file].clone(),
            row: Some(line),
            video: Some(videos[video].name.to_string()),
            severity: Severity::Note,
            reason: format!(
                "dense events of {} are outside the weak label, kept as truth",
                names.join(", ")
            ),
        });
    }
    if !files.dense.is_empty() {
        let with: BTreeSet<usize> = events.iter().map(|event| event.video).collect();
        for (position, video) in videos.iter().enumerate() {
            if video.split != Split::Train && !with.contains(&position) {
                rejects.push(RejectRow {
                    file: video.source.to_string(),
                    row: None,
                    video: Some(video.name.to_string()),
                    severity: Severity::Note,
                    reason: format!("`{}` has no dense event: its truth is empty", video.name),
                });
            }
        }
    }
    events
}
