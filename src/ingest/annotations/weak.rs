//! Rows of the split files, and the videos that they give.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};

use super::classes::unknown_class;
use super::folder::Files;
use super::{AnnotatedVideo, position, tsv};
use crate::ingest::error::IngestError;

/// A row of a split file.
pub(super) struct WeakRow {
    /// Position of the file in [`Files::splits`].
    pub(super) file: usize,
    pub(super) line: u64,
    pub(super) video: String,
    /// Class names. None of them is empty; a name may occur twice.
    pub(super) labels: Vec<String>,
}

pub(super) fn rows(files: &Files, rejects: &mut Vec<RejectRow>) -> Result<Vec<WeakRow>, IngestError> {
    let mut rows = Vec::new();
    for (file, (_, path)) in files.splits.iter().enumerate() {
        for row in tsv::read(path, ["filename", "event_labels"], rejects)? {
            let [video, labels] = row.fields;
            let mut note = |severity, kind, reason: String| {
                let row = RejectRow::reject(kind, path.display().to_string(), reason).row(row.line);
                rejects.push(RejectRow {
                    video: (!video.is_empty()).then(|| video.clone()),
                    severity,
                    ..row
                });
            };
            if video.is_empty() {
                note(
                    Severity::Reject,
                    RejectKind::EmptyName,
                    "filename is empty, expected the name of a video".to_owned(),
                );
                continue;
            }
            let all: Vec<&str> = labels.split(',').map(str::trim).collect();
            let labels: Vec<String> = all
                .iter()
                .filter(|label| !label.is_empty())
                .map(|label| (*label).to_owned())
                .collect();
            if labels.is_empty() {
                note(
                    Severity::Note,
                    RejectKind::FieldValue,
                    "event_labels is empty: no class can be labelled".to_owned(),
                );
            } else if labels.len() < all.len() {
                note(
                    Severity::Note,
                    RejectKind::FieldValue,
                    format!("event_labels is `{}`, expected no empty class", all.join(",")),
                );
            }
            let mut sorted: Vec<&String> = labels.iter().collect();
            sorted.sort_unstable();
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                note(
                    Severity::Note,
                    RejectKind::FieldValue,
                    format!("event_labels names `{}` twice, read as once", pair[0]),
                );
            }
            rows.push(WeakRow {
                file,
                line: row.line,
                video,
                labels,
            });
        }
    }
    Ok(rows)
}

/// Makes one video of each name. If several rows of a name agree, they give one video; if they differ, the name gives
/// no video.
pub(super) fn videos(
    rows: Vec<WeakRow>,
    files: &Files,
    classes: &[Arc<str>],
    rejects: &mut Vec<RejectRow>,
) -> Vec<AnnotatedVideo> {
    let sources: Vec<Arc<str>> = files
        .splits
        .iter()
        .map(|(_, path)| path.display().to_string().into())
        .collect();
    let mut row_of: Vec<(usize, u64)> = Vec::with_capacity(rows.len());
    let mut conflicts = vec![false; rows.len()];
    let mut videos: Vec<AnnotatedVideo> = Vec::with_capacity(rows.len());
    let mut first_of: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for row in rows {
        let source = &sources[row.file];
        let mut note = |severity, kind, reason: String| {
            let own = RejectRow::reject(kind, &**source, reason).row(row.line);
            rejects.push(RejectRow {
                severity,
                ..own.video(&*row.video)
            });
        };
        let mut weak = Vec::with_capacity(row.labels.len());
        for label in &row.labels {
            match position(classes, label) {
                Some(class) => weak.push(class),
                None => note(
                    Severity::Reject,
                    RejectKind::UnknownClass,
                    unknown_class(label, classes),
                ),
            }
        }
        weak.sort_unstable();
        weak.dedup();
        let split = files.splits[row.file].0;
        if let Some(&first) = first_of.get(row.video.as_str()) {
            let (file, line) = row_of[first];
            let other = format!("`{}`, row {line}", sources[file]);
            if videos[first].weak == weak && videos[first].split == split {
                note(
                    Severity::Note,
                    RejectKind::RepeatedVideo,
                    format!("same as {other}, read once"),
                );
            } else {
                conflicts[first] = true;
                note(
                    Severity::Reject,
                    RejectKind::RepeatedVideo,
                    format!("label or split differs from {other}, expected one row per video: both rejected"),
                );
            }
            continue;
        }
        let name: Arc<str> = row.video.into();
        first_of.insert(name.clone(), videos.len());
        row_of.push((row.file, row.line));
        videos.push(AnnotatedVideo {
            name,
            split,
            weak,
            source: source.clone(),
        });
    }
    let mut index = 0;
    videos.retain(|video| {
        let (file, line) = row_of[index];
        let conflict = conflicts[index];
        index += 1;
        if conflict {
            let reason = "label or split differs from a later row of the same video, expected one row per video: \
                          both rejected";
            let reject = RejectRow::reject(RejectKind::RepeatedVideo, &*sources[file], reason);
            rejects.push(reject.row(line).video(&*video.name));
        }
        !conflict
    });
    compare_full(files, &videos, classes, rejects);
    videos
}

/// Compares the full list with the splits. The list adds no videos, but if all three splits are there, videos that
/// they lack, and labels that differ, become notes.
fn compare_full(
    files: &Files,
    videos: &[AnnotatedVideo],
    classes: &[Arc<str>],
    rejects: &mut Vec<RejectRow>,
) {
    let (Some(path), 3) = (&files.full, files.splits.len()) else {
        return;
    };
    let weak_of: BTreeMap<&str, &AnnotatedVideo> = videos.iter().map(|video| (&*video.name, video)).collect();
    let mut note = |kind, row, video: Option<String>, reason: String| {
        rejects.push(RejectRow {
            row,
            video,
            ..RejectRow::note(kind, path.display().to_string(), reason)
        });
    };
    let mut malformed = Vec::new();
    let rows = match tsv::read(path, ["filename", "event_labels"], &mut malformed) {
        Ok(rows) => rows,
        // A note is enough, because no video depends on this file.
        Err(error) => return note(RejectKind::UnreadableFile, None, None, error.chain()),
    };
    for row in malformed {
        note(row.kind, row.row, None, row.reason);
    }
    for row in rows {
        let [video, labels] = row.fields;
        let Some(known) = weak_of.get(video.as_str()) else {
            note(
                RejectKind::UnknownVideo,
                Some(row.line),
                Some(video),
                "video of no split, not read".to_owned(),
            );
            continue;
        };
        let mut weak: Vec<_> = labels
            .split(',')
            .filter_map(|label| position(classes, label.trim()))
            .collect();
        weak.sort_unstable();
        weak.dedup();
        if weak != known.weak {
            let reason = format!("label differs from that of `{}`, which counts", known.source);
            note(RejectKind::RepeatedVideo, Some(row.line), Some(video), reason);
        }
    }
}
