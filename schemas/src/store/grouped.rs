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

use bytes::{Buf, Bytes};

use super::select::{Runs, Selected, homes};
use super::{DataFile, Snapshot, snapshot};
use crate::error::StoreError;
use crate::ids::bucket_of;
use crate::parquet_file::{self, Opened};
use crate::rows::LabelChangeTrack;
use crate::spill::SpilledBytes;
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
                    let Ok(homes) = homes::<T>(&file, groups.0) else {
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

/// The rows of table `label_changes`, by group, in the order of their files. Each file gives a group one piece: its length,
/// and the rows as Parquet.
pub(super) struct GroupedChanges(SpilledBytes);

impl GroupedChanges {
    /// Reads all files of the table. `None` if one of them does not decode.
    pub(super) fn read(snapshot: &Snapshot, groups: Groups) -> Result<Option<GroupedChanges>, StoreError> {
        let mut spilled = SpilledBytes::new(&std::env::temp_dir(), groups.0);
        for file in snapshot.files(LabelChanges::NAME)? {
            let Ok(rows) = snapshot::decode::<LabelChanges>(&file) else {
                return Ok(None);
            };
            let mut by_group: BTreeMap<u32, Vec<LabelChangeTrack>> = BTreeMap::new();
            for row in rows {
                let group = bucket_of(&row.video, groups.0);
                by_group.entry(group).or_default().push(row);
            }
            for (group, rows) in by_group {
                let piece = parquet_file::encode(&LabelChanges::encode(&rows));
                let length = (piece.len() as u64).to_le_bytes();
                let mut parts = [&length[..], &piece].into_iter();
                let pushed = parts.try_for_each(|part| spilled.push(group, part));
                pushed.map_err(StoreError::io("write rows to", spilled.folder()))?;
            }
        }
        Ok(Some(GroupedChanges(spilled)))
    }

    /// The rows of a group.
    pub(super) fn of(&self, group: u32) -> Result<Vec<LabelChangeTrack>, StoreError> {
        let folder = self.0.folder();
        let read = self.0.bytes(group);
        let mut rest = Bytes::from(read.map_err(StoreError::io("read rows from", folder))?);
        let mut rows = Vec::new();
        while rest.has_remaining() {
            let length = rest.get_u64_le() as usize;
            let piece = rest.split_to(length);
            let batch = Opened::of_bytes(folder, piece, &LabelChanges::schema())?.read(None, None)?;
            let decoded = LabelChanges::decode(&batch);
            rows.extend(decoded.map_err(|source| StoreError::Rows {
                path: folder.to_owned(),
                source,
            })?);
        }
        Ok(rows)
    }
}
