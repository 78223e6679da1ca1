//! Reads a store version by groups of videos, so that memory holds the rows of one group and not the rows of all videos.
//!
//! ```text
//! hash of a video   0 ──────────────────────────── 2^64    its first bits give the group
//! bucket files      │  │  │  │  │  │  │  │  │  │  │  │     a group has whole buckets
//! groups            │     0     │     1     │     2     │
//! patch files       rows of every group: the runs of rows of each group are found once
//! label_changes     rows of every group: written to a temporary file by group
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::select::{Runs, Selected, homes};
use super::{DataFile, Snapshot, snapshot};
use crate::error::StoreError;
use crate::ids::bucket_of;
use crate::parquet_file::{self, Opened};
use crate::rows::LabelChangeTrack;
use crate::tables::{LabelChanges, Table, Videos};

/// The groups of a store version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups(u32);

impl Groups {
    /// Divides the buckets of a version into groups of about `videos` videos. A group has at least one bucket.
    pub(super) fn new(snapshot: &Snapshot, videos: u64) -> Result<Groups, StoreError> {
        let buckets = snapshot.buckets()?.unwrap_or(1);
        let all: u64 = snapshot.files(Videos::NAME)?.iter().map(|file| file.rows).sum();
        let wanted = all.div_ceil(videos.max(1)).max(1).next_power_of_two();
        Ok(Groups(u32::try_from(wanted).unwrap_or(buckets).min(buckets)))
    }

    /// The numbers of the groups.
    pub(super) fn all(self) -> std::ops::Range<u32> {
        0..self.0
    }
}

/// The files of a bucketed table, by group.
pub(super) struct GroupedFiles {
    /// The files whose buckets are in one group.
    whole: BTreeMap<u32, Vec<DataFile>>,
    /// The files with rows of several groups, and the runs of rows of each group.
    shared: Vec<(DataFile, BTreeMap<u32, Runs>)>,
}

impl GroupedFiles {
    /// Divides the files of table `T`. Files whose key column does not decode are left out.
    pub(super) fn new<T: Table>(snapshot: &Snapshot, groups: Groups) -> Result<GroupedFiles, StoreError> {
        let mut grouped = GroupedFiles {
            whole: BTreeMap::new(),
            shared: Vec::new(),
        };
        for file in snapshot.files(T::NAME)? {
            match file.bucket() {
                Some((bucket, of)) if of >= groups.0 => {
                    let group = bucket / (of / groups.0);
                    grouped.whole.entry(group).or_default().push(file);
                }
                _ => {
                    let Ok(homes) = homes::<T>(&file.path, groups.0) else {
                        continue;
                    };
                    let mut runs: BTreeMap<u32, Runs> = BTreeMap::new();
                    for (group, run) in homes {
                        runs.entry(group).or_default().push(run);
                    }
                    grouped.shared.push((file, runs));
                }
            }
        }
        Ok(grouped)
    }

    /// Calls `work` with the live rows of a group, file by file. Files that do not decode are left out.
    pub(super) fn each<T: Table>(&self, group: u32, mut work: impl FnMut(&DataFile, Vec<T::Row>)) {
        for file in self.whole.get(&group).into_iter().flatten() {
            if let Ok(rows) = snapshot::decode::<T>(file) {
                work(file, rows);
            }
        }
        for (file, runs) in &self.shared {
            let Some(runs) = runs.get(&group) else { continue };
            let selected = Selected::these::<T>(file, runs.clone());
            if let Ok(rows) = selected.and_then(|selected| selected.decode::<T>()) {
                work(file, rows.into_iter().map(|(row, _)| row).collect());
            }
        }
    }
}

/// The rows of table `label_changes`, by group, in the order of their files.
pub(super) struct GroupedChanges {
    groups: Groups,
    /// The rows of the only group. `None` if there are several groups, whose rows are in `spilled`.
    only: Option<Vec<LabelChangeTrack>>,
    spilled: File,
    /// The place in `spilled` of each piece of a group: its first byte and its length.
    pieces: BTreeMap<u32, Vec<(u64, usize)>>,
}

impl GroupedChanges {
    /// Reads all files of the table. `None` if one of them does not decode.
    pub(super) fn read(snapshot: &Snapshot, groups: Groups) -> Result<Option<GroupedChanges>, StoreError> {
        let spilled = tempfile::tempfile().map_err(StoreError::io("make a file in", &place()))?;
        let mut changes = GroupedChanges {
            groups,
            only: (groups.0 == 1).then(Vec::new),
            spilled,
            pieces: BTreeMap::new(),
        };
        let mut end = 0;
        for file in snapshot.files(LabelChanges::NAME)? {
            let Ok(rows) = snapshot::decode::<LabelChanges>(&file) else {
                return Ok(None);
            };
            end = changes.add(rows, end)?;
        }
        Ok(Some(changes))
    }

    /// Adds the rows of a file. `end` is the number of bytes in `spilled`; the result is this number afterwards.
    fn add(&mut self, rows: Vec<LabelChangeTrack>, mut end: u64) -> Result<u64, StoreError> {
        if let Some(only) = &mut self.only {
            only.extend(rows);
            return Ok(end);
        }
        let mut by_group: BTreeMap<u32, Vec<LabelChangeTrack>> = BTreeMap::new();
        for row in rows {
            let group = LabelChanges::video(&row).map_or(0, |video| bucket_of(video, self.groups.0));
            by_group.entry(group).or_default().push(row);
        }
        for (group, rows) in by_group {
            let bytes = parquet_file::encode(&LabelChanges::encode(&rows));
            self.spilled
                .write_all(&bytes)
                .map_err(StoreError::io("write to", &place()))?;
            self.pieces.entry(group).or_default().push((end, bytes.len()));
            end += bytes.len() as u64;
        }
        Ok(end)
    }

    /// The rows of a group. The rows of the only group can be taken once.
    pub(super) fn take(&mut self, group: u32) -> Result<Vec<LabelChangeTrack>, StoreError> {
        if let Some(only) = &mut self.only {
            return Ok(std::mem::take(only));
        }
        let mut rows = Vec::new();
        for (first, length) in self.pieces.remove(&group).unwrap_or_default() {
            let mut bytes = vec![0; length];
            self.spilled
                .read_exact_at(&mut bytes, first)
                .map_err(StoreError::io("read from", &place()))?;
            let opened = Opened::of_bytes(&place(), bytes.into(), &LabelChanges::schema())?;
            let batch = opened.read(None, None)?;
            rows.extend(LabelChanges::decode(&batch).map_err(|source| StoreError::Rows {
                path: place(),
                source,
            })?);
        }
        Ok(rows)
    }
}

/// The folder of the temporary file, which has no name of its own.
fn place() -> PathBuf {
    Path::new(&std::env::temp_dir()).to_owned()
}
