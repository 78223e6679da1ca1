//! Reads a Parquet file whose rows are in any order, or counts segments from 1.
//!
//! ```text
//! key columns ── in order? ─┬─ yes ── rows as they come ───────────────────────────────┐
//!                           └─ no ─── videos, by their first row ── parts of the file ─┴─▶ assembler
//! ```
//!
//! The key columns are read first, because a row far behind can belong to a video that was read before. If the rows are
//! not in order, the file is read once for each part of its videos, so that the memory has a limit. Almost every such
//! file has one part.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::assemble::Assembler;
use super::shard::{RowKey, ShardFile};

/// Largest number of bytes of features that are held at a time.
const MAX_HELD_BYTES: u64 = 512 << 20;

/// The order of the rows of a file.
pub(super) enum RowOrder {
    /// The rows of each video are together, and their segments ascend by one from this number.
    InOrder {
        /// The number of the first segment: 0 or 1.
        first: i64,
    },
    /// The rows are in another order.
    Unordered {
        /// The number of the first segment: 0 or 1.
        first: i64,
        /// The rows of each video, by the number of its first row.
        videos: Vec<UnorderedVideo>,
    },
}

/// The rows of a video in a file.
pub(super) struct UnorderedVideo {
    key: Arc<str>,
    /// Segment and row, ascending. A segment is `None` if the value is null.
    rows: Vec<(Option<i64>, u64)>,
}

/// Finds the order of the rows of one modality. If the key columns cannot be read, the order is `InOrder`, and reading
/// the rows finds the reason.
pub(super) fn order(file: &ShardFile, modality: Modality) -> RowOrder {
    let mut previous = (String::new(), None);
    let (mut in_order, mut zero, mut one) = ([true; 2], false, false);
    let read = file.each_key(modality, |_, key, segment| {
        let (name, before) = &mut previous;
        let next = before
            .filter(|_| *name == key)
            .map(|before: i64| before.saturating_add(1));
        for (first, in_order) in (0..).zip(&mut in_order) {
            // A repeated name that begins with the first segment is a second copy of the video.
            *in_order &= segment.is_some() && (segment == next || segment == Some(first));
        }
        zero |= segment == Some(0);
        one |= segment == Some(1);
        if *name != key {
            key.clone_into(name);
        }
        *before = segment;
    });
    let first = i64::from(one && !zero);
    if read.is_err() {
        return RowOrder::InOrder { first: 0 };
    }
    if in_order[usize::from(first == 1)] {
        return RowOrder::InOrder { first };
    }
    let mut videos: BTreeMap<Arc<str>, Vec<(Option<i64>, u64)>> = BTreeMap::new();
    let read = file.each_key(modality, |row, key, segment| match videos.get_mut(key) {
        Some(rows) => rows.push((segment, row)),
        None => drop(videos.insert(key.into(), vec![(segment, row)])),
    });
    if read.is_err() {
        return RowOrder::InOrder { first: 0 };
    }
    let mut videos: Vec<UnorderedVideo> = videos
        .into_iter()
        .map(|(key, rows)| UnorderedVideo { key, rows })
        .collect();
    videos.sort_by_key(|video| video.rows.first().map(|(_, row)| *row));
    videos.iter_mut().for_each(UnorderedVideo::sort);
    RowOrder::Unordered { first, videos }
}

impl UnorderedVideo {
    /// Sorts the rows by segment. If segments repeat, the first rows of all segments come first, then the second rows:
    /// each sequence is a copy of the video.
    fn sort(&mut self) {
        self.rows.sort_unstable();
        let mut copies: Vec<(usize, Option<i64>, u64)> = Vec::with_capacity(self.rows.len());
        let mut copy = 0;
        for (at, &(segment, row)) in self.rows.iter().enumerate() {
            copy = if at > 0 && self.rows[at - 1].0 == segment {
                copy + 1
            } else {
                0
            };
            copies.push((copy, segment, row));
        }
        copies.sort_unstable();
        self.rows = copies
            .into_iter()
            .map(|(_, segment, row)| (segment, row))
            .collect();
    }
}

/// Makes the note that segments are counted from 1.
pub(super) fn counted_from_one(file: &str, modality: Modality) -> RejectRow {
    let reason = "segments are counted from 1: segment 1 of the file is segment 0 of the video";
    RejectRow::note(RejectKind::FieldValue, file, reason).modality(modality)
}

/// Passes the rows of unordered videos to the assembler, video by video.
pub(super) fn assemble(file: &ShardFile, videos: &[UnorderedVideo], assembler: &mut Assembler<'_>) {
    let most =
        usize::try_from(MAX_HELD_BYTES / file.row_bytes().saturating_mul(2).max(1)).unwrap_or(usize::MAX);
    let mut videos = videos;
    while !videos.is_empty() && !assembler.stopped() {
        let mut rows = 0;
        let count = videos
            .iter()
            .take_while(|video| {
                rows += video.rows.len();
                rows <= most
            })
            .count()
            .max(1);
        let (part, rest) = videos.split_at(count);
        videos = rest;
        assemble_part(file, part, assembler);
    }
}

/// The features of a row, or the reason why they cannot be used.
type RowFeatures = Result<Vec<f32>, String>;

fn assemble_part(file: &ShardFile, part: &[UnorderedVideo], assembler: &mut Assembler<'_>) {
    let mut wanted: Vec<u64> = part
        .iter()
        .flat_map(|video| video.rows.iter().map(|(_, row)| *row))
        .collect();
    wanted.sort_unstable();
    let mut found: Vec<RowFeatures> = Vec::with_capacity(wanted.len());
    let read = file.each_feature(|row, features| {
        if wanted.get(found.len()) == Some(&row) {
            let mut values = Vec::new();
            found.push(features(&mut values).map(|_| values));
        }
        found.len() < wanted.len()
    });
    for video in part {
        let place = |row: u64| {
            wanted
                .binary_search(&row)
                .ok()
                .filter(|place| *place < found.len())
        };
        // The rest of a damaged file cannot be read. A video with a row there is left out as a whole.
        if video.rows.iter().any(|(_, row)| place(*row).is_none()) {
            continue;
        }
        for &(segment, row) in &video.rows {
            let place = place(row).expect("every row was found");
            let key = RowKey {
                row,
                video: &video.key,
                segment,
            };
            assembler.row(file.name(), key, |data| {
                let values = found[place].as_ref().map_err(String::clone)?;
                data.extend_from_slice(values);
                Ok(values.len())
            });
        }
        assembler.close();
    }
    if let Err(broken) = read {
        assembler.broken(file.name(), broken.row, broken.problem);
    }
}
