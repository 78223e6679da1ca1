//! A store version in the making.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::delta::{LoggedFiles, Stamp};
use super::durable::{Scratch, sync_folder};
use super::parallel::on_all_cores;
use super::written::Written;
use super::{OWN, SCRATCH, Snapshot, Store, WriteLock, fault};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::rows::VersionRow;
use crate::tables::{self, Table, Versions};

/// About as many videos as a bucket is meant to hold.
const VIDEOS_PER_BUCKET: usize = 1024;
/// As many buckets as a store has at most.
const MOST_BUCKETS: u32 = 1024;
/// As many files of `versions` are put together into one, so that opening the store stays quick.
const VERSION_FILES: usize = 64;
/// As many syncs wait for the disk at once: several take hardly longer than one.
const SYNCS: usize = 8;

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
    info: CommitInfo,
    pub(super) previous: Option<Snapshot>,
    version: StoreVersion,
    pub(super) buckets: u32,
    /// What each touched table is going to hold.
    touched: BTreeMap<&'static str, LoggedFiles>,
    /// Tables that were patched.
    pub(super) patched: BTreeSet<&'static str>,
    /// Written, but neither synced nor named: table, name, file.
    unnamed: Vec<(&'static str, String, Scratch)>,
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
    fn write<T: Table>(&mut self, prefix: &str, rows: &[T::Row]) -> Result<(), StoreError> {
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

    /// Syncs what was written and gives it its names.
    fn name_files(&mut self) -> Result<(), StoreError> {
        let mut files = std::mem::take(&mut self.unnamed);
        // What the same commit put aside again.
        files.retain(|(table, name, _)| {
            self.touched
                .get(table)
                .is_some_and(|files| files.contains_key(name))
        });
        let share = files.len().div_ceil(SYNCS).max(1);
        std::thread::scope(|scope| {
            let sync = |files: &mut [(&str, String, Scratch)]| -> Result<(), StoreError> {
                files.iter_mut().try_for_each(|(_, _, scratch)| scratch.sync())
            };
            let threads: Vec<_> = files
                .chunks_mut(share)
                .map(|files| scope.spawn(move || sync(files)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("a sync does not panic"))
        })?;
        let mut folders = BTreeSet::<PathBuf>::new();
        for (table, name, scratch) in files {
            let folder = self.store.folder(table).path;
            if folders.insert(folder.clone()) && !folder.exists() {
                std::fs::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
            }
            scratch.rename(&folder.join(name))?;
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        sync_folder(self.store.root())
    }

    /// Commits each touched table, and last the row of `versions` that names them all.
    ///
    /// # Errors
    /// [`StoreError`]; the version before is then still the latest, and the same work done again ends well.
    pub fn finish(mut self) -> Result<VersionRow, StoreError> {
        self.name_files()?;
        fault::point("after-files");
        let (inputs, command) = (self.info.inputs.clone(), self.info.command.clone());
        let stamp = Stamp {
            inputs: &inputs,
            command: &command,
            version: self.version.0,
        };
        let mut named: BTreeMap<String, u64> = BTreeMap::new();
        for (table, schema) in tables::all() {
            let folder = self.store.folder(table);
            let before = self.previous.as_ref().and_then(|previous| previous.delta(table));
            fault::point(&format!("before-{table}"));
            let delta = match (self.touched.get(table), before) {
                (Some(files), _) => folder.commit(&schema, files, &stamp)?,
                (None, None) => continue,
                (None, Some(before)) if folder.latest()? == Some(before) => before,
                // A killed run moved a table that this one does not touch: back, for readers from outside.
                (None, Some(before)) => folder.commit(&schema, &folder.files(before)?, &stamp)?,
            };
            fault::point(&format!("after-{table}"));
            named.insert(table.to_owned(), delta);
        }
        let row = VersionRow {
            version: self.version.0,
            tables: named.into_iter().collect(),
            epoch: self.info.epoch,
            settings: self.info.settings.clone(),
            models: self.info.models.clone(),
            inputs: self.info.inputs.clone(),
            program: self.info.program.clone(),
            command: self.info.command.clone(),
            committed_at: chrono::Utc::now().timestamp_millis(),
        };
        self.add_version(&row)?;
        self.name_files()?;
        fault::point("before-versions");
        let files = &self.touched[Versions::NAME];
        self.store
            .folder(Versions::NAME)
            .commit(&Versions::schema(), files, &stamp)?;
        fault::point("after-versions");
        Ok(row)
    }

    fn add_version(&mut self, row: &VersionRow) -> Result<(), StoreError> {
        let folder = self.store.folder(Versions::NAME);
        let files = folder.latest()?.map(|delta| folder.files(delta)).transpose()?;
        let mut files = files.unwrap_or_default();
        let mut rows = Vec::new();
        if files.len() >= VERSION_FILES {
            rows = self.store.versions()?;
            files.clear();
        }
        rows.push(row.clone());
        self.touched.insert(Versions::NAME, files);
        self.append::<Versions>(&rows)
    }
}
