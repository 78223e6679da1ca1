//! Rows of the split files, and the videos that they give.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{LargeStringArray, LargeStringBuilder};
use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};

use super::classes::unknown_class;
use super::folder::Files;
use super::tsv::TsvRow;
use super::videos::alphabetical;
use super::{AnnotatedVideos, VideoLabel, position, tsv};
use crate::ingest::error::IngestError;

const COLUMNS: [&str; 2] = ["filename", "event_labels"];

/// The rows of the split files. A row takes the bytes of the name of its video and 20 more, because a data set can have
/// millions of rows, but few different lists of labels.
pub(super) struct WeakRows {
    names: LargeStringArray,
    lines: Vec<u64>,
    /// Position in `lists` of each row.
    labels: Vec<u32>,
    lists: Vec<LabelList>,
    /// The first row after the rows of each file, in the order of [`Files::splits`].
    ends: Vec<usize>,
}

/// The value of `event_labels` that one or more rows have.
pub(super) struct LabelList {
    /// Class names. None of them is empty; a name may occur twice.
    pub(super) labels: Vec<String>,
    /// Position in [`Files::splits`] of the file with the first row that has the list, and its line.
    pub(super) first: (usize, u64),
    /// Number of rows that have the list.
    pub(super) rows: u64,
    /// Reasons of the notes that each of these rows gets.
    irregular: Vec<String>,
}

impl WeakRows {
    /// The different lists of labels, in order of the first row of each.
    pub(super) fn lists(&self) -> &[LabelList] {
        &self.lists
    }
}

pub(super) fn rows(files: &Files, rejects: &mut Vec<RejectRow>) -> Result<WeakRows, IngestError> {
    let mut names = LargeStringBuilder::new();
    let (mut lines, mut labels, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut lists: Vec<LabelList> = Vec::new();
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    for (file, (_, path)) in files.splits.iter().enumerate() {
        let mut add = |row: TsvRow<'_, 2>, rejects: &mut Vec<RejectRow>| {
            let [video, field] = row.fields;
            let mut note = |severity, kind, reason: String| {
                let row = RejectRow::reject(kind, path.display().to_string(), reason).row(row.line);
                rejects.push(RejectRow {
                    video: (!video.is_empty()).then(|| video.to_owned()),
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
                return;
            }
            let list = known.get(field).copied().unwrap_or_else(|| {
                lists.push(LabelList::new(field, (file, row.line)));
                let list = lists.len() as u32 - 1;
                known.insert(field.to_owned(), list);
                list
            });
            let own = &mut lists[list as usize];
            own.rows += 1;
            for reason in &own.irregular {
                note(Severity::Note, RejectKind::FieldValue, reason.clone());
            }
            names.append_value(video);
            lines.push(row.line);
            labels.push(list);
        };
        tsv::each(path, COLUMNS, rejects, &mut add)?;
        ends.push(lines.len());
    }
    Ok(WeakRows {
        names: names.finish(),
        lines,
        labels,
        lists,
        ends,
    })
}

impl LabelList {
    fn new(field: &str, first: (usize, u64)) -> LabelList {
        let all: Vec<&str> = field.split(',').map(str::trim).collect();
        let named = all.iter().filter(|label| !label.is_empty());
        let labels: Vec<String> = named.map(|label| (*label).to_owned()).collect();
        let mut irregular = Vec::new();
        if labels.is_empty() {
            irregular.push("event_labels is empty: the video has no weak label".to_owned());
        } else if labels.len() < all.len() {
            irregular.push(format!(
                "event_labels is `{}`, expected no empty class",
                all.join(",")
            ));
        }
        let mut sorted: Vec<&String> = labels.iter().collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            irregular.push(format!("event_labels names `{}` twice, read as once", pair[0]));
        }
        LabelList {
            labels,
            first,
            rows: 0,
            irregular,
        }
    }
}

/// The classes of a list of labels.
struct ListedClasses<'a> {
    weak: Arc<[ClassId]>,
    unknown: Vec<&'a str>,
}

fn listed<'a>(list: &'a LabelList, classes: &[Arc<str>]) -> ListedClasses<'a> {
    let (mut weak, mut unknown) = (Vec::new(), Vec::new());
    for label in &list.labels {
        match position(classes, label) {
            Some(class) => weak.push(class),
            None => unknown.push(label.as_str()),
        }
    }
    weak.sort_unstable();
    weak.dedup();
    ListedClasses {
        weak: weak.into(),
        unknown,
    }
}

/// Makes one video of each name. If several rows of a name agree, they give one video; if they differ, the name gives
/// no video.
pub(super) fn videos(
    rows: WeakRows,
    files: &Files,
    classes: &[Arc<str>],
    rejects: &mut Vec<RejectRow>,
) -> AnnotatedVideos {
    let sources: Vec<Arc<str>> = files
        .splits
        .iter()
        .map(|(_, path)| path.display().to_string().into())
        .collect();
    let lists: Vec<ListedClasses<'_>> = rows.lists.iter().map(|list| listed(list, classes)).collect();
    let by_name = alphabetical(&rows.names);
    let name = |row: usize| rows.names.value(row);
    // The first row of the same name, for each row that repeats a name.
    let mut first_of: BTreeMap<usize, usize> = BTreeMap::new();
    for own in by_name.chunk_by(|a, b| name(*a as usize) == name(*b as usize)) {
        let (first, others) = own.split_first().expect("a chunk has a row");
        first_of.extend(others.iter().map(|other| (*other as usize, *first as usize)));
    }
    let file_of = |row: usize| rows.ends.partition_point(|end| *end <= row);
    let mut conflicts = BTreeSet::new();
    let mut distinct: Vec<VideoLabel> = Vec::new();
    let mut known: BTreeMap<(usize, u32), u32> = BTreeMap::new();
    let mut labels = Vec::with_capacity(rows.labels.len());
    for (row, &list) in rows.labels.iter().enumerate() {
        let file = file_of(row);
        let source = &sources[file];
        let mut note = |severity, kind, reason: String| {
            let own = RejectRow::reject(kind, &**source, reason).row(rows.lines[row]);
            rejects.push(RejectRow {
                severity,
                ..own.video(name(row))
            });
        };
        let listed = &lists[list as usize];
        for label in &listed.unknown {
            note(
                Severity::Reject,
                RejectKind::UnknownClass,
                unknown_class(label, classes),
            );
        }
        if let Some(&first) = first_of.get(&row) {
            let first_file = file_of(first);
            let other = format!("`{}`, row {}", sources[first_file], rows.lines[first]);
            let same = lists[rows.labels[first] as usize].weak == listed.weak
                && files.splits[first_file].0 == files.splits[file].0;
            if same {
                note(
                    Severity::Note,
                    RejectKind::RepeatedVideo,
                    format!("same as {other}, read once"),
                );
            } else {
                conflicts.insert(first);
                note(
                    Severity::Reject,
                    RejectKind::RepeatedVideo,
                    format!("label or split differs from {other}, expected one row per video: both rejected"),
                );
            }
        }
        labels.push(*known.entry((file, list)).or_insert_with(|| {
            distinct.push(VideoLabel {
                split: files.splits[file].0,
                weak: listed.weak.clone(),
                source: source.clone(),
            });
            distinct.len() as u32 - 1
        }));
    }
    for &row in &conflicts {
        let reason = "label or split differs from a later row of the same video, expected one row per video: both \
                      rejected";
        let reject = RejectRow::reject(RejectKind::RepeatedVideo, &*sources[file_of(row)], reason);
        rejects.push(reject.row(rows.lines[row]).video(name(row)));
    }
    let videos = if first_of.is_empty() {
        AnnotatedVideos::from_parts(rows.names, labels, distinct, by_name)
    } else {
        let kept = (0..labels.len()).filter(|row| !first_of.contains_key(row) && !conflicts.contains(row));
        kept.map(|row| (name(row), distinct[labels[row] as usize].clone()))
            .collect()
    };
    compare_full(files, &videos, classes, rejects);
    videos
}

/// Compares the full list with the splits. The list adds no videos, but if all three splits are there, videos that
/// they lack, and labels that differ, become notes.
fn compare_full(files: &Files, videos: &AnnotatedVideos, classes: &[Arc<str>], rejects: &mut Vec<RejectRow>) {
    let (Some(path), 3) = (&files.full, files.splits.len()) else {
        return;
    };
    let note = |kind, row, video: Option<&str>, reason: String| RejectRow {
        row,
        video: video.map(str::to_owned),
        ..RejectRow::note(kind, path.display().to_string(), reason)
    };
    let (mut malformed, mut notes) = (Vec::new(), Vec::new());
    let mut compare = |row: TsvRow<'_, 2>, _: &mut Vec<RejectRow>| {
        let [video, field] = row.fields;
        let Some(known) = videos.position(video) else {
            let reason = "video of no split, not read".to_owned();
            notes.push(note(
                RejectKind::UnknownVideo,
                Some(row.line),
                Some(video),
                reason,
            ));
            return;
        };
        let known = videos.get(known);
        let mut weak: Vec<_> = field
            .split(',')
            .filter_map(|label| position(classes, label.trim()))
            .collect();
        weak.sort_unstable();
        weak.dedup();
        if weak != **known.weak {
            let reason = format!("label differs from that of `{}`, which counts", known.source);
            notes.push(note(
                RejectKind::RepeatedVideo,
                Some(row.line),
                Some(video),
                reason,
            ));
        }
    };
    match tsv::each(path, COLUMNS, &mut malformed, &mut compare) {
        Ok(()) => {
            let malformed = malformed.into_iter();
            rejects.extend(malformed.map(|row| note(row.kind, row.row, None, row.reason)));
            rejects.extend(notes);
        }
        // A note is enough, because no video depends on this file.
        Err(error) => rejects.push(note(RejectKind::UnreadableFile, None, None, error.chain())),
    }
}
