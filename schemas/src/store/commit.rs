//! A store version in the making.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use deltalake::kernel::Transaction;
use sha2::{Digest, Sha256};

use super::delta::WantedFile;
use super::{DataFile, Snapshot, Store, WriteLock, fault};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::parquet_file;
use crate::rows::VersionRow;
use crate::tables::{self, Table, Versions};

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

/// A store version in the making: nothing of it is seen before [`Commit::finish`].
pub struct Commit<'a> {
    store: &'a Store,
    info: CommitInfo,
    previous: Option<Snapshot>,
    version: StoreVersion,
    buckets: u32,
    /// What each touched table is going to hold.
    touched: BTreeMap<&'static str, Touched>,
    _lock: &'a WriteLock,
}

struct Touched {
    schema: SchemaRef,
    files: Vec<WantedFile>,
}

impl<'a> Commit<'a> {
    pub(super) fn new(
        store: &'a Store,
        lock: &'a WriteLock,
        info: CommitInfo,
    ) -> Result<Commit<'a>, StoreError> {
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

    /// Replaces all rows of a table that has no buckets.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a full disk, say.
    ///
    /// # Panics
    /// For a table that has buckets.
    pub fn replace_all<T: Table>(&mut self, rows: &[T::Row]) -> Result<(), StoreError> {
        assert!(!T::BUCKETED, "{} is replaced bucket by bucket", T::NAME);
        let file = self.write::<T>("all", rows)?;
        self.touched.insert(
            T::NAME,
            Touched {
                schema: T::schema(),
                files: file.into_iter().collect(),
            },
        );
        Ok(())
    }

    /// Adds rows to a table that has no buckets.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a full disk, say.
    pub fn append<T: Table>(&mut self, rows: &[T::Row]) -> Result<(), StoreError> {
        let prefix = format!("v{:08}", self.version.0);
        let file = self.write::<T>(&prefix, rows)?;
        self.touch::<T>()?.files.extend(file);
        Ok(())
    }

    /// Replaces the rows of a bucket; all of them are of videos of that bucket, sorted by the table's key.
    ///
    /// # Errors
    /// [`StoreError::Io`]: a full disk, say.
    ///
    /// # Panics
    /// For a bucket that is not there.
    pub fn replace_bucket<T: Table>(&mut self, bucket: u32, rows: &[T::Row]) -> Result<(), StoreError> {
        assert!(
            T::BUCKETED && bucket < self.buckets,
            "bucket {bucket} of {} in {}",
            self.buckets,
            T::NAME
        );
        let prefix = format!("b{bucket:04}of{:04}", self.buckets);
        let file = self.write::<T>(&prefix, rows)?;
        let files = &mut self.touch::<T>()?.files;
        files.retain(|file| !file.name.starts_with(&prefix));
        files.extend(file);
        Ok(())
    }

    /// The entry of a table, which begins as what the version before holds.
    fn touch<T: Table>(&mut self) -> Result<&mut Touched, StoreError> {
        if !self.touched.contains_key(T::NAME) {
            let files = match &self.previous {
                Some(previous) => previous.files(T::NAME)?.iter().map(kept).collect(),
                None => Vec::new(),
            };
            self.touched.insert(
                T::NAME,
                Touched {
                    schema: T::schema(),
                    files,
                },
            );
        }
        Ok(self.touched.get_mut(T::NAME).expect("it was just put there"))
    }

    /// Writes rows to a file named by its content; none for no rows.
    fn write<T: Table>(&self, prefix: &str, rows: &[T::Row]) -> Result<Option<WantedFile>, StoreError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let batch = T::encode(rows);
        let bytes = parquet_file::encode(&batch);
        let sum = Sha256::digest(&bytes)
            .iter()
            .take(8)
            .fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("a String takes everything");
                text
            });
        let name = format!("{prefix}-{sum}.parquet");
        let folder = self.store.folder(T::NAME).path();
        std::fs::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
        let path = folder.join(&name);
        // Named by its content: where it is, it is right.
        if !std::fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64) {
            fault::point("before-file");
            parquet_file::write_durably(&path, &bytes)?;
            fault::point("after-file");
        }
        let videos = rows.iter().filter_map(T::video);
        let videos = videos
            .clone()
            .min()
            .zip(videos.max())
            .map(|(a, b)| (a.to_string(), b.to_string()));
        Ok(Some(WantedFile {
            name,
            bytes: bytes.len() as u64,
            rows: batch.num_rows() as u64,
            videos,
        }))
    }

    /// Commits each touched table, and last the row of `versions` that names them all.
    ///
    /// # Errors
    /// [`StoreError`]; the version before is then still the latest, and the same work done again ends well.
    pub fn finish(mut self) -> Result<VersionRow, StoreError> {
        let runtime = &self.store.runtime;
        // The same work is the same transaction, however often it is begun.
        let transaction = Transaction::new(format!("vaplan/{}", self.info.inputs), self.version.0 as i64);
        let mut named: BTreeMap<String, u64> = self
            .previous
            .iter()
            .flat_map(|previous| previous.version().tables.iter().cloned())
            .collect();
        for (table, schema) in tables::all() {
            let Some(touched) = self.touched.remove(table) else {
                continue;
            };
            let folder = self.store.folder(table);
            std::fs::create_dir_all(folder.path()).map_err(StoreError::io("make", &folder.path()))?;
            parquet_file::sync_folder(&folder.path())?;
            fault::point(&format!("before-{table}"));
            let delta = folder.hold(runtime, &schema, &touched.files, &transaction)?;
            debug_assert_eq!(touched.schema, schema);
            fault::point(&format!("after-{table}"));
            named.insert(table.to_owned(), delta);
        }
        parquet_file::sync_folder(self.store.root())?;
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
        let file = self.write::<Versions>(&format!("v{:08}", self.version.0), std::slice::from_ref(&row))?;
        let folder = self.store.folder(Versions::NAME);
        parquet_file::sync_folder(&folder.path())?;
        parquet_file::sync_folder(self.store.root())?;
        let mut files: Vec<WantedFile> = match folder.exists() {
            true => folder.load(runtime, None)?.files.iter().map(kept).collect(),
            false => Vec::new(),
        };
        files.extend(file);
        fault::point("before-versions");
        folder.hold(runtime, &Versions::schema(), &files, &transaction)?;
        fault::point("after-versions");
        Ok(row)
    }
}

/// A file that stays: the log knows its statistics already.
fn kept(file: &DataFile) -> WantedFile {
    let name = file
        .path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    WantedFile {
        name: name.unwrap_or_default(),
        bytes: file.bytes,
        rows: file.rows,
        videos: None,
    }
}

impl std::fmt::Debug for Commit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tables: Vec<&Arc<arrow::datatypes::Schema>> =
            self.touched.values().map(|touched| &touched.schema).collect();
        f.debug_struct("Commit")
            .field("version", &self.version)
            .field("tables", &tables.len())
            .finish_non_exhaustive()
    }
}
