//! A data file of a table: where it is, and how it is read.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::deleted::Deleted;
use super::logged;
use super::parallel::on_all_cores;
use crate::error::StoreError;
use crate::parquet_file::Opened;
use crate::storage::{Ranges, Storage, whole_bytes};

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
    /// In an object of this key. Snapshots hold the bytes that they read.
    Object(Arc<dyn Storage>, String, Option<Arc<HeldFiles>>),
}

/// The most bytes of objects that a snapshot holds, and the most that are fetched together.
pub(super) const HELD_BYTES: u64 = 64 << 20;
/// The most objects that one scan fetches together, and their most bytes. Four tables can be scanned at once, so that the objects
/// that one scan has fetched stay until it has read them.
const TOGETHER: usize = 256;
pub(super) const TOGETHER_BYTES: u64 = HELD_BYTES / 4;

/// The bytes of small objects that a snapshot read, by key. Commands read some files several times, and each request takes
/// longer than decoding the file.
#[derive(Debug, Default)]
pub(super) struct HeldFiles(Mutex<HeldState>);

#[derive(Debug, Default)]
struct HeldState {
    files: BTreeMap<String, Bytes>,
    /// The keys, the oldest first.
    order: VecDeque<String>,
    bytes: u64,
}

impl HeldFiles {
    fn get(&self, key: &str) -> Option<Bytes> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .files
            .get(key)
            .cloned()
    }

    /// Adds files, and removes the oldest ones if all take more than [`HELD_BYTES`].
    pub(super) fn insert(&self, new: impl Iterator<Item = (String, Bytes)>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, bytes) in new {
            let more = bytes.len() as u64;
            if held.files.insert(key.clone(), bytes).is_none() {
                held.order.push_back(key);
                held.bytes += more;
            }
        }
        while held.bytes > HELD_BYTES
            && let Some(oldest) = held.order.pop_front()
        {
            let gone = held.files.remove(&oldest);
            held.bytes -= gone.map_or(0, |bytes| bytes.len() as u64);
        }
    }
}

/// Fetches those of the files that are small objects and are not held.
pub(super) fn fetch(files: &[&DataFile]) -> Result<(), StoreError> {
    let wanted = files.iter().filter_map(|file| match &file.place {
        FilePlace::Object(storage, key, Some(held))
            if file.bytes <= whole_bytes() && held.get(key).is_none() =>
        {
            Some((storage, key, held))
        }
        _ => None,
    });
    let wanted: Vec<_> = wanted.collect();
    let Some((storage, _, held)) = wanted.first() else {
        return Ok(());
    };
    let keys: Vec<String> = wanted.iter().map(|(_, key, _)| (*key).clone()).collect();
    // Reading a file that is missing reports it.
    let found = storage.get_all(&keys)?;
    held.insert(
        keys.into_iter()
            .zip(found)
            .filter_map(|(key, bytes)| Some((key, bytes?))),
    );
    Ok(())
}

/// Calls `work` with the number of every file. Returns the results in order. Files of an object store are fetched many at a
/// time before `work` reads them.
pub(super) fn on_files<R: Send>(
    storage: &Arc<dyn Storage>,
    files: &[&DataFile],
    work: impl Fn(usize) -> Result<R, StoreError> + Sync,
) -> Result<Vec<R>, StoreError> {
    if !storage.is_remote() {
        return on_all_cores(storage, files.len(), work);
    }
    let mut done = Vec::with_capacity(files.len());
    while done.len() < files.len() {
        let from = done.len();
        let mut bytes = 0;
        let fits = |file: &&&DataFile| {
            bytes += file.bytes.min(whole_bytes());
            bytes <= TOGETHER_BYTES
        };
        let count = files[from..]
            .iter()
            .take(TOGETHER)
            .take_while(fits)
            .count()
            .max(1);
        fetch(&files[from..from + count])?;
        done.extend(on_all_cores(storage, count, |nth| work(from + nth))?);
    }
    Ok(done)
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

    /// The key of an object; `None` for a local file.
    pub(super) fn key(&self) -> Option<&str> {
        match &self.place {
            FilePlace::Object(_, key, _) => Some(key),
            FilePlace::Local => None,
        }
    }

    /// The same file, whose bytes `held` keeps.
    pub(super) fn held_by(mut self, by: &Arc<HeldFiles>) -> DataFile {
        if let FilePlace::Object(_, _, held) = &mut self.place {
            *held = Some(by.clone());
        }
        self
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the file cannot be read, and [`StoreError::Object`] if a request fails.
    pub fn read(&self) -> Result<Bytes, StoreError> {
        let absent = |error: io::Error| StoreError::io("read", &self.path)(error);
        match &self.place {
            FilePlace::Local => std::fs::read(&self.path).map(Bytes::from).map_err(absent),
            FilePlace::Object(storage, key, held) => {
                if let Some(bytes) = held.as_ref().and_then(|held| held.get(key)) {
                    return Ok(bytes);
                }
                let found = storage.get(key)?;
                found.ok_or_else(|| absent(io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// Opens the file. Of a large object this reads the footer only, and reading rows fetches the columns that it needs.
    pub(super) fn open(&self, schema: &SchemaRef) -> Result<Opened, StoreError> {
        match &self.place {
            FilePlace::Object(storage, key, _) if self.bytes > whole_bytes() => {
                let ranges = Ranges::open(storage.clone(), key, self.bytes)?;
                Opened::of_ranges(&self.path, ranges, schema)
            }
            FilePlace::Local => Opened::open(&self.path, schema),
            FilePlace::Object(..) => Opened::of_bytes(&self.path, self.read()?, schema),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_files_go_first_and_new_ones_stay() {
        let held = HeldFiles::default();
        let file = |number: u64| {
            let bytes = Bytes::from(vec![0; (HELD_BYTES / 4) as usize]);
            std::iter::once((format!("{number}"), bytes))
        };
        (0..5).for_each(|number| held.insert(file(number)));
        held.insert(file(4));
        let there: Vec<bool> = (0..5)
            .map(|number| held.get(&number.to_string()).is_some())
            .collect();
        assert_eq!(there, [false, true, true, true, true]);
    }
}
