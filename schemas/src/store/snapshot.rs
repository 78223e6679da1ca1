//! A store version, for reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Store;
use super::delta::{self, DeltaFolder, LoggedFiles};
use crate::error::StoreError;
use crate::parquet_file;
use crate::rows::VersionRow;
use crate::tables::Table;

/// A Parquet file of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Size.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
}

impl DataFile {
    /// Bucket and number of buckets that a bucketed file is named by.
    pub fn bucket(&self) -> Option<(u32, u32)> {
        delta::bucket(self.path.file_name()?.to_str()?)
    }

    /// Store version that a file of an append-only table is named by.
    pub fn version(&self) -> Option<u64> {
        let name = self.path.file_name()?.to_str()?.strip_prefix('v')?;
        name.split_once('-')?.0.parse().ok()
    }
}

/// A store version: every table as the version names it, whatever is committed meanwhile.
#[derive(Clone, Debug)]
pub struct Snapshot {
    store: Store,
    row: VersionRow,
    /// Files of the tables whose log was read.
    logs: Arc<Mutex<BTreeMap<String, Arc<LoggedFiles>>>>,
}

impl Snapshot {
    pub(super) fn new(store: Store, row: VersionRow) -> Snapshot {
        Snapshot {
            store,
            row,
            logs: Arc::default(),
        }
    }

    /// Its row of `versions`.
    pub fn version(&self) -> &VersionRow {
        &self.row
    }

    /// The store it is of.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Files of a table by name, sorted; none where the version has no such table.
    ///
    /// # Errors
    /// [`StoreError::Delta`] where the log does not read back.
    pub fn files(&self, table: &str) -> Result<Vec<DataFile>, StoreError> {
        let folder = self.store.folder(table);
        Ok(data_files(&folder, self.logged(table)?.as_ref()))
    }

    /// The log of a table at this version, read once.
    pub(super) fn logged(&self, table: &str) -> Result<Arc<LoggedFiles>, StoreError> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = logs.get(table) {
            return Ok(files.clone());
        }
        let files = Arc::new(match self.delta(table) {
            Some(delta) => self.store.folder(table).files(delta)?,
            None => LoggedFiles::new(),
        });
        logs.insert(table.to_owned(), files.clone());
        Ok(files)
    }

    /// Delta version of a table; none where the version has no such table.
    pub(super) fn delta(&self, table: &str) -> Option<u64> {
        let named = self.row.tables.iter().find(|(name, _)| name == table);
        named.map(|(_, delta)| *delta)
    }

    /// Files of `versions`, up to this one; where someone else wrote to that table, perhaps later ones too.
    ///
    /// # Errors
    /// As [`Snapshot::files`].
    pub fn version_files(&self) -> Result<Vec<DataFile>, StoreError> {
        let folder = self.store.folder(crate::tables::Versions::NAME);
        let Some(latest) = folder.latest()? else {
            return Ok(Vec::new());
        };
        // A version does not name the row that names it, but each is one Delta commit of this table, from 0.
        let own = data_files(
            &folder,
            &folder.files(latest.min(self.row.version.saturating_sub(1)))?,
        );
        if own.last().and_then(DataFile::version) == Some(self.row.version) {
            return Ok(own);
        }
        Ok(data_files(&folder, &folder.files(latest)?))
    }

    /// All rows of a table, in the order of its files.
    ///
    /// # Errors
    /// [`StoreError`] that names the file which does not read back.
    pub fn read<T: Table>(&self) -> Result<Vec<T::Row>, StoreError> {
        let mut rows = Vec::new();
        for file in self.files(T::NAME)? {
            rows.extend(decode::<T>(&file.path)?);
        }
        Ok(rows)
    }

    /// The rows of one video; of a bucketed table only its bucket is read.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn read_video<T: Table>(&self, video: &str) -> Result<Vec<T::Row>, StoreError> {
        let mut rows = Vec::new();
        for file in self.files(T::NAME)? {
            let elsewhere = |(bucket, buckets)| crate::bucket_of(video, buckets) != bucket;
            if !file.bucket().is_some_and(elsewhere) {
                let own = decode::<T>(&file.path)?.into_iter();
                rows.extend(own.filter(|row| T::video(row).is_some_and(|name| **name == *video)));
            }
        }
        Ok(rows)
    }

    /// Into how many buckets the videos are cut; none in a version without videos.
    ///
    /// # Errors
    /// As [`Snapshot::files`].
    pub fn buckets(&self) -> Result<Option<u32>, StoreError> {
        let files = self.files(crate::tables::Videos::NAME)?;
        Ok(files
            .first()
            .and_then(DataFile::bucket)
            .map(|(_, buckets)| buckets))
    }
}

fn data_files(folder: &DeltaFolder, files: &LoggedFiles) -> Vec<DataFile> {
    let file = |file: &delta::LoggedFile| DataFile {
        path: folder.path.join(&file.name),
        bytes: file.bytes,
        rows: file.rows,
    };
    files.values().map(file).collect()
}

/// The rows of one file.
pub(super) fn decode<T: Table>(path: &Path) -> Result<Vec<T::Row>, StoreError> {
    let batch = parquet_file::read(path, &T::schema())?;
    T::decode(&batch).map_err(|source| StoreError::Rows {
        path: path.to_owned(),
        source,
    })
}
