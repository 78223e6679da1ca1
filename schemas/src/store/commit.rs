//! A store version in the making.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::durable::Scratch;
use super::logged::LoggedFiles;
use super::parallel::on_all_cores;
use super::written::Written;
use super::{OWN, SCRATCH, Snapshot, Store, WriteLock};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::tables::Table;

/// About as many videos as a bucket is meant to hold.
const VIDEOS_PER_BUCKET: usize = 1024;
/// As many buckets as a store has at most.
const MOST_BUCKETS: u32 = 1024;

/// What a version says of itself; hashes are SHA-256, hex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitInfo {
    /// What was asked, as a command line.
    pub command: String,
    /// Epoch, where the commit carries one.
    pub epoch: Option<u64>,
    /// Hash of the settings.
    pub settings: String,
    /// Hash of what embeds.
    pub models: String,
    /// Hash of every input of the run.
    pub inputs: String,
    /// Version of the program.
    pub program: String,
    /// Videos that the store is going to hold: a new store chooses its buckets by it.
    pub videos: usize,
}

/// A store version in the making: nothing of it is seen before [`Commit::finish`]. Dropped, it never was.
#[derive(Debug)]
pub struct Commit<'a> {
    pub(super) store: &'a Store,
    pub(super) info: CommitInfo,
    pub(super) previous: Option<Snapshot>,
    version: StoreVersion,
    pub(super) buckets: u32,
    /// What each touched table is going to hold.
    pub(super) touched: BTreeMap<&'static str, LoggedFiles>,
    /// Tables that were patched.
    pub(super) patched: BTreeSet<&'static str>,
    /// Do rows only move?
    pub(super) same_rows: bool,
    /// Written, but neither synced nor named: table, name, file.
    pub(super) unnamed: Vec<(&'static str, String, Scratch)>,
    _lock: &'a WriteLock,
}

impl<'a> Commit<'a> {
    pub(super) fn new(
        store: &'a Store,
        lock: &'a WriteLock,
        info: CommitInfo,
    ) -> Result<Commit<'a>, StoreError> {
        // Under the lock no one else writes: what lies here is of a run that was killed.
        let scratch = store.root.join(OWN).join(SCRATCH);
        match std::fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("clear", &scratch)(error));
            }
            _ => std::fs::create_dir_all(&scratch).map_err(StoreError::io("make", &scratch))?,
        }
        store.keep_spare();
        let previous = store.latest()?;
        let version = StoreVersion(previous.as_ref().map_or(0, |snapshot| snapshot.version().version) + 1);
        let buckets = match previous.as_ref().map(Snapshot::buckets).transpose()?.flatten() {
            Some(buckets) => buckets,
            None => {
                let wanted = info.videos.div_ceil(VIDEOS_PER_BUCKET).next_power_of_two();
                u32::try_from(wanted).unwrap_or(MOST_BUCKETS).min(MOST_BUCKETS)
            }
        };
        Ok(Commit {
            store,
            info,
            previous,
            version,
            buckets,
            touched: BTreeMap::new(),
            patched: BTreeSet::new(),
            same_rows: false,
            unnamed: Vec::new(),
            _lock: lock,
        })
    }

    /// The version it is going to be.
    pub fn version(&self) -> StoreVersion {
        self.version
    }

    /// Into how many buckets videos are cut.
    pub fn buckets(&self) -> u32 {
        self.buckets
    }

    /// Replaces all rows of a table that has no buckets; `rows` come in any order.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a full disk, say; [`StoreError::Unwritable`]: two rows have one key.
    ///
    /// # Panics
    /// For a table that has buckets.
    pub fn replace_all<T: Table>(&mut self, rows: &[T::Row]) -> Result<(), StoreError> {
        assert!(!T::BUCKETED, "{} is replaced bucket by bucket", T::NAME);
        self.touched.insert(T::NAME, LoggedFiles::new());
        self.write::<T>("all", rows)
    }

    /// Adds rows, in any order, to a table that has no buckets.
    ///
    /// # Errors
    /// As [`Commit::replace_all`].
    pub fn append<T: Table>(&mut self, rows: &[T::Row]) -> Result<(), StoreError> {
        let prefix = format!("v{:08}", self.version.0);
        self.write::<T>(&prefix, rows)
    }

    /// Replaces the rows of a bucket; they come in any order, and all are of videos of that bucket.
    ///
    /// # Errors
    /// As [`Commit::replace_all`], and where a video is of another bucket.
    ///
    /// # Panics
    /// For a bucket that is not there.
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

    /// Replaces every bucket of a table, by as many threads as there are cores; `rows` gives those of a bucket.
    ///
    /// # Errors
    /// As [`Commit::replace_bucket`].
    ///
    /// # Panics
    /// For a table that has no buckets.
    pub fn replace_buckets<T: Table>(
        &mut self,
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError> {
        assert!(T::BUCKETED, "{} has no buckets", T::NAME);
        self.touched.insert(T::NAME, LoggedFiles::new());
        let (store, buckets) = (self.store, self.buckets);
        let written = on_all_cores(buckets as usize, |bucket| {
            let bucket = bucket as u32;
            Written::bucket::<T>(store, (bucket, buckets), &rows(bucket))
        })?;
        written.into_iter().try_for_each(|written| self.add::<T>(written))
    }

    /// Adds rows to a table that has no buckets, a file a part, by as many threads as there are cores; `rows` gives
    /// those of a part, no key in two of them.
    ///
    /// # Errors
    /// As [`Commit::replace_all`].
    pub fn append_parts<T: Table>(
        &mut self,
        parts: u32,
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError> {
        let (store, prefix) = (self.store, format!("v{:08}", self.version.0));
        self.touch::<T>()?;
        let part = |part: usize| Written::new::<T>(store, &prefix, &rows(part as u32));
        let written = on_all_cores(parts as usize, part)?;
        written.into_iter().try_for_each(|written| self.add::<T>(written))
    }

    /// The entry of a table, which begins as what the version before holds.
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

    /// Adds a file of these rows to the table.
    pub(super) fn write<T: Table>(&mut self, prefix: &str, rows: &[T::Row]) -> Result<(), StoreError> {
        self.touch::<T>()?;
        let written = Written::new::<T>(self.store, prefix, rows)?;
        self.add::<T>(written)
    }

    pub(super) fn add<T: Table>(&mut self, written: Option<Written>) -> Result<(), StoreError> {
        if let Some(Written { file, scratch }) = written {
            let name = file.name.clone();
            self.touch::<T>()?.insert(name.clone(), file);
            self.unnamed
                .extend(scratch.map(|scratch| (T::NAME, name, scratch)));
        }
        Ok(())
    }

    /// Where a file of the table lies, be it without its name yet.
    pub(super) fn path_of<T: Table>(&self, name: &str) -> PathBuf {
        let unnamed = self
            .unnamed
            .iter()
            .find(|(table, own, _)| *table == T::NAME && own == name);
        match unnamed {
            Some((_, _, scratch)) => scratch.path().to_owned(),
            None => self.store.folder(T::NAME).path.join(name),
        }
    }
}
