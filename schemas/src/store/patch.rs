//! A patch: commits a small change. Deletion vectors delete the old rows, and one small file beside the buckets holds
//! the new rows.
//!
//! ```text
//! deleted rows ─▶ deletion vectors of their files ──┬─ buckets with many deleted rows ──▶ rewritten, with their rows
//! new rows ─────▶ one patch file ───────────────────┤                                     out of patch files
//!                                                   └─ too many patch files ────────────▶ the smallest become one
//! ```
//!
//! So a change costs about as much as its own rows, and reading costs at most about twice as much as without patches.
//! The number of rewritten rows is bounded by the number of changed rows ([`REWRITE`]), with one exception: when
//! patches hold half as many rows as the buckets, all buckets are rewritten.
//!
//! A small change is different: if the files that hold its rows have at most 8 MiB together, and are at most 64, the commit
//! writes these files anew. The table then has neither patch files nor deletion vectors, and every reader of Delta tables opens
//! it, also one that knows no deletion vectors (reader version 1 of Delta's protocol).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::data_file::on_files;
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

/// The largest number of patch files of a table.
const PATCHES: usize = 32;
/// When there would be more patch files, this number of the smallest ones become one. A row is thus rewritten only
/// once in this number of commits, each time into a file that is this many times as large.
const MERGED: usize = 24;
/// A file with fewer deleted rows than this is not rewritten.
const FEW: u64 = 32;
/// The largest number of rows that are rewritten for each row that changes. A file is due when a quarter of its rows
/// are deleted, so this number keeps up.
const REWRITE: u64 = 4;
/// Patches with fewer rows than this stay patches, however small the table is.
const FEW_PATCHED: u64 = 2048;
/// Patches with fewer rows than this for each bucket stay patches, too. Writing a bucket costs a file, which is created,
/// synced and renamed, and reading the same rows out of patch files costs less than a file.
const FEW_PATCHED_PER_BUCKET: u64 = 64;
/// The files of append-only tables may be this many times as large as those of other tables to be written anew
/// ([`Store::with_plain_bytes`](super::Store::with_plain_bytes)), because their rows are rarely deleted: predictions, for
/// example, only if the same epoch is given again.
const PLAIN_FIXED: u64 = 8;
/// The largest number of files of a table that one change writes anew so that the table stays plain. Each file is created,
/// synced and renamed: 640 files for the first 1,000 user labels of 1,000,000 videos took 0.5 s, and one patch file takes a
/// few milliseconds.
const PLAIN_FILES: usize = 64;
/// The size in bytes of the largest deletion vector that is kept. A file that would need a larger vector is
/// rewritten.
const MOST_BYTES: usize = 64 << 10;

impl Commit<'_> {
    /// Deletes rows that a scan of the previous version found, and adds the rows `rows`, in any order.
    ///
    /// The cost depends on the number of these rows, not on the size of the table. A changed row is both: its old
    /// form is in `gone`, its new form is in `rows`. If this commit has already replaced the file of a row in `gone`,
    /// the row is already deleted.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_all`].
    ///
    /// # Panics
    /// Panics on a second patch of a table in one commit, on places of another version or table, and for table
    /// `versions`.
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
        if !T::BUCKETED && self.rewrite_fixed_files::<T>()? {
            return self.append::<T>(rows);
        }
        let homes: BTreeSet<u32> = rows.iter().map(|row| home_of::<T>(row, buckets)).collect();
        let limit = self.store.plain_bytes;
        let files = self.touch::<T>()?;
        let due = match plain(files, &homes, buckets, limit) {
            Some(due) => due,
            None => due(files, gone + new, new, buckets),
        };
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

    /// The number of parts that the rows of a table are divided into: its buckets, or 1.
    pub(super) fn cuts<T: Table>(&self) -> u32 {
        if T::BUCKETED { self.buckets } else { 1 }
    }

    /// Rewrites buckets: each gets its live rows, its rows in patch files, and the given rows.
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
        let written = on_all_cores(&store.storage, work.len(), |number| {
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

    /// Writes the files of an append-only table anew that have deleted rows. Returns false, and does nothing, if these
    /// files are large or the table has files of another kind.
    fn rewrite_fixed_files<T: Table>(&mut self) -> Result<bool, StoreError> {
        let limit = self.store.plain_bytes.saturating_mul(PLAIN_FIXED);
        let files = self.touch::<T>()?;
        if files.values().any(|file| Home::of(file) != Home::Fixed) {
            return Ok(false);
        }
        let with_gone = || files.values().filter(|file| file.deleted.is_some());
        if limit == 0 || with_gone().map(|file| file.bytes).sum::<u64>() > limit {
            return Ok(false);
        }
        let names: Vec<String> = with_gone().map(|file| file.name.clone()).collect();
        names.iter().try_for_each(|name| self.rewrite_fixed::<T>(name))?;
        Ok(true)
    }

    /// If `rows` would make one patch file too many, removes the smallest patch files and adds their rows to `rows`.
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
        let merged: Vec<(String, DataFile)> = merged
            .map(|file| (file.name.clone(), self.data_file::<T>(file)))
            .collect();
        let files: Vec<&DataFile> = merged.iter().map(|(_, file)| file).collect();
        let read = on_files(&self.store.storage, &files, |number| {
            let file = files[number];
            Selected::these::<T>(file, whole(file))?.decode::<T>()
        })?;
        rows.extend(read.into_iter().flatten().map(|(row, _)| row));
        for (name, _) in merged {
            self.touch::<T>()?.remove(&name);
        }
        Ok(())
    }

    /// Removes the rows of these buckets from the patch files and returns them.
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
        let taken = on_all_cores(&self.store.storage, files.len(), |number| {
            let file = &files[number];
            let mut runs = Runs::new();
            for (bucket, run) in homes::<T>(file, cuts)? {
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

    /// Deletes the rows of a replaced bucket from the patch files.
    pub(super) fn take_bucket_from_patches<T: Table>(&mut self, bucket: u32) -> Result<(), StoreError> {
        let is_patched = |file: &LoggedFile| Home::of(file) == Home::Patch;
        if self.touch::<T>()?.values().any(is_patched) {
            self.take_from_patches::<T>(&BTreeSet::from([bucket]))?;
        }
        Ok(())
    }
}

/// Marks rows as deleted. A patch or version file without any other row leaves the table.
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
        // If the file is missing here, this commit has already replaced it.
        if let Some(file) = files.get_mut(*name) {
            file.delete(ranges);
            assert!(
                file.deleted.as_ref().is_none_or(|gone| gone.last() < file.rows),
                "{name} has no such rows"
            );
        }
    }
    // A bucket file without live rows stays for now, because its bucket is due: `due` has it rewritten with its new
    // rows.
    files.retain(|_, file| file.live() > 0 || matches!(Home::of(file), Home::Bucket(_)));
}

/// The buckets to rewrite so that the table has neither patch files nor deletion vectors, if their files are small and few
/// enough.
/// `homes` are the buckets of the new rows.
fn plain(files: &LoggedFiles, homes: &BTreeSet<u32>, buckets: u32, limit: u64) -> Option<BTreeSet<u32>> {
    let mut due = homes.clone();
    for file in files.values() {
        match Home::of(file) {
            Home::Bucket(bucket) if file.deleted.is_some() => drop(due.insert(bucket)),
            Home::Patch => due = (0..buckets).collect(),
            Home::Bucket(_) | Home::Fixed => {}
        }
    }
    let rewritten = |file: &&LoggedFile| match Home::of(file) {
        Home::Bucket(bucket) => due.contains(&bucket),
        Home::Patch => true,
        Home::Fixed => false,
    };
    let bytes: u64 = files.values().filter(rewritten).map(|file| file.bytes).sum();
    // Without a limit, a table without files would be written plainly, too.
    (limit > 0 && bytes <= limit && due.len() <= PLAIN_FILES).then_some(due)
}

/// The buckets that are to be rewritten, when `changed` rows change and `new` of them are new.
fn due(files: &LoggedFiles, changed: u64, new: u64, buckets: u32) -> BTreeSet<u32> {
    let live = |home: fn(Home) -> bool| -> u64 {
        let own = files.values().filter(|file| home(Home::of(file)));
        own.map(LoggedFile::live).sum()
    };
    let patched = new + live(|home| home == Home::Patch);
    let few = FEW_PATCHED.max(u64::from(buckets) * FEW_PATCHED_PER_BUCKET);
    if patched > few && patched * 2 > live(|home| matches!(home, Home::Bucket(_))) {
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
    // Rewrite the buckets with the most deleted rows first, as many as the change pays for.
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
