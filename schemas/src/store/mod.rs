//! The store: a directory of Delta tables that move together.
//!
//! ```text
//! store/
//!   versions/                  one row per store version: the Delta version of each table; committed last
//!   classes/ truth/ rejects/   one file each, replaced as a whole
//!   videos/ scores/ labels/    one file per hash bucket, replaced one by one
//!   label_changes/             one file per version, added
//!   _vaplan/                   lock of the writer; staged work of a run that is not committed
//! ```
//!
//! Files are named by their content, so that a repeated commit writes nothing new. A reader opens what a row of
//! `versions` names: a store version is all there or not at all. Everything is fsynced before a commit says it is done.

mod check;
mod commit;
mod delta;
mod durable;
mod fault;
mod lock;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;

pub use check::Problem;
pub use commit::{Commit, CommitInfo};
pub use lock::WriteLock;
pub use snapshot::{DataFile, Snapshot};

use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::rows::VersionRow;
use crate::tables::{Table, Versions};
use delta::DeltaFolder;

/// Folder of what is not a table.
const OWN: &str = "_vaplan";

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
    runtime: Arc<Runtime>,
}

impl Store {
    /// Opens a store that is there.
    ///
    /// # Errors
    /// [`StoreError::NoStore`] where there is none.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let store = Store::at(root)?;
        if store.folder(Versions::NAME).exists() || root.join(OWN).is_dir() {
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("vaplan-store")
            .enable_all()
            .build()
            .map_err(StoreError::io("start the reader of", &root))?;
        Ok(Store {
            root,
            runtime: Arc::new(runtime),
        })
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
    pub fn staging_dir(&self, name: &str) -> PathBuf {
        self.root.join(OWN).join("staging").join(name)
    }

    /// All versions, first to last.
    ///
    /// # Errors
    /// [`StoreError`] where the log or a row does not read back.
    pub fn versions(&self) -> Result<Vec<VersionRow>, StoreError> {
        let folder = self.folder(Versions::NAME);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let files = folder.load(&self.runtime, None)?.files;
        let mut rows = Vec::new();
        for file in files {
            rows.extend(snapshot::decode::<Versions>(&file.path)?);
        }
        rows.sort_by_key(|row| row.version);
        Ok(rows)
    }

    /// The last version; none in a store that has none yet.
    ///
    /// # Errors
    /// As [`Store::versions`].
    pub fn latest(&self) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.versions()?.pop().map(|row| Snapshot::new(self.clone(), row)))
    }

    /// The last version, or the one asked for: what a command that reads opens.
    ///
    /// # Errors
    /// [`StoreError::Empty`], [`StoreError::NoVersion`], and as [`Store::versions`].
    pub fn at_version(&self, version: Option<StoreVersion>) -> Result<Snapshot, StoreError> {
        let mut rows = self.versions()?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Err(StoreError::Empty {
                path: self.root.clone(),
            });
        };
        let (first, last) = (StoreVersion(first.version), StoreVersion(last.version));
        let wanted = version.unwrap_or(last);
        match rows.iter().position(|row| row.version == wanted.0) {
            Some(at) => Ok(Snapshot::new(self.clone(), rows.swap_remove(at))),
            None => Err(StoreError::NoVersion { wanted, first, last }),
        }
    }

    /// Begins a version.
    ///
    /// # Errors
    /// As [`Store::versions`].
    pub fn begin<'a>(&'a self, lock: &'a WriteLock, info: CommitInfo) -> Result<Commit<'a>, StoreError> {
        Commit::new(self, lock, info)
    }

    fn folder(&self, table: &str) -> DeltaFolder {
        DeltaFolder::new(table, &self.root)
    }
}
