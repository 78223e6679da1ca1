//! The store: a directory of Delta tables that change together.
//!
//! ```text
//! store/
//!   versions/                  one row per store version: the Delta version of each table; committed last
//!   classes/ truth/ rejects/   one file each, replaced as a whole
//!   videos/ scores/ labels/    one file per hash bucket, replaced one by one
//!   label_changes/             files of each version, added
//!   _vaplan/                   files that are not tables: `references.rs` lists every folder of it
//! ```
//!
//! The name of a data file has the hash of its content, so that a repeated commit writes no file again. A reader
//! opens the Delta versions that a row of `versions` names, so it sees a store version completely or not at all. A
//! commit syncs all its files before it reports success. A killed run can leave entries in the logs of tables that no
//! version names. The next commit compares each table's log with the files that it wants, and adds and removes the
//! difference.

mod by_bucket;
mod check;
mod checkpoint;
mod commit;
mod deleted;
mod delta;
mod durable;
mod entry;
mod fault;
mod finish;
mod former;
mod grouped;
mod lease;
mod lock;
mod log_copy;
mod logged;
mod optimize;
mod parallel;
mod part;
mod patch;
mod references;
mod scan;
mod select;
mod snapshot;
mod spare;
mod vacuum;
mod written;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;

pub use by_bucket::{BucketGroups, FileWriter, GroupRows, TableBuckets, on_every_core};
pub use check::Problem;
pub use commit::{Commit, CommitInfo};
pub use deleted::Deleted;
pub use lock::WriteLock;
pub use optimize::Optimized;
pub use part::{PartFiles, PartWriter, VersionRows};
pub use references::VacuumedFolder;
pub use scan::{Extent, Filter, Found, Place};
pub use snapshot::{DataFile, Snapshot};
pub use vacuum::Vacuumed;

use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::rows::VersionRow;
use crate::tables::{Table, Versions};
use delta::{DeltaFolder, KnownLogs};
use lease::Lease;

/// The folder of the files that are not tables.
const OWN: &str = "_vaplan";
/// The folder in [`OWN`] of files that have no name yet.
const SCRATCH: &str = "scratch";
/// The folder in [`OWN`] of the leases.
const LEASES: &str = "leases";

/// An open store.
///
/// ```
/// use vaplan_schemas::store::Store;
/// let folder = tempfile::tempdir()?;
/// let store = Store::create(&folder.path().join("store"))?;
/// assert!(store.latest()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    files: Arc<dyn ObjectStore>,
    known: KnownLogs,
    plain_bytes: u64,
    /// The folder of files that have no name yet.
    scratch: PathBuf,
}

/// A commit writes files of at most this size anew rather than patch them: see [`Store::with_plain_bytes`].
const PLAIN_BYTES: u64 = 8 << 20;
/// The environment variable that replaces [`PLAIN_BYTES`].
const PLAIN_BYTES_VARIABLE: &str = "VAPLAN_PLAIN_BYTES";

impl Store {
    /// Opens an existing store.
    ///
    /// # Errors
    /// Returns [`StoreError::NoStore`] if there is no store in the folder.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        if !root.is_dir() {
            return Err(StoreError::NoStore {
                path: root.to_owned(),
            });
        }
        let store = Store::at(root)?;
        if store.folder(Versions::NAME).latest()?.is_some() || root.join(OWN).is_dir() {
            Ok(store)
        } else {
            Err(StoreError::NoStore {
                path: root.to_owned(),
            })
        }
    }

    /// Opens a store, or creates its folder.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the folder cannot be created.
    pub fn create(root: &Path) -> Result<Store, StoreError> {
        let own = root.join(OWN);
        std::fs::create_dir_all(&own).map_err(StoreError::io("make", &own))?;
        Store::at(root)
    }

    fn at(root: &Path) -> Result<Store, StoreError> {
        // Delta tables are located by URLs, and a file URL holds an absolute path.
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let files = durable::durable(&root, &root.join(OWN).join(SCRATCH))?;
        let known = KnownLogs::default();
        let plain_bytes = match std::env::var(PLAIN_BYTES_VARIABLE) {
            Ok(text) => text.parse().map_err(|_| StoreError::Variable {
                variable: PLAIN_BYTES_VARIABLE,
                value: text,
                expected: "a number of bytes, such as 8388608",
            })?,
            Err(_) => PLAIN_BYTES,
        };
        Ok(Store {
            scratch: root.join(OWN).join(SCRATCH),
            root,
            files,
            known,
            plain_bytes,
        })
    }

    /// Sets the size of files, in bytes, that a commit writes anew rather than patch. The default is 8 MiB, or the value of
    /// the environment variable `VAPLAN_PLAIN_BYTES`.
    ///
    /// A table whose changed files have at most this size together gets neither patch files nor deletion vectors, so that
    /// every reader of Delta tables opens it. With 0, each change is a patch. The files of an append-only table from which
    /// rows are deleted may have eight times this size.
    #[must_use]
    pub fn with_plain_bytes(mut self, bytes: u64) -> Store {
        self.plain_bytes = bytes;
        self
    }

    /// The absolute path of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the write lock of the store. If another process holds the lock, this calls `on_wait` once and waits.
    ///
    /// The lock is released when the guard is dropped or the process ends. The folder `_vaplan` is created if it is
    /// missing, because git and object storage do not keep empty folders.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the lock file cannot be created or locked.
    pub fn lock(&self, on_wait: &mut dyn FnMut(&str)) -> Result<WriteLock, StoreError> {
        let own = self.root.join(OWN);
        std::fs::create_dir_all(&own).map_err(StoreError::io("create the folder", &own))?;
        WriteLock::take(&own.join("lock"), on_wait)
    }

    /// The folder for work in progress of this name. This function does not create the folder.
    ///
    /// `name` must be a name of the program's own, never the name of a video or a text of the user.
    pub fn staging_dir(&self, name: &str) -> PathBuf {
        self.root.join(OWN).join("staging").join(name)
    }

    /// The folder of features that were encoded from media for this store. This function does not create the folder.
    pub fn encoded_dir(&self) -> PathBuf {
        self.root.join(OWN).join("encoded")
    }

    /// All versions, from first to last.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the log of `versions` or a row cannot be read.
    pub fn versions(&self) -> Result<Vec<VersionRow>, StoreError> {
        // Read a second time after an error, for the same reason as in [`Store::latest`].
        self.all_rows().or_else(|_| self.all_rows())
    }

    fn all_rows(&self) -> Result<Vec<VersionRow>, StoreError> {
        let folder = self.folder(Versions::NAME);
        let Some(delta) = folder.latest()? else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        for file in folder.files(delta)?.values() {
            rows.extend(snapshot::decode::<Versions>(&snapshot::data_file(&folder, file))?);
        }
        rows.sort_by_key(|row| row.version);
        Ok(rows)
    }

    /// The last version, or `None` if the store has no version yet.
    ///
    /// # Errors
    /// Returns the same errors as [`Store::versions`].
    pub fn latest(&self) -> Result<Option<Snapshot>, StoreError> {
        let mut refused = None;
        loop {
            // There is no lease yet, so a vacuum may remove the files that are being read. Then read a second time:
            // by then, the files that the vacuum leaves are in place.
            let Some(row) = self.last_row().or_else(|_| self.last_row())? else {
                return Ok(None);
            };
            let version = StoreVersion(row.version);
            let snapshot = self.lease(row)?;
            match self.openable(version) {
                Ok(()) => return Ok(Some(snapshot)),
                // Other processes committed and vacuumed after this row was read. Read the last row again.
                Err(StoreError::Vacuumed { .. }) if refused != Some(version) => refused = Some(version),
                Err(error) => return Err(error),
            }
        }
    }

    /// The row of the last version.
    fn last_row(&self) -> Result<Option<VersionRow>, StoreError> {
        let folder = self.folder(Versions::NAME);
        let Some(delta) = folder.latest()? else {
            return Ok(None);
        };
        let files = folder.files(delta)?;
        // A file name begins with the version that wrote the file, so the last row is in the last file.
        let Some(last) = files.values().next_back() else {
            return Ok(None);
        };
        let rows = snapshot::decode::<Versions>(&snapshot::data_file(&folder, last))?;
        Ok(rows.into_iter().max_by_key(|row| row.version))
    }

    /// The requested version, or the last version for `None`. Commands that read a store open it with this function.
    ///
    /// # Errors
    /// Returns [`StoreError::Empty`] if the store has no version, [`StoreError::NoVersion`] if it does not have the
    /// requested version, [`StoreError::Vacuumed`] if the files of the version were removed, and the same errors as
    /// [`Store::versions`].
    pub fn at_version(&self, version: Option<StoreVersion>) -> Result<Snapshot, StoreError> {
        let latest = self.latest()?.ok_or_else(|| StoreError::Empty {
            path: self.root.clone(),
        })?;
        let last = StoreVersion(latest.version().version);
        let wanted = version.unwrap_or(last);
        if wanted == last {
            return Ok(latest);
        }
        let mut rows = self.versions()?;
        let first = rows.first().map_or(last, |row| StoreVersion(row.version));
        match rows.iter().position(|row| row.version == wanted.0) {
            Some(at) => {
                let snapshot = self.lease(rows.swap_remove(at))?;
                // Check this after taking the lease: a vacuum publishes the versions that it removes before it lists
                // the leases, so either this check or the vacuum sees the other.
                self.openable(wanted)?;
                Ok(snapshot)
            }
            None => Err(StoreError::NoVersion { wanted, first, last }),
        }
    }

    /// Opens the version of a row and takes its lease.
    fn lease(&self, row: VersionRow) -> Result<Snapshot, StoreError> {
        let lease = Lease::take(&self.root.join(OWN).join(LEASES), row.version)?;
        Ok(Snapshot::new(self.clone(), row, lease))
    }

    /// Begins a commit.
    ///
    /// # Errors
    /// Returns the same errors as [`Store::versions`].
    pub fn begin<'a>(&'a self, lock: &'a WriteLock, info: CommitInfo) -> Result<Commit<'a>, StoreError> {
        Commit::new(self, lock, info)
    }

    fn folder(&self, table: &str) -> DeltaFolder {
        DeltaFolder::new(&self.root, table, self.files.clone(), self.known.clone())
    }
}
