//! Data files that several processes write for one commit.
//!
//! ```text
//! process 0        Commit ── version, buckets ──┐                          ┌── Commit::adopt ── Commit::finish
//! other processes                               └─ PartWriter ── PartFiles ┘
//! ```
//!
//! A part writes, syncs and names its data files, but no log. Only the process with the write lock writes the logs, and it
//! gets the names and statistics of the files, not their rows. A data file that no version names is removed by `vacuum`,
//! so a process that is killed at any moment leaves nothing that a reader sees.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::by_bucket::{FileWriter, files_of};
use super::logged::LoggedFile;
use super::parallel::on_all_cores;
use super::written::Written;
use super::{Commit, Store};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::storage::StagedFile;
use crate::tables::{self, Table};

/// Takes the rows of a store version: a [`Commit`], or the part of it that another process writes.
pub trait VersionRows {
    /// The number of the store version.
    fn version(&self) -> StoreVersion;

    /// Adds the rows of these buckets, with as many threads as there are cores. `rows` returns the rows of a bucket. The
    /// buckets must be empty (see [`Commit::clear`]).
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_bucket`].
    ///
    /// # Panics
    /// Panics if the table has no buckets.
    fn fill_buckets<T: Table>(
        &mut self,
        buckets: &[u32],
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError>;

    /// Removes all rows of a table, if this is the commit. A part has no rows of the version before.
    fn clear<T: Table>(&mut self);

    /// Calls `work` with every number below `count`, with as many threads as there are cores, and adds the files that these
    /// calls write. The caller must have cleared the bucketed tables that `work` writes ([`Commit::clear`]).
    ///
    /// # Errors
    /// Returns the error of one of the calls.
    fn write_files<R: Send, E: Send + From<StoreError>>(
        &mut self,
        count: usize,
        work: impl Fn(usize, &FileWriter<'_>) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E>;

    /// Adds rows to a table that has no buckets, one file per part, with as many threads as there are cores. `rows`
    /// returns the rows of a part. No key may occur in two parts.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_all`].
    fn append_parts<T: Table>(
        &mut self,
        parts: u32,
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError>;
}

/// The files that a part wrote, as process 0 names them in the logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFiles {
    files: Vec<PartFile>,
    /// The number of labels whose change the part adds to `label_changes`.
    changed_labels: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PartFile {
    table: String,
    name: String,
    bytes: u64,
    rows: u64,
    stats: Option<String>,
}

impl PartFiles {
    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns whether the part wrote no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Writes the data files of one process for a commit of another process.
///
/// The other process must hold the write lock and have begun its commit, because a commit clears the folder of files
/// without a name. If the writer is dropped, no file of it gets a name.
#[derive(Debug)]
pub struct PartWriter {
    /// The store, with files of its own that have no name yet.
    store: Store,
    version: StoreVersion,
    buckets: u32,
    files: Vec<PartFile>,
    unnamed: Vec<StagedFile>,
    changed_labels: u64,
}

impl PartWriter {
    /// Begins the part of a commit. `name` must differ between all processes that write for one store.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the folder for its files cannot be made.
    pub fn begin(
        store: &Store,
        version: StoreVersion,
        buckets: u32,
        name: &str,
    ) -> Result<PartWriter, StoreError> {
        Ok(PartWriter {
            store: Store {
                storage: store.storage.part(name)?,
                ..store.clone()
            },
            version,
            buckets,
            files: Vec::new(),
            unnamed: Vec::new(),
            changed_labels: 0,
        })
    }

    fn add(&mut self, table: &'static str, written: Option<Written>) {
        let Some(Written { file, staged }) = written else {
            return;
        };
        self.unnamed
            .extend(staged.map(|staged| (table, file.name.clone(), staged)));
        self.files.push(PartFile {
            table: table.to_owned(),
            name: file.name,
            bytes: file.bytes,
            rows: file.rows,
            stats: file.stats,
        });
    }

    /// Syncs the files and gives them their names. A power cut after this function has returned loses none of them.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if a file cannot be synced or named.
    pub fn finish(mut self) -> Result<PartFiles, StoreError> {
        let written = |table: &&'static str| self.files.iter().any(|file| file.table == *table);
        let tables = tables::all().into_iter().map(|(table, _)| table);
        let tables: BTreeSet<&'static str> = tables.filter(written).collect();
        self.store
            .storage
            .name_files(std::mem::take(&mut self.unnamed), &tables)?;
        Ok(PartFiles {
            files: std::mem::take(&mut self.files),
            changed_labels: self.changed_labels,
        })
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        // The files go before the storage, which removes their folder.
        self.unnamed.clear();
    }
}

impl VersionRows for PartWriter {
    fn version(&self) -> StoreVersion {
        self.version
    }

    fn fill_buckets<T: Table>(
        &mut self,
        buckets: &[u32],
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError> {
        let written = buckets_of::<T>(&self.store, self.buckets, buckets, rows)?;
        written.into_iter().for_each(|written| self.add(T::NAME, written));
        Ok(())
    }

    fn clear<T: Table>(&mut self) {}

    fn write_files<R: Send, E: Send + From<StoreError>>(
        &mut self,
        count: usize,
        work: impl Fn(usize, &FileWriter<'_>) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E> {
        let (done, written) = files_of(&self.store, self.buckets, self.version, count, work)?;
        for (table, changed, written) in written {
            self.changed_labels += changed;
            self.add(table, Some(written));
        }
        Ok(done)
    }

    fn append_parts<T: Table>(
        &mut self,
        parts: u32,
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError> {
        for (changed, written) in parts_of::<T>(&self.store, self.version, parts, rows)? {
            self.changed_labels += changed;
            self.add(T::NAME, written);
        }
        Ok(())
    }
}

impl VersionRows for Commit<'_> {
    fn version(&self) -> StoreVersion {
        Commit::version(self)
    }

    fn fill_buckets<T: Table>(
        &mut self,
        buckets: &[u32],
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError> {
        let written = buckets_of::<T>(self.store, self.buckets(), buckets, rows)?;
        written.into_iter().try_for_each(|written| self.add::<T>(written))
    }

    fn clear<T: Table>(&mut self) {
        Commit::clear::<T>(self);
    }

    fn write_files<R: Send, E: Send + From<StoreError>>(
        &mut self,
        count: usize,
        work: impl Fn(usize, &FileWriter<'_>) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E> {
        let (done, written) = files_of(self.store, self.buckets(), Commit::version(self), count, work)?;
        self.add_files(written)?;
        Ok(done)
    }

    fn append_parts<T: Table>(
        &mut self,
        parts: u32,
        rows: impl Fn(u32) -> Vec<T::Row> + Sync,
    ) -> Result<(), StoreError> {
        self.touch::<T>()?;
        let version = Commit::version(self);
        for (changed, written) in parts_of::<T>(self.store, version, parts, rows)? {
            self.changed_labels += changed;
            self.add::<T>(written)?;
        }
        Ok(())
    }
}

impl Commit<'_> {
    /// Takes the files that a part wrote for this commit into its tables.
    ///
    /// # Errors
    /// Returns [`StoreError::File`] if a file is not there as the part described it, for example because the two
    /// processes do not see one file system, if its table has no such file, or if its bucket was written by two processes.
    pub fn adopt(&mut self, part: PartFiles) -> Result<(), StoreError> {
        self.changed_labels += part.changed_labels;
        for file in part.files {
            let folder = tables::all().into_iter().find(|(table, _)| *table == file.table);
            let key = format!("{}/{}", file.table, file.name);
            let path = self.store.root().join(&key);
            let problem = |problem: String| StoreError::File {
                path: path.clone(),
                problem,
            };
            let Some((table, _)) = folder.filter(|_| !file.name.contains(['/', '\\'])) else {
                return Err(problem(
                    "another process wrote it, expected a file of a table".to_owned(),
                ));
            };
            match self.store.storage.size(&key)? {
                Some(bytes) if bytes == file.bytes => {}
                Some(bytes) => {
                    return Err(problem(format!(
                        "has {bytes} bytes, expected the {} bytes that another process wrote",
                        file.bytes
                    )));
                }
                None => {
                    let missing = "does not exist, but another process wrote it: expected one file system that all processes see";
                    return Err(problem(missing.to_owned()));
                }
            }
            let file = LoggedFile {
                name: file.name,
                bytes: file.bytes,
                rows: file.rows,
                deleted: None,
                stats: file.stats,
            };
            let files = match self.touched.get_mut(table) {
                Some(files) => files,
                None => {
                    let before = self.previous.as_ref();
                    let before = before.map(|previous| previous.logged(table)).transpose()?;
                    let before = before.map_or_else(Default::default, |files| files.as_ref().clone());
                    self.touched.entry(table).or_insert(before)
                }
            };
            let bucket = file.bucket();
            if bucket.is_some() && files.values().any(|other| other.bucket() == bucket) {
                return Err(problem("is a second file of its bucket, expected one".to_owned()));
            }
            files.insert(file.name.clone(), file);
        }
        Ok(())
    }
}

fn buckets_of<T: Table>(
    store: &Store,
    of: u32,
    buckets: &[u32],
    rows: impl Fn(u32) -> Vec<T::Row> + Sync,
) -> Result<Vec<Option<Written>>, StoreError> {
    assert!(T::BUCKETED, "{} has no buckets", T::NAME);
    on_all_cores(&store.storage, buckets.len(), |nth| {
        let bucket = buckets[nth];
        Written::bucket::<T>(store, (bucket, of), &rows(bucket))
    })
}

/// Writes the parts, and returns each with the number of labels that it changes.
fn parts_of<T: Table>(
    store: &Store,
    version: StoreVersion,
    parts: u32,
    rows: impl Fn(u32) -> Vec<T::Row> + Sync,
) -> Result<Vec<(u64, Option<Written>)>, StoreError> {
    let prefix = format!("v{:08}", version.0);
    on_all_cores(&store.storage, parts as usize, |part| {
        let rows = rows(part as u32);
        let changed: u64 = rows.iter().map(T::changed_labels).sum();
        Ok((changed, Written::new::<T>(store, &prefix, &rows)?))
    })
}
