//! The store: a directory of Delta tables that move together.
//!
//! ```text
//! store/
//!   versions/                  one row per store version: the Delta version of each table; committed last
//!   classes/ truth/ rejects/   one file each, replaced as a whole
//!   videos/ scores/ labels/    one file per hash bucket, replaced one by one
//!   label_changes/             files of each version, added
//!   _vaplan/                   what is not a table: `references.rs` lists every folder of it
//! ```
//!
//! Files are named by their content, so that a repeated commit writes nothing new. A reader opens what a row of
//! `versions` names: a store version is all there or not at all. Everything is fsynced before a commit says it is done.
//! What a killed run left in the tables is in no version: the next commit compares each table's log with what it wants,
//! and adds and removes the difference.

mod check;
mod checkpoint;
mod commit;
mod deleted;
mod delta;
mod durable;
mod entry;
mod fault;
mod finish;
mod lease;
mod lock;
mod logged;
mod optimize;
mod parallel;
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

pub use check::Problem;
pub use commit::{Commit, CommitInfo};
pub use deleted::Deleted;
pub use lock::WriteLock;
pub use optimize::Optimized;
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

/// Folder of what is not a table.
const OWN: &str = "_vaplan";
/// Folder in it of files that have no name yet.
const SCRATCH: &str = "scratch";
/// Folder in it of what is being read.
const LEASES: &str = "leases";

/// A store, open.
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
}

impl Store {
    /// Opens a store that is there.
    ///
    /// # Errors
    /// [`StoreError::NoStore`] where there is none.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let store = Store::at(root)?;
        if store.folder(Versions::NAME).latest()?.is_some() || root.join(OWN).is_dir() {
            Ok(store)
        } else {
            Err(StoreError::NoStore {
                path: root.to_owned(),
            })
        }
    }

    /// Opens a store, or makes the folder of one.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the folder cannot be made.
    pub fn create(root: &Path) -> Result<Store, StoreError> {
        let own = root.join(OWN);
        std::fs::create_dir_all(&own).map_err(StoreError::io("make", &own))?;
        Store::at(root)
    }

    fn at(root: &Path) -> Result<Store, StoreError> {
        // The log wants absolute places.
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let files = durable::durable(&root.join(OWN).join(SCRATCH));
        let known = KnownLogs::default();
        Ok(Store { root, files, known })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the store for writing; waits while another process has it, and says so once through `on_wait`.
    ///
    /// The lock goes with the guard, and with the process however it ends.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the lock file cannot be made.
    pub fn lock(&self, on_wait: &mut dyn FnMut(&str)) -> Result<WriteLock, StoreError> {
        WriteLock::take(&self.root.join(OWN).join("lock"), on_wait)
    }

    /// The folder that work in progress of this name is kept in; not made.
    ///
    /// `name` is ours, never a video's or a user's.
    pub fn staging_dir(&self, name: &str) -> PathBuf {
        self.root.join(OWN).join("staging").join(name)
    }

    /// The folder of features that were encoded from media for this store; not made.
    pub fn encoded_dir(&self) -> PathBuf {
        self.root.join(OWN).join("encoded")
    }

    /// All versions, first to last.
    ///
    /// # Errors
    /// [`StoreError`] where the log or a row does not read back.
    pub fn versions(&self) -> Result<Vec<VersionRow>, StoreError> {
        // As in `latest`.
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

    /// The last version; none in a store that has none yet.
    ///
    /// # Errors
    /// As [`Store::versions`].
    pub fn latest(&self) -> Result<Option<Snapshot>, StoreError> {
        let mut refused = None;
        loop {
            // A vacuum may take away what is being read here, before there is a lease: what it leaves is there by then.
            let Some(row) = self.last_row().or_else(|_| self.last_row())? else {
                return Ok(None);
            };
            let version = StoreVersion(row.version);
            let snapshot = self.lease(row)?;
            match self.openable(version) {
                Ok(()) => return Ok(Some(snapshot)),
                // Others have committed, and vacuumed, since its row was read.
                Err(StoreError::Vacuumed { .. }) if refused != Some(version) => refused = Some(version),
                Err(error) => return Err(error),
            }
        }
    }

    /// Row of the last version.
    fn last_row(&self) -> Result<Option<VersionRow>, StoreError> {
        let folder = self.folder(Versions::NAME);
        let Some(delta) = folder.latest()? else {
            return Ok(None);
        };
        let files = folder.files(delta)?;
        // A name begins with the version that wrote the file: the last row is in the last file.
        let Some(last) = files.values().next_back() else {
            return Ok(None);
        };
        let rows = snapshot::decode::<Versions>(&snapshot::data_file(&folder, last))?;
        Ok(rows.into_iter().max_by_key(|row| row.version))
    }

    /// The last version, or the one asked for: what a command that reads opens.
    ///
    /// # Errors
    /// [`StoreError::Empty`], [`StoreError::NoVersion`], [`StoreError::Vacuumed`], and as [`Store::versions`].
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
                // Asked with the lease in hand: a vacuum asks for leases after it said what it takes.
                self.openable(wanted)?;
                Ok(snapshot)
            }
            None => Err(StoreError::NoVersion { wanted, first, last }),
        }
    }

    /// The version of a row, held while it is read.
    fn lease(&self, row: VersionRow) -> Result<Snapshot, StoreError> {
        let lease = Lease::take(&self.root.join(OWN).join(LEASES), row.version)?;
        Ok(Snapshot::new(self.clone(), row, lease))
    }

    /// Begins a version.
    ///
    /// # Errors
    /// As [`Store::versions`].
    pub fn begin<'a>(&'a self, lock: &'a WriteLock, info: CommitInfo) -> Result<Commit<'a>, StoreError> {
        Commit::new(self, lock, info)
    }

    fn folder(&self, table: &str) -> DeltaFolder {
        DeltaFolder::new(&self.root, table, self.files.clone(), self.known.clone())
    }
}
