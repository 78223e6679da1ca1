//! A store version, for reading.

use std::path::{Path, PathBuf};

use super::{Store, delta::Loaded};
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
        let name = self.path.file_name()?.to_str()?.strip_prefix('b')?;
        let (bucket, rest) = name.split_once("of")?;
        let (buckets, _) = rest.split_once('-')?;
        Some((bucket.parse().ok()?, buckets.parse().ok()?))
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
}

impl Snapshot {
    pub(super) fn new(store: Store, row: VersionRow) -> Snapshot {
        Snapshot { store, row }
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
        Ok(self.load(table)?.map(|loaded| loaded.files).unwrap_or_default())
    }

    /// Files of `versions`, up to the latest: a version does not name the row that names it.
    ///
    /// # Errors
    /// As [`Snapshot::files`].
    pub fn version_files(&self) -> Result<Vec<DataFile>, StoreError> {
        Ok(self
            .store
            .folder(crate::tables::Versions::NAME)
            .load(&self.store.runtime, None)?
            .files)
    }

    fn load(&self, table: &str) -> Result<Option<Loaded>, StoreError> {
        let Some((_, delta)) = self.row.tables.iter().find(|(name, _)| name == table) else {
            return Ok(None);
        };
        self.store
            .folder(table)
            .load(&self.store.runtime, Some(*delta))
            .map(Some)
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

/// The rows of one file.
pub(super) fn decode<T: Table>(path: &Path) -> Result<Vec<T::Row>, StoreError> {
    let batch = parquet_file::read(path, &T::schema())?;
    T::decode(&batch).map_err(|source| StoreError::Rows {
        path: path.to_owned(),
        source,
    })
}
