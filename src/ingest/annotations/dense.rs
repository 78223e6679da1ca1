//! Rows of the dense files, and the events that they give.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity, Split};

use super::classes::unknown_class;
use super::folder::Files;
use super::tsv::TsvRow;
use super::{AnnotatedVideos, DenseEvent, position, tsv};
use crate::ingest::error::IngestError;

/// A row of a dense file with parsed times.
pub(super) struct DenseRow {
    /// Position of the file in [`Files::dense`].
    pub(super) file: usize,
    pub(super) line: u64,
    video: String,
    onset: u32,
    offset: u32,
    pub(super) label: String,
}

pub(super) fn rows(files: &Files, rejects: &mut Vec<RejectRow>) -> Result<Vec<DenseRow>, IngestError> {
    let mut rows = Vec::new();
    for (file, (modality, path)) in files.dense.iter().enumerate() {
        let mut add = |row: TsvRow<'_, 4>, rejects: &mut Vec<RejectRow>| {
            let [video, onset, offset, label] = row.fields;
            let mut reject = |kind, reason: String| {
                let row = RejectRow::reject(kind, path.display().to_string(), reason).row(row.line);
                rejects.push(RejectRow {
                    video: (!video.is_empty()).then(|| video.to_owned()),
                    ..row.modality(*modality)
                });
            };
            if video.is_empty() {
                reject(
                    RejectKind::EmptyName,
                    "filename is empty, expected the name of a video".to_owned(),
                );
                return;
            }
            let times = (time(onset), time(offset));
            let (Some(onset), Some(offset)) = times else {
                let (name, text) = if times.0.is_none() {
                    ("onset", onset)
                } else {
                    ("offset", offset)
                };
                let shown: String = text.chars().take(40).collect();
                reject(
                    RejectKind::FieldValue,
                    format!("{name} is `{shown}`, expected a whole number from 0"),
                );
                return;
            };
            rows.push(DenseRow {
                file,
                line: row.line,
                video: video.to_owned(),
                onset,
                offset,
                label: label.to_owned(),
            });
        };
        tsv::each(path, COLUMNS, rejects, &mut add)?;
    }
    Ok(rows)
}

const COLUMNS: [&str; 4] = ["filename", "onset", "offset", "event_labels"];

/// Parses a whole number. `3.0` is accepted, because pandas writes whole numbers so in a column with missing values.
fn time(text: &str) -> Option<u32> {
    let whole = text.split_once('.').map_or(text, |(whole, rest)| {
        if !rest.is_empty() && rest.bytes().all(|digit| digit == b'0') {
            whole
        } else {
            text
        }
    });
    // The tables hold numbers up to 2^31 - 1.
    whole.parse().ok().filter(|time| i32::try_from(*time).is_ok())
}

pub(super) fn events(
    rows: Vec<DenseRow>,
    files: &Files,
    classes: &[Arc<str>],
    videos: &AnnotatedVideos,
    rejects: &mut Vec<RejectRow>,
) -> Vec<DenseEvent> {
    let sources: Vec<String> = files
        .dense
        .iter()
        .map(|(_, path)| path.display().to_string())
        .collect();
    let mut events = Vec::with_capacity(rows.len());
    // Give one note per file and video without a split, and one note per video with classes outside its weak label
    // (at the first such row).
    let mut strangers = BTreeSet::new();
    let mut outside: BTreeMap<usize, (usize, u64, BTreeSet<ClassId>)> = BTreeMap::new();
    for row in rows {
        let (modality, _) = files.dense[row.file];
        let mut note = |severity, kind, reason: String| {
            let own = RejectRow::reject(kind, &*sources[row.file], reason).row(row.line);
            rejects.push(RejectRow {
                severity,
                ..own.video(&*row.video).modality(modality)
            });
        };
        if row.onset >= row.offset {
            note(
                Severity::Note,
                RejectKind::FieldValue,
                format!(
                    "onset {} is not before offset {}: no event",
                    row.onset, row.offset
                ),
            );
        }
        let Some(video) = videos.position(&row.video) else {
            if strangers.insert((row.file, row.video.clone())) {
                note(
                    Severity::Note,
                    RejectKind::UnknownVideo,
                    "video of no split, its events are not read".to_owned(),
                );
            }
            continue;
        };
        let Some(class) = position(classes, &row.label) else {
            note(
                Severity::Reject,
                RejectKind::UnknownClass,
                unknown_class(&row.label, classes),
            );
            continue;
        };
        if row.onset >= row.offset {
            continue;
        }
        if videos.get(video).weak.binary_search(&class).is_err() {
            outside
                .entry(video)
                .or_insert_with(|| (row.file, row.line, BTreeSet::new()))
                .2
                .insert(class);
        }
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
        let reason = format!(
            "dense events of {} are outside the weak label, kept as truth",
            names.join(", ")
        );
        let note = RejectRow::note(RejectKind::OutsideWeakLabel, &*sources[file], reason);
        rejects.push(note.row(line).video(videos.get(video).name));
    }
    if !files.dense.is_empty() {
        let with: BTreeSet<usize> = events.iter().map(|event| event.video).collect();
        for (position, video) in videos.iter().enumerate() {
            if video.split != Split::Train && !with.contains(&position) {
                let reason = format!("`{}` has no dense event: its truth is empty", video.name);
                let note = RejectRow::note(RejectKind::NoEvent, &**video.source, reason);
                rejects.push(note.video(video.name));
            }
        }
    }
    events
}
