//! A data file of a table: where it is, and how it is read.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::deleted::Deleted;
use super::logged;
use crate::error::StoreError;
use crate::parquet_file::Opened;
use crate::storage::{Ranges, Storage, WHOLE_BYTES};

/// A Parquet file of a table.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// The absolute path, or the URL.
    pub path: PathBuf,
    /// The size in bytes.
    pub bytes: u64,
    /// The number of rows that are in the table.
    pub rows: u64,
    /// Rows that the file still holds, but that are no longer in the table.
    pub deleted: Option<Deleted>,
    pub(super) place: FilePlace,
}

/// Where the bytes of a data file are.
#[derive(Clone, Debug)]
pub(super) enum FilePlace {
    /// In the local file of the path.
    Local,
    /// In an object of this key.
    Object(Arc<dyn Storage>, String),
}

impl PartialEq for DataFile {
    fn eq(&self, other: &DataFile) -> bool {
        let all = |file: &DataFile| (file.path.clone(), file.bytes, file.rows);
        all(self) == all(other) && self.deleted == other.deleted
    }
}

impl Eq for DataFile {}

impl DataFile {
    /// The bucket and the number of buckets in the name of a bucket file.
    pub fn bucket(&self) -> Option<(u32, u32)> {
        logged::bucket(self.path.file_name()?.to_str()?)
    }

    /// Returns whether this is a patch file. A patch file has rows of any bucket, in order of their key.
    pub fn is_patch(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.is_some_and(logged::is_patch)
    }

    /// The number of rows in the file, including deleted rows.
    pub(super) fn all_rows(&self) -> u64 {
        self.rows + self.deleted.as_ref().map_or(0, Deleted::len)
    }

    /// The first and last store version in the name of a file of an append-only table; `None` for a patch file.
    pub fn versions(&self) -> Option<(u64, u64)> {
        logged::versions(self.path.file_name()?.to_str()?)
    }

    /// The store version in the name of a file of an append-only table; `None` for a file that holds several
    /// versions.
    pub fn version(&self) -> Option<u64> {
        let (first, last) = self.versions()?;
        (first == last).then_some(first)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the file cannot be read, and [`StoreError::Object`] if a request fails.
    pub fn read(&self) -> Result<Bytes, StoreError> {
        let absent = |error: io::Error| StoreError::io("read", &self.path)(error);
        match &self.place {
            FilePlace::Local => std::fs::read(&self.path).map(Bytes::from).map_err(absent),
            FilePlace::Object(storage, key) => {
                let found = storage.get(key)?;
                found.ok_or_else(|| absent(io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// Opens the file. Of a large object this reads the footer only, and reading rows fetches the columns that it needs.
    pub(super) fn open(&self, schema: &SchemaRef) -> Result<Opened, StoreError> {
        match &self.place {
            FilePlace::Object(storage, key) if self.bytes > WHOLE_BYTES => {
                let ranges = Ranges::open(storage.clone(), key, self.bytes)?;
                Opened::of_ranges(&self.path, ranges, schema)
            }
            FilePlace::Local => Opened::open(&self.path, schema),
            FilePlace::Object(..) => Opened::of_bytes(&self.path, self.read()?, schema),
        }
    }
}
