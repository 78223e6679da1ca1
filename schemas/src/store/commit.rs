//! A store version in the making.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use super::delta::{LoggedFile, LoggedFiles, Stamp};
use super::durable::{Scratch, sync_folder};
use super::{OWN, SCRATCH, Snapshot, Store, WriteLock, fault};
use crate::error::{StoreError, TableError};
use crate::ids::{StoreVersion, bucket_of};
use crate::parquet_file;
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
    store: &'a Store,
    info: CommitInfo,
    previous: Option<Snapshot>,
    version: StoreVersion,
    buckets: u32,
    /// What each touched table is going to hold.
    touched: BTreeMap<&'static str, LoggedFiles>,
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
        let written = on_all_cores(buckets, |bucket| {
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
        let written = on_all_cores(parts, |part| Written::new::<T>(store, &prefix, &rows(part)))?;
        written.into_iter().try_for_each(|written| self.add::<T>(written))
    }

    /// The entry of a table, which begins as what the version before holds.
    fn touch<T: Table>(&mut self) -> Result<&mut LoggedFiles, StoreError> {
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

    fn add<T: Table>(&mut self, written: Option<Written>) -> Result<(), StoreError> {
        if let Some(Written { file, scratch }) = written {
            let name = file.name.clone();
            self.touch::<T>()?.insert(name.clone(), file);
            self.unnamed
                .extend(scratch.map(|scratch| (T::NAME, name, scratch)));
        }
        Ok(())
    }

    /// Syncs what was written and gives it its names.
    fn name_files(&mut self) -> Result<(), StoreError> {
        let mut files = std::mem::take(&mut self.unnamed);
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

/// Writes so many files, by as many threads as there are cores.
fn on_all_cores(
    files: u32,
    write: impl Fn(u32) -> Result<Option<Written>, StoreError> + Sync,
) -> Result<Vec<Option<Written>>, StoreError> {
    let next = AtomicU32::new(0);
    let work = || {
        let mut written = Vec::new();
        loop {
            let file = next.fetch_add(1, Ordering::Relaxed);
            if file >= files {
                return Ok(written);
            }
            written.push(write(file)?);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shares: Vec<Result<Vec<Option<Written>>, StoreError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores.min(files as usize))
            .map(|_| scope.spawn(work))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Vec::new();
    for share in shares {
        all.extend(share?);
    }
    Ok(all)
}

/// A file of rows that was written, where it was not there yet.
struct Written {
    file: LoggedFile,
    scratch: Option<Scratch>,
}

impl Written {
    /// Rows of one bucket of so many.
    fn bucket<T: Table>(
        store: &Store,
        (bucket, buckets): (u32, u32),
        rows: &[T::Row],
    ) -> Result<Option<Written>, StoreError> {
        let mut videos = rows.iter().filter_map(T::video);
        if let Some(video) = videos.find(|video| bucket_of(video, buckets) != bucket) {
            return Err(StoreError::Unwritable(TableError::Bucket {
                table: T::NAME,
                video: video.to_string(),
                bucket,
                expected: bucket_of(video, buckets),
            }));
        }
        Written::new::<T>(store, &format!("b{bucket:04}of{buckets:04}"), rows)
    }

    /// A file named by its content; none for no rows.
    fn new<T: Table>(store: &Store, prefix: &str, rows: &[T::Row]) -> Result<Option<Written>, StoreError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let mut sorted = Vec::new();
        let rows = if rows.is_sorted_by(|a, b| T::compare(a, b).is_le()) {
            rows
        } else {
            sorted.extend_from_slice(rows);
            sorted.sort_by(T::compare);
            &sorted
        };
        let twice = rows
            .windows(2)
            .position(|pair| T::compare(&pair[0], &pair[1]).is_eq());
        if let Some(row) = twice {
            let mut key = format!("{:?}", rows[row]);
            key.truncate(key.floor_char_boundary(200));
            let (table, row) = (T::NAME, row + 1);
            return Err(StoreError::Unwritable(TableError::Duplicate { table, row, key }));
        }
        let batch = T::encode(rows);
        let bytes = parquet_file::encode(&batch);
        let name = format!("{prefix}-{}.parquet", content(&bytes));
        let path = store.folder(T::NAME).path.join(&name);
        let file = LoggedFile {
            name,
            bytes: bytes.len() as u64,
            rows: batch.num_rows() as u64,
            stats: Some(stats::<T>(rows, batch.num_rows())),
        };
        // Named by its content, and only once that was synced: where it is, it is right.
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == file.bytes) {
            return Ok(Some(Written { file, scratch: None }));
        }
        fault::point("before-file");
        let scratch = Scratch::write(&store.root.join(OWN).join(SCRATCH), [bytes.as_slice()])?;
        fault::point("after-file");
        Ok(Some(Written {
            file,
            scratch: Some(scratch),
        }))
    }
}

/// First 16 hexadecimal digits of the SHA-256.
pub(super) fn content(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(8)
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes everything");
            text
        })
}

/// Delta's statistics: number of rows, and the range of the videos, so that engines skip files.
fn stats<T: Table>(rows: &[T::Row], count: usize) -> String {
    let videos = || rows.iter().filter_map(T::video);
    // Delta cuts long strings, and the upper end of a cut one would have to be raised.
    let range = videos()
        .min()
        .zip(videos().max())
        .filter(|(min, max)| min.len().max(max.len()) <= 256);
    match range {
        Some((min, max)) if T::BUCKETED => serde_json::json!({
            "numRecords": count,
            "minValues": {"video": min},
            "maxValues": {"video": max},
            "nullCount": {"video": 0},
        }),
        _ => serde_json::json!({ "numRecords": count }),
    }
    .to_string()
}
