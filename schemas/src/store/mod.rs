//! The store: Delta tables that change together, in a folder of a local disk or below a URL of an object store
//! ([`storage`]).
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

mod ahead;
mod by_bucket;
mod check;
mod commit;
mod copy;
mod data_file;
mod deleted;
mod delta;
mod entry;
mod finish;
mod former;
mod grouped;
mod kept;
mod keys;
mod lease;
mod log_copy;
mod logged;
mod optimize;
mod parallel;
mod part;
mod patch;
mod references;
mod rows_ahead;
mod scan;
mod select;
mod snapshot;
mod spare;
mod vacuum;
mod written;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::ObjectStore;

pub use crate::storage::WriteLock;
pub use by_bucket::{BucketGroups, FileWriter, GroupRows, TableBuckets};
pub use check::Problem;
pub use commit::{Commit, CommitInfo};
pub use copy::CopiedStore;
pub use data_file::DataFile;
pub use deleted::Deleted;
pub use keys::TrackKeys;
pub use optimize::Optimized;
pub use parallel::on_every_core;
pub use part::{PartFiles, PartWriter, VersionRows};
pub use references::VacuumedFolder;
pub use rows_ahead::RowsAhead;
pub use scan::{Extent, Filter, Found, Place};
pub use snapshot::Snapshot;
pub use vacuum::Vacuumed;

use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::rows::VersionRow;
use crate::storage::{self, OWN, RequestCounts, Storage, StoreUrl};
use crate::tables::{Table, Versions};
use delta::{DeltaFolder, KnownLogs};
use lease::Lease;
use parallel::on_all_cores;

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
    /// The folder or URL of the tables.
    root: PathBuf,
    /// The folder `_vaplan` of the files that are not tables. Of a store at a URL, it is in the scratch folder.
    own: PathBuf,
    storage: Arc<dyn Storage>,
    known: KnownLogs,
    /// The last row of `versions` and the Delta version that has it.
    last_row: Arc<Mutex<Option<(u64, VersionRow)>>>,
    plain_bytes: u64,
    grace: Duration,
}

/// A commit writes files of at most this size anew rather than patch them: see [`Store::with_plain_bytes`].
const PLAIN_BYTES: u64 = 8 << 20;
/// For so long, `vacuum` of an object store keeps versions that were the latest, and files that no version names: see
/// [`Store::with_grace`].
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The environment variable that replaces [`PLAIN_BYTES`].
const PLAIN_BYTES_VARIABLE: &str = "VAPLAN_PLAIN_BYTES";

/// The key of a mark. `vacuum` removes a mark of a store on a local disk.
fn mark_key(name: &str) -> String {
    format!("{OWN}/staging/cluster/{name}")
}

impl Store {
    /// Opens an existing store.
    ///
    /// # Errors
    /// Returns [`StoreError::NoStore`] if there is no store in the folder.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let local = storage::local_path(root)?;
        if local.as_ref().is_some_and(|local| !local.is_dir()) {
            return Err(StoreError::NoStore {
                path: root.to_owned(),
            });
        }
        let store = Store::at(root)?;
        let has_own = || !store.is_remote() && store.own.is_dir();
        if store.folder(Versions::NAME).latest()?.is_some() || has_own() {
            Ok(store)
        } else {
            Err(StoreError::NoStore { path: store.root })
        }
    }

    /// Opens a store, or creates its folder. At a URL there is nothing to create.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the folder cannot be created.
    pub fn create(root: &Path) -> Result<Store, StoreError> {
        if let Some(local) = storage::local_path(root)? {
            let own = local.join(OWN);
            std::fs::create_dir_all(&own).map_err(StoreError::io("make", &own))?;
        }
        Store::at(root)
    }

    fn at(root: &Path) -> Result<Store, StoreError> {
        let plain_bytes = match std::env::var(PLAIN_BYTES_VARIABLE) {
            Ok(text) => text.parse().map_err(|_| StoreError::Variable {
                variable: PLAIN_BYTES_VARIABLE,
                value: text,
                expected: "a number of bytes, such as 8388608",
            })?,
            Err(_) => PLAIN_BYTES,
        };
        let storage = storage::open(root)?;
        let root = storage.root();
        let own = match StoreUrl::parse(&root)? {
            Some(url) => storage::scratch::of_url(&url),
            None => root.join(OWN),
        };
        Ok(Store {
            root,
            own,
            storage,
            known: KnownLogs::default(),
            last_row: Arc::default(),
            plain_bytes,
            grace: GRACE,
        })
    }

    /// Sets how long `vacuum` of an object store keeps a version after it was the latest, and a file that no version names.
    /// The default is 24 hours. A reader of an object store has no lease, so it can read for this long.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Store {
        self.grace = grace;
        self
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

    /// The absolute path of the store, or its URL.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the tables are in an object store.
    pub fn is_remote(&self) -> bool {
        self.storage.is_remote()
    }

    /// The files of the tables as an object store. Keys are relative to the store's folder or URL.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        self.storage.objects()
    }

    /// The requests to the object store until now; none for a local disk.
    pub fn requests(&self) -> RequestCounts {
        self.storage.requests()
    }

    /// Takes the write lock of the store. If another process holds the lock, this calls `on_wait` once and waits.
    ///
    /// The lock is released when the guard is dropped or the process ends. In an object store, the lock is a lease that
    /// ends if this process does not renew it.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the lock file cannot be created or locked, and [`StoreError::Object`] if a request
    /// fails.
    pub fn lock(&self, on_wait: &mut dyn FnMut(&str)) -> Result<WriteLock, StoreError> {
        self.storage.lease(None, on_wait)
    }

    /// The local folder of files that are not tables: `_vaplan` in the store, or a folder of the scratch folder for a
    /// store at a URL. This function does not create the folder.
    pub fn own_dir(&self) -> &Path {
        &self.own
    }

    /// [`Store::own_dir`] of the store at a path or URL, which need not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::Url`] if the URL cannot be used.
    pub fn own_dir_at(root: &Path) -> Result<PathBuf, StoreError> {
        Ok(match (StoreUrl::parse(root)?, storage::local_path(root)?) {
            (Some(url), _) => storage::scratch::of_url(&url),
            (None, local) => local.unwrap_or_else(|| root.to_owned()).join(OWN),
        })
    }

    /// The folder for work in progress of this name. This function does not create the folder.
    ///
    /// `name` must be a name of the program's own, never the name of a video or a text of the user.
    pub fn staging_dir(&self, name: &str) -> PathBuf {
        self.own.join("staging").join(name)
    }

    /// The folder of features that were encoded from media for this store. This function does not create the folder.
    pub fn encoded_dir(&self) -> PathBuf {
        self.own.join("encoded")
    }

    /// Writes a mark into the store, for other processes that use it now. `name` must be a name of the program's own.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] or [`StoreError::Object`] if the mark cannot be written.
    pub fn put_mark(&self, name: &str, text: &str) -> Result<(), StoreError> {
        self.storage
            .put_copy(&mark_key(name), text.as_bytes().to_vec().into())
    }

    /// The text of a mark; `None` if there is no such mark.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] or [`StoreError::Object`] if the mark cannot be read.
    pub fn mark_of(&self, name: &str) -> Result<Option<String>, StoreError> {
        let bytes = self.storage.get(&mark_key(name))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Removes a mark. A mark that does not exist is no error.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] or [`StoreError::Object`] if the mark cannot be removed.
    pub fn remove_mark(&self, name: &str) -> Result<(), StoreError> {
        self.storage.delete(&mark_key(name))
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
        let files = snapshot::data_files(&folder, folder.files(delta)?.as_ref());
        let rows = on_all_cores(&self.storage, files.len(), |number| {
            snapshot::decode::<Versions>(&files[number])
        })?;
        let mut rows: Vec<VersionRow> = rows.into_iter().flatten().collect();
        rows.sort_by_key(|row| row.version);
        Ok(rows)
    }

    /// The last version, or `None` if the store has no version yet.
    ///
    /// # Errors
    /// Returns the same errors as [`Store::versions`].
    pub fn latest(&self) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.latest_with_delta()?.1)
    }

    /// Like [`Store::latest`], with the Delta version of `versions` that has the row of the version.
    fn latest_with_delta(&self) -> Result<(Option<u64>, Option<Snapshot>), StoreError> {
        let mut refused = None;
        loop {
            // There is no lease yet, so a vacuum may remove the files that are being read. Then read a second time:
            // by then, the files that the vacuum leaves are in place.
            let last = || self.last_row().or_else(|_| self.last_row());
            // In an object store there are no leases, and both requests are made together.
            let (last, mark) = match self.is_remote() {
                true => std::thread::scope(|scope| {
                    let mark = scope.spawn(|| self.mark());
                    let last = last();
                    let mark = mark
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    (last, Some(mark))
                }),
                false => (last(), None),
            };
            let Some((delta, row)) = last? else {
                return Ok((None, None));
            };
            let version = StoreVersion(row.version);
            let snapshot = self.lease(row)?;
            let openable = match mark {
                Some(mark) => mark?.check(version),
                None => self.openable(version),
            };
            match openable {
                Ok(()) => return Ok((Some(delta), Some(snapshot))),
                // Other processes committed and vacuumed after this row was read. Read the last row again.
                Err(StoreError::Vacuumed { .. }) if refused != Some(version) => refused = Some(version),
                Err(error) => return Err(error),
            }
        }
    }

    /// The row of the last version, and the Delta version of `versions` that has the row.
    fn last_row(&self) -> Result<Option<(u64, VersionRow)>, StoreError> {
        let folder = self.folder(Versions::NAME);
        let Some(delta) = folder.latest()? else {
            return Ok(None);
        };
        let mut known = self.last_row.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, row)) = &*known
            && *of == delta
        {
            return Ok(Some((delta, row.clone())));
        }
        let files = folder.files(delta)?;
        // A file name begins with the version that wrote the file, so the last row is in the last file.
        let Some(last) = files.values().next_back() else {
            return Ok(None);
        };
        let rows = snapshot::decode::<Versions>(&folder.data_file(last))?;
        let Some(row) = rows.into_iter().max_by_key(|row| row.version) else {
            return Ok(None);
        };
        // The entries of a log in an object store are never replaced by others of the same number. On a local disk
        // another program can restore a copy of the store.
        *known = self.is_remote().then(|| (delta, row.clone()));
        Ok(Some((delta, row)))
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
        // Versions of an object store are kept for some time after they were the latest, without leases.
        let lease = match self.is_remote() {
            true => None,
            false => Lease::take(&self.own.join(LEASES), row.version)?,
        };
        Ok(Snapshot::new(self.clone(), row, lease))
    }

    /// Begins a commit.
    ///
    /// # Errors
    /// Returns the same errors as [`Store::versions`].
    pub fn begin<'a>(&'a self, lock: &'a WriteLock, info: CommitInfo) -> Result<Commit<'a>, StoreError> {
        Commit::new(self, lock, info)
    }

    /// Begins a commit that changes `before`, the last version when this process took the lock. If
    /// [`Store::open_to_write`] opened it, this makes no request; otherwise this is [`Store::begin`].
    ///
    /// # Errors
    /// Returns the same errors as [`Store::versions`].
    pub fn begin_after<'a>(
        &'a self,
        lock: &'a WriteLock,
        before: &Snapshot,
        info: CommitInfo,
    ) -> Result<Commit<'a>, StoreError> {
        match &before.ends {
            Some(ends) => Commit::following(self, lock, info, (Some(ends.versions), Some(before.clone()))),
            None => self.begin(lock, info),
        }
    }

    fn folder(&self, table: &str) -> DeltaFolder {
        DeltaFolder::new(table, self.storage.clone(), self.known.clone())
    }
}
