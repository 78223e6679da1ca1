//! A commit: a store version that is being written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::data_file::{DataFile, FilePlace};
use super::logged::{LoggedFile, LoggedFiles};
use super::part::VersionRows;
use super::written::Written;
use super::{Snapshot, Store, WriteLock};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::storage::{SCRATCH, Staged, StagedFile};
use crate::tables::Table;

/// The number of videos that a bucket should hold on average.
const VIDEOS_PER_BUCKET: usize = 1024;
/// The largest number of buckets of a store.
const MOST_BUCKETS: u32 = 1024;

/// The columns of `versions` that the caller of a commit sets. Hashes are SHA-256, in hex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitInfo {
    /// The command line of the run.
    pub command: String,
    /// The epoch, if the commit stores the result of an epoch.
    pub epoch: Option<u64>,
    /// Hash of the settings.
    pub settings: String,
    /// Hash of the text embeddings of both modalities.
    pub models: String,
    /// Hash of all inputs of the run.
    pub inputs: String,
    /// Version of the program.
    pub program: String,
    /// The person who makes the version, if known.
    pub author: Option<Arc<str>>,
    /// What the person says about the version.
    pub note: Option<Arc<str>>,
    /// The number of videos that the store will hold. A new store derives its number of buckets from this number.
    pub videos: usize,
}

/// A store version that is being written. Readers see nothing of it before [`Commit::finish`]. If it is dropped, the
/// store stays as it was.
#[derive(Debug)]
pub struct Commit<'a> {
    pub(super) store: &'a Store,
    pub(super) info: CommitInfo,
    pub(super) previous: Option<Snapshot>,
    /// The Delta version of `versions` that this commit follows.
    pub(super) follows: Option<u64>,
    version: StoreVersion,
    pub(super) buckets: u32,
    /// The files that each touched table will have.
    pub(super) touched: BTreeMap<&'static str, LoggedFiles>,
    /// The tables that were patched in this commit.
    pub(super) patched: BTreeSet<&'static str>,
    /// Whether the commit only moves rows between files and changes no row.
    pub(super) same_rows: bool,
    /// Whether tables without deletion vectors shall ask for reader version 1 again.
    pub(super) plain_reader: bool,
    /// The number of labels whose change this commit adds to `label_changes`.
    pub(super) changed_labels: u64,
    /// Files that were written, but are not published.
    pub(super) unnamed: Vec<StagedFile>,
    pub(super) lock: &'a WriteLock,
}

/// The number of buckets after a commit on top of `previous`, if the store will then hold this number of videos.
fn buckets(previous: Option<&Snapshot>, videos: usize) -> Result<u32, StoreError> {
    if let Some(buckets) = previous.map(Snapshot::buckets).transpose()?.flatten() {
        return Ok(buckets);
    }
    let wanted = videos.div_ceil(VIDEOS_PER_BUCKET).next_power_of_two();
    Ok(u32::try_from(wanted).unwrap_or(MOST_BUCKETS).min(MOST_BUCKETS))
}

/// Empties the scratch folder. This process holds the write lock, so no other process is writing, and files in the folder
/// are left from a run that was killed.
fn clear_scratch(store: &Store) -> Result<(), StoreError> {
    let scratch = store.own.join(SCRATCH);
    match std::fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("clear", &scratch)(error))
        }
        _ => std::fs::create_dir_all(&scratch).map_err(StoreError::io("make", &scratch)),
    }
}

impl Store {
    /// The number of buckets that the next commit will have, if the store will then hold this number of videos.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the latest version cannot be read.
    pub fn next_buckets(&self, videos: usize) -> Result<u32, StoreError> {
        buckets(self.latest()?.as_ref(), videos)
    }
}

impl<'a> Commit<'a> {
    pub(super) fn new(
        store: &'a Store,
        lock: &'a WriteLock,
        info: CommitInfo,
    ) -> Result<Commit<'a>, StoreError> {
        if !store.is_remote() {
            clear_scratch(store)?;
            store.keep_spare();
        }
        Commit::following(store, lock, info, store.latest_with_delta()?)
    }

    /// A commit that follows this version, and the Delta version of `versions` with its row.
    pub(super) fn following(
        store: &'a Store,
        lock: &'a WriteLock,
        info: CommitInfo,
        (follows, previous): (Option<u64>, Option<Snapshot>),
    ) -> Result<Commit<'a>, StoreError> {
        let version = StoreVersion(previous.as_ref().map_or(0, |snapshot| snapshot.version().version) + 1);
        let buckets = buckets(previous.as_ref(), info.videos)?;
        Ok(Commit {
            store,
            info,
            previous,
            follows,
            version,
            buckets,
            touched: BTreeMap::new(),
            patched: BTreeSet::new(),
            same_rows: false,
            plain_reader: false,
            changed_labels: 0,
            unnamed: Vec::new(),
            lock,
        })
    }

    /// The number of the new version.
    pub fn version(&self) -> StoreVersion {
        self.version
    }

    /// The number of buckets of the store.
    pub fn buckets(&self) -> u32 {
        self.buckets
    }

    /// Replaces all rows of a table that has no buckets. `rows` can have any order.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if a file cannot be written, for example on a full disk, and
    /// [`StoreError::Unwritable`] if two rows have the same key.
    ///
    /// # Panics
    /// Panics if the table has buckets.
    pub fn replace_all<T: Table>(&mut self, rows: &[T::Row]) -> Result<(), StoreError> {
        assert!(!T::BUCKETED, "{} is replaced bucket by bucket", T::NAME);
        self.touched.insert(T::NAME, LoggedFiles::new());
        self.write::<T>("all", rows)
    }

    /// Adds rows to a table that has no buckets. `rows` can have any order.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_all`].
    pub fn append<T: Table>(&mut self, rows: &[T::Row]) -> Result<(), StoreError> {
        let prefix = format!("v{:08}", self.version.0);
        self.changed_labels += rows.iter().map(T::changed_labels).sum::<u64>();
        self.write::<T>(&prefix, rows)
    }

    /// Replaces the rows of a bucket. `rows` can have any order; each row must be of a video of this bucket.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_all`], and [`StoreError::Unwritable`] if a video belongs to
    /// another bucket.
    ///
    /// # Panics
    /// Panics if the table has no such bucket.
    pub fn replace_bucket<T: Table>(&mut self, bucket: u32, rows: &[T::Row]) -> Result<(), StoreError> {
        let buckets = self.buckets;
        assert!(
            T::BUCKETED && bucket < buckets,
            "bucket {bucket} of {buckets} in {}",
            T::NAME
        );
        self.touch::<T>()?
            .retain(|_, file| file.bucket() != Some((bucket, buckets)));
        self.take_bucket_from_patches::<T>(bucket)?;
        let written = Written::bucket::<T>(self.store, (bucket, buckets), rows)?;
        self.add::<T>(written)
    }

    /// Replaces every bucket of a table, with as many threads as there are cores. `rows` returns the rows of a
    /// bucket.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_bucket`].
    ///
    /// # Panics
    /// Panics if the table has no buckets.
    pub fn replace_buckets<T: Table>(
        &mut self,
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError> {
        self.clear::<T>();
        let buckets: Vec<u32> = (0..self.buckets).collect();
        self.fill_buckets::<T>(&buckets, rows)
    }

    /// Removes all rows of a table. A caller that has the new rows bucket by bucket adds these rows with
    /// [`VersionRows::fill_buckets`](super::VersionRows::fill_buckets).
    pub fn clear<T: Table>(&mut self) {
        self.touched.insert(T::NAME, LoggedFiles::new());
    }

    /// The files that a table will have. At first these are the files of the previous version.
    pub(super) fn touch<T: Table>(&mut self) -> Result<&mut LoggedFiles, StoreError> {
        if !self.touched.contains_key(T::NAME) {
            let files = match &self.previous {
                Some(previous) => previous.logged(T::NAME)?.as_ref().clone(),
                None => LoggedFiles::new(),
            };
            self.touched.insert(T::NAME, files);
        }
        Ok(self.touched.get_mut(T::NAME).expect("it was just put there"))
    }

    /// Writes the rows to a file and adds the file to the table.
    pub(super) fn write<T: Table>(&mut self, prefix: &str, rows: &[T::Row]) -> Result<(), StoreError> {
        self.touch::<T>()?;
        let written = Written::new::<T>(self.store, prefix, rows)?;
        self.add::<T>(written)
    }

    pub(super) fn add<T: Table>(&mut self, written: Option<Written>) -> Result<(), StoreError> {
        if let Some(Written { file, staged }) = written {
            let name = file.name.clone();
            self.touch::<T>()?.insert(name.clone(), file);
            self.unnamed.extend(staged.map(|staged| (T::NAME, name, staged)));
        }
        Ok(())
    }

    /// A file of the table. If this commit wrote the file, its bytes are in the scratch folder or on their way to the object
    /// store.
    pub(super) fn data_file<T: Table>(&self, file: &LoggedFile) -> DataFile {
        let mut found = self.store.folder(T::NAME).data_file(file);
        if let Some(previous) = &self.previous {
            found = found.held_by(&previous.held);
        }
        let unnamed = self
            .unnamed
            .iter()
            .find(|(table, own, _)| *table == T::NAME && *own == file.name);
        match unnamed {
            Some((_, _, Staged::Scratch(scratch))) => {
                found.path = scratch.path().to_owned();
                found.place = FilePlace::Local;
            }
            // If the upload failed, reading the file fails, too.
            Some((_, _, Staged::Upload(upload))) => drop(upload.wait()),
            None => {}
        }
        found
    }
}
