//! Where the files of a store are: a folder of a local disk, or the objects below a URL.
//!
//! ```text
//! store ── dyn Storage ─┬─ LocalStorage    files; durable by fsync, atomic by rename and link
//!                       └─ ObjectStorage   objects; atomic by conditional put
//!                             └─ Retrying ── Amazon S3, Google Cloud Storage, Azure, memory      (crate object_store)
//! ```
//!
//! A key is the path of a file below the root of the store, such as `labels/_delta_log/00000000000000000012.json`. Keys
//! consist of names of the program's own. They never contain names of videos or texts of the user.

mod checkpoint;
mod copies;
mod counts;
pub(crate) mod durable;
mod durable_objects;
pub(crate) mod fault;
pub mod faulty;
pub mod inputs;
mod local;
mod lock;
mod object_lease;
mod objects;
mod open;
mod ranged;
mod retry;
mod runtime;
pub mod scratch;
mod sizes;
mod url;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::ObjectStore;

pub use counts::{RequestCounts, requests_of_process};
pub use lock::WriteLock;
pub use object_lease::LEASE_SECONDS_VARIABLE;
pub use open::register;
pub(crate) use retry::AT_ONCE;
pub use retry::ATTEMPTS_VARIABLE;
pub use url::{StoreUrl, is_url, redacted};

pub(crate) use checkpoint::APP_ID;
pub(crate) use local::LocalStorage;
pub(crate) use object_lease::LeaseLook;
pub(crate) use objects::{ObjectStorage, Upload};
pub(crate) use open::open;
pub(crate) use ranged::Ranges;
pub(crate) use runtime::{run, runtime};
pub(crate) use sizes::whole_bytes;

use crate::error::StoreError;
use durable::Scratch;

/// The folder of the files that are not tables.
pub(crate) const OWN: &str = "_vaplan";
/// The folder in [`OWN`] of files that have no name yet.
pub(crate) const SCRATCH: &str = "scratch";

/// The path of the local disk that a path or a `file` URL names; `None` for a URL of an object store.
///
/// # Errors
/// Returns [`StoreError::Url`] if the URL cannot be used.
pub fn local_path(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    match StoreUrl::parse(path)? {
        Some(_) => Ok(None),
        None => url::local(path).map(Some),
    }
}

/// A file in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredFile {
    /// The name in its folder.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The time of the last change, by the clock of the disk or of the object store.
    pub modified: DateTime<Utc>,
}

/// A file whose bytes are written or are being uploaded. A reader finds the file only after [`Storage::publish`].
#[derive(Debug)]
pub(crate) enum Staged {
    /// A file of the scratch folder, which gets its name later.
    Scratch(Scratch),
    /// An object that is being uploaded. It already has its name, but no log names it.
    Upload(Upload),
}

/// A data file that has no name yet: its table, its name and its bytes.
pub(crate) type StagedFile = (&'static str, String, Staged);

/// The entry of a table's log that a commit writes.
#[derive(Debug)]
pub(crate) struct LogEntry {
    /// The Delta version.
    pub(crate) version: u64,
    /// The text of the entry.
    pub(crate) text: Vec<u8>,
}

/// The files of a commit.
#[derive(Debug)]
pub(crate) struct Publication {
    /// Data files.
    pub(crate) files: Vec<StagedFile>,
    /// The tables that the commit touches, in order, and the entry of the log of each; `None` if the log stays as it is.
    pub(crate) logs: Vec<(&'static str, Option<LogEntry>)>,
    /// The entry of the log of this table makes the version. It comes last.
    pub(crate) last: (&'static str, LogEntry),
    /// Copies of what the logs say, by key. They count only if the entries of the logs exist, and they may be lost.
    pub(crate) copies: Vec<(String, Bytes)>,
}

/// The folder of the log of a table.
pub(crate) fn log_folder(table: &str) -> String {
    format!("{table}/_delta_log")
}

/// The key of an entry of the log of a table.
pub(crate) fn entry_key(table: &str, version: u64) -> String {
    format!("{table}/_delta_log/{version:020}.json")
}

/// The files of a store. Every function is safe to call from several threads.
///
/// Every function returns [`StoreError::Io`] for a failure of a local disk and [`StoreError::Object`] for a request that
/// failed after all its attempts.
pub(crate) trait Storage: std::fmt::Debug + Send + Sync + 'static {
    /// The folder or URL below which all keys are. It holds no credentials.
    fn root(&self) -> PathBuf;

    /// Whether each call is a request over a network.
    fn is_remote(&self) -> bool;

    /// The same files for deltalake and DataFusion.
    fn objects(&self) -> Arc<dyn ObjectStore>;

    /// The bytes of a file, or `None` if there is no such file.
    fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// The bytes of several files, in the order of the keys. The requests to an object store are made together.
    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, StoreError> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Parts of a file that exists, in the order of the ranges.
    fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError>;

    /// The size of a file in bytes, or `None` if there is no such file.
    fn size(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// The files directly in a folder, sorted by name; empty if there is no such folder. `after` leaves out the names up
    /// to and with this text.
    fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<StoredFile>, StoreError>;

    /// Writes a file in place of the file that has its name now. A reader sees the old bytes or the new bytes.
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Creates a file. Returns `false`, and writes nothing, if there is already a file of this name. Of several processes
    /// that create the same file, one gets `true`.
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool, StoreError>;

    /// Writes a file that may be lost in a crash, such as a copy of something.
    fn put_copy(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Removes a file. A file that does not exist is no error.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Looks who has the right to write, before [`Storage::lease`] takes it; `None` if a look would save nothing.
    fn look_at_lease(&self) -> Result<Option<LeaseLook>, StoreError> {
        Ok(None)
    }

    /// Takes the right to write. If another process has it, this calls `on_wait` once with the name of the process and
    /// waits until that process gives it back, ends, or stops to renew it.
    fn lease(&self, look: Option<LeaseLook>, on_wait: &mut dyn FnMut(&str)) -> Result<WriteLock, StoreError>;

    /// Begins to write a data file. Its bytes decide its name, so that writing it twice is harmless. Returns `None` if the
    /// file is known to exist.
    fn stage(&self, key: &str, bytes: Bytes) -> Result<Option<Staged>, StoreError>;

    /// The same files for another process that writes data files of a commit. What it stages is apart from what all other
    /// processes stage; `name` must differ between them. On a local disk its files without a name have a folder of their own,
    /// which is removed with the returned value if it is empty.
    fn part(&self, name: &str) -> Result<Arc<dyn Storage>, StoreError>;

    /// Brings data files under their names, before an entry of a log names them. `tables` are their tables, and those of files
    /// that were found to exist. A crash of the machine after this call loses none of them.
    fn name_files(&self, files: Vec<StagedFile>, tables: &BTreeSet<&'static str>) -> Result<(), StoreError>;

    /// Brings all files of a commit under their names, so that the entry that makes the version exists only if all other
    /// files exist. A crash of the machine at any point leaves this order.
    ///
    /// # Errors
    /// Returns [`StoreError::Conflict`] if another process wrote one of the entries first.
    fn publish(&self, publication: Publication) -> Result<(), StoreError>;

    /// The requests until now. A local disk counts none.
    fn requests(&self) -> RequestCounts;
}
