//! A small change: rows taken away by deletion vectors, new ones in one file beside the buckets.
//!
//! ```text
//! gone rows ──▶ deletion vectors of their files ──┬─ a bucket of which much is gone ──▶ written anew, with its rows
//! new rows ───▶ one patch file ───────────────────┤                                     out of patch files
//!                                                 └─ too many patch files ────────────▶ the smallest become one
//! ```
//!
//! So a change costs about its own size, and reading never more than about twice what it would without patches.
//! What is written anew is bounded by what changes ([`REWRITE`]), but for the moment when half a table lies in patches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::deleted::Deleted;
use super::logged::{Home, LoggedFile, LoggedFiles};
use super::parallel::on_all_cores;
use super::scan::Place;
use super::select::{Runs, Selected, homes};
use super::written::Written;
use super::{Commit, DataFile};
use crate::error::StoreError;
use crate::ids::bucket_of;
use crate::tables::{Table, Versions};

/// As many patch files a table has at most.
const PATCHES: usize = 32;
/// As many of them, the smallest, become one when there would be more: a row is written again only once in so many
/// commits, and each time into a file that many times as large.
const MERGED: usize = 24;
/// A file of which fewer rows are gone is not written anew.
const FEW: u64 = 256;
/// For a row that changes, as many rows are written anew at most: a quarter of those in a file are gone when it is due.
const REWRITE: u64 = 4;
/// Patches of fewer rows stay patches, however small the table.
const FEW_PATCHED: u64 = 4096;
/// Largest deletion vector that is kept; what would have a larger one is written anew.
const MOST_BYTES: usize = 64 << 10;

impl Commit<'_> {
    /// Takes away rows that a scan of the version before found, and adds these, in any order.
    ///
    /// The cost is about that of the rows, not of the table. A row that is to be changed is both: gone, and new.
    /// Rows of files that this commit replaced before are gone already.
    ///
    /// # Errors
    /// As [`Commit::replace_all`].
    ///
    /// # Panics
    /// For a second patch of a table in one commit, for places of another version or table, and for `versions`.
    pub fn patch<T: Table>(&mut self, gone: &[Place], rows: &[T::Row]) -> Result<(), StoreError> {
        assert!(T::NAME != Versions::NAME, "versions are only added to");
        assert!(
            self.patched.insert(T::NAME),
            "{} is patched once a commit",
            T::NAME
        );
        let before = match &self.previous {
            Some(previous) => previous.logged(T::NAME)?,
            None => Arc::default(),
        };
        take_away(self.touch::<T>()?, &before, gone);
        let gone: u64 = gone.iter().map(|place| u64::from(place.rows)).sum();
        let new: u64 = rows.iter().map(|row| T::height(row) as u64).sum();
        let buckets = self.cuts::<T>();
        let due = due(self.touch::<T>()?, gone + new, new, buckets);
        let mut by_bucket: BTreeMap<u32, Vec<T::Row>> = due.iter().map(|due| (*due, Vec::new())).collect();
        let mut patch = Vec::new();
        for row in rows {
            match by_bucket.get_mut(&home_of::<T>(row, buckets)) {
                Some(own) => own.push(row.clone()),
                None => patch.push(row.clone()),
            }
        }
        self.rewrite::<T>(by_bucket)?;
        self.merge::<T>(&mut patch)?;
        let prefix = format!("p{:08}", self.version().0);
        let written = Written::new::<T>(self.store, &prefix, &patch)?;
        self.add::<T>(written)
    }

    /// Into how many parts the rows of a table are cut.
    pub(super) fn cuts<T: Table>(&self) -> u32 {
        if T::BUCKETED { self.buckets } else { 1 }
    }

    /// Writes buckets anew: their live rows, those in patches, and these.
    pub(super) fn rewrite<T: Table>(&mut self, rows: BTreeMap<u32, Vec<T::Row>>) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut patched = self.take_from_patches::<T>(&rows.keys().copied().collect())?;
        let mut work = Vec::new();
        for (bucket, mut rows) in rows {
            rows.extend(patched.remove(&bucket).unwrap_or_default());
            let files = self.touch::<T>()?;
            let old: Vec<LoggedFile> = files
                .extract_if(.., |_, file| Home::of(file) == Home::Bucket(bucket))
                .map(|(_, file)| file)
                .collect();
            let old: Vec<DataFile> = old.iter().map(|file| self.data_file::<T>(file)).collect();
            work.push((bucket, old, rows));
        }
        let (store, buckets) = (self.store, self.buckets);
        let written = on_all_cores(work.len(), |number| {
            let (bucket, old, new) = &work[number];
            let mut rows = Vec::new();
            for file in old {
                let live = Selected::these::<T>(file, whole(file))?.decode::<T>()?;
                rows.extend(live.into_iter().map(|(row, _)| row));
            }
            rows.extend_from_slice(new);
            if T::BUCKETED {
                Written::bucket::<T>(store, (*bucket, buckets), &rows)
            } else {
                Written::new::<T>(store, "all", &rows)
            }
        })?;
        written.into_iter().try_for_each(|written| self.add::<T>(written))
    }

    /// Where `rows` would be one patch file too many, takes the smallest away and their rows into it.
    fn merge<T: Table>(&mut self, rows: &mut Vec<T::Row>) -> Result<(), StoreError> {
        let mut patches: Vec<LoggedFile> = self
            .touch::<T>()?
            .values()
            .filter(|file| Home::of(file) == Home::Patch)
            .cloned()
            .collect();
        patches.sort_by_key(|file| (file.live(), file.name.clone()));
        let too_many = patches.len() + usize::from(!rows.is_empty()) > PATCHES;
        let smallest = if too_many { MERGED } else { 0 };
        let merged = (0..)
            .zip(&patches)
            .filter(|(place, file)| *place < smallest || oversized(file))
            .map(|(_, file)| file);
        for file in merged {
            let data = self.data_file::<T>(file);
            let live = Selected::these::<T>(&data, whole(&data))?;
            rows.extend(live.decode::<T>()?.into_iter().map(|(row, _)| row));
            self.touch::<T>()?.remove(&file.name);
        }
        Ok(())
    }

    /// Takes the rows of these buckets out of the patch files.
    pub(super) fn take_from_patches<T: Table>(
        &mut self,
        buckets: &BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, Vec<T::Row>>, StoreError> {
        let cuts = self.cuts::<T>();
        let patches: Vec<LoggedFile> = self
            .touch::<T>()?
            .values()
            .filter(|file| Home::of(file) == Home::Patch)
            .cloned()
            .collect();
        let files: Vec<DataFile> = patches.iter().map(|file| self.data_file::<T>(file)).collect();
        let taken = on_all_cores(files.len(), |number| {
            let file = &files[number];
            let mut runs = Runs::new();
            for (bucket, run) in homes::<T>(&file.path, cuts)? {
                match runs.last_mut() {
                    _ if !buckets.contains(&bucket) => {}
                    Some(last) if last.end == run.start => last.end = run.end,
                    _ => runs.push(run),
                }
            }
            let selected = Selected::these::<T>(file, runs)?;
            Ok((selected.decode::<T>()?, selected.into_runs()))
        })?;
        let mut by_bucket: BTreeMap<u32, Vec<T::Row>> = BTreeMap::new();
        for (mut file, (rows, runs)) in patches.into_iter().zip(taken) {
            for (row, _) in rows {
                by_bucket.entry(home_of::<T>(&row, cuts)).or_default().push(row);
            }
            file.delete(runs.into_iter().map(|run| run.start as u64..run.end as u64));
            self.touch::<T>()?.insert(file.name.clone(), file);
        }
        self.touch::<T>()?.retain(|_, file| file.live() > 0);
        Ok(by_bucket)
    }

    /// A bucket is replaced: what patches hold of it is gone.
    pub(super) fn take_bucket_from_patches<T: Table>(&mut self, bucket: u32) -> Result<(), StoreError> {
        let is_patched = |file: &LoggedFile| Home::of(file) == Home::Patch;
        if self.touch::<T>()?.values().any(is_patched) {
            self.take_from_patches::<T>(&BTreeSet::from([bucket]))?;
        }
        Ok(())
    }

    pub(super) fn data_file<T: Table>(&self, file: &LoggedFile) -> DataFile {
        DataFile {
            path: self.path_of::<T>(&file.name),
            bytes: file.bytes,
            rows: file.live(),
            deleted: file.deleted.clone(),
        }
    }
}

/// Marks rows as deleted; a file that has no others is out of the table.
fn take_away(files: &mut LoggedFiles, before: &LoggedFiles, gone: &[Place]) {
    let names: Vec<&String> = before.keys().collect();
    let mut by_file: BTreeMap<u32, Vec<Range<u64>>> = BTreeMap::new();
    for place in gone {
        let first = u64::from(place.first);
        by_file
            .entry(place.file)
            .or_default()
            .push(first..first + u64::from(place.rows));
    }
    for (number, ranges) in by_file {
        let name = names
            .get(number as usize)
            .expect("places are of the version before");
        // Not there: this commit replaced it.
        if let Some(file) = files.get_mut(*name) {
            file.delete(ranges);
            assert!(
                file.deleted.as_ref().is_none_or(|gone| gone.last() < file.rows),
                "{name} has no such rows"
            );
        }
    }
    // A bucket that is empty is not dropped, but due: its new rows go there.
    files.retain(|_, file| file.live() > 0 || matches!(Home::of(file), Home::Bucket(_)));
}

/// The buckets to be written anew, when so many rows change, and so many of them are new.
fn due(files: &LoggedFiles, changed: u64, new: u64, buckets: u32) -> BTreeSet<u32> {
    let live = |home: fn(Home) -> bool| -> u64 {
        let own = files.values().filter(|file| home(Home::of(file)));
        own.map(LoggedFile::live).sum()
    };
    let patched = new + live(|home| home == Home::Patch);
    if patched > FEW_PATCHED && patched * 2 > live(|home| matches!(home, Home::Bucket(_))) {
        return (0..buckets).collect();
    }
    let mut candidates: Vec<(u64, u64, u32)> = Vec::new();
    let mut due = BTreeSet::new();
    for file in files.values() {
        let (Home::Bucket(bucket), Some(gone)) = (Home::of(file), &file.deleted) else {
            continue;
        };
        if file.live() == 0 || oversized(file) {
            due.insert(bucket);
        } else if gone.len() >= FEW && gone.len() * 4 >= file.rows {
            candidates.push((gone.len(), file.live(), bucket));
        }
    }
    // Those of which most is gone first, as far as the change pays for.
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    let mut left = changed.saturating_mul(REWRITE);
    for (_, live, bucket) in candidates {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(live);
        due.insert(bucket);
    }
    due
}

fn oversized(file: &LoggedFile) -> bool {
    let size = file.deleted.as_ref().map(Deleted::size);
    size.is_some_and(|size| size > MOST_BYTES)
}

fn home_of<T: Table>(row: &T::Row, buckets: u32) -> u32 {
    match T::video(row) {
        Some(video) if T::BUCKETED => bucket_of(video, buckets),
        _ => 0,
    }
}

fn whole(file: &DataFile) -> Runs {
    std::iter::once(0..file.all_rows() as usize).collect()
}
