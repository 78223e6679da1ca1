//! One Delta table: its log, which is read through `deltalake` and cached until it has a new entry ([`log_copy`]).

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use deltalake::kernel::EagerSnapshot;
use deltalake::kernel::transaction::PROTOCOL;
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTableBuilder, DeltaTableError};
use url::Url;

use super::data_file::{DataFile, FilePlace};
use super::entry::{self, Stamp};
use super::log_copy;
use super::logged::{LoggedFile, LoggedFiles, logged};
use crate::error::{ObjectError, StoreError};
use crate::storage::{self, LogEntry, Storage, StoredFile, entry_key, log_folder};

/// A log as it was last read or written. Entries never change, so only a later entry makes this copy outdated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) version: u64,
    pub(super) files: Arc<LoggedFiles>,
    /// Whether the log allows deletion vectors.
    pub(super) vectors: bool,
    /// The names of the columns in the log's schema.
    pub(super) columns: Arc<[String]>,
    /// The reason why the table must not be written, if there is one.
    pub(super) refused: Option<String>,
}

/// The cached logs of a store's tables, shared by all clones of the store.
pub(super) type KnownLogs = Arc<Mutex<BTreeMap<String, Known>>>;

/// The folder of a table.
#[derive(Clone, Debug)]
pub(super) struct DeltaFolder {
    pub(super) table: String,
    /// The folder or URL of the table.
    pub(super) path: PathBuf,
    pub(super) storage: Arc<dyn Storage>,
    known: KnownLogs,
}

/// What must be committed so that a table has the wanted files.
pub(super) enum Prepared {
    /// Nothing: the table already has the wanted files at this Delta version.
    Same(u64),
    /// This entry of the log.
    Entry(Entry),
}

/// An entry of the log that is not written yet.
pub(super) struct Entry {
    /// The Delta version that the entry makes.
    pub(super) version: u64,
    pub(super) text: Vec<u8>,
    known: Known,
}

impl Entry {
    /// The entry to write.
    pub(super) fn to_write(&self) -> LogEntry {
        LogEntry {
            version: self.version,
            text: self.text.clone(),
        }
    }

    /// The key and the text of the copy of the log as it is after the entry.
    pub(super) fn copy(&self, table: &str) -> (String, Bytes) {
        (log_copy::key(table), log_copy::text(&self.known, &self.text))
    }
}

impl DeltaFolder {
    pub(super) fn new(table: &str, storage: Arc<dyn Storage>, known: KnownLogs) -> DeltaFolder {
        DeltaFolder {
            table: table.to_owned(),
            path: storage.root().join(table),
            storage,
            known,
        }
    }

    /// A data file of the table.
    pub(super) fn data_file(&self, file: &LoggedFile) -> DataFile {
        DataFile {
            path: self.path.join(&file.name),
            bytes: file.bytes,
            rows: file.live(),
            deleted: file.deleted.clone(),
            place: match self.storage.is_remote() {
                true => FilePlace::Object(
                    self.storage.clone(),
                    format!("{}/{}", self.table, file.name),
                    None,
                ),
                false => FilePlace::Local,
            },
        }
    }

    /// The path or URL of an entry.
    pub(super) fn entry_path(&self, version: u64) -> PathBuf {
        self.storage.root().join(entry_key(&self.table, version))
    }

    /// The bytes of the entry of a version, or `None` if there is no such entry.
    pub(super) fn entry(&self, version: u64) -> Result<Option<Bytes>, StoreError> {
        self.storage.get(&entry_key(&self.table, version))
    }

    fn has_entry(&self, version: u64) -> Result<bool, StoreError> {
        Ok(self.storage.size(&entry_key(&self.table, version))?.is_some())
    }

    /// The last version in the log, or `None` if there is no table.
    ///
    /// If the log was read before, this looks only for entries after the cached version. Otherwise it lists the log.
    pub(super) fn latest(&self) -> Result<Option<u64>, StoreError> {
        let known = self.known().get(&self.table).map(|known| known.version);
        if self.storage.is_remote() {
            return self.latest_object(known);
        }
        if let Some(known) = known
            && self.has_entry(known)?
        {
            let mut last = known;
            while self.has_entry(last + 1)? {
                last += 1;
            }
            return Ok(Some(last));
        }
        Ok(last_entry(&self.storage.list(&log_folder(&self.table), None)?))
    }

    /// The last version in a log in an object store. A listing from the cached version on is one request; the copy of the
    /// log says which version to begin with.
    fn latest_object(&self, known: Option<u64>) -> Result<Option<u64>, StoreError> {
        let copied = match known {
            Some(_) => None,
            None => log_copy::copied(&self.storage, &self.table)?,
        };
        let known = known.or(copied.as_ref().map(|copied| copied.known.version));
        let log = log_folder(&self.table);
        if let Some(known) = known {
            // The name without its suffix is before the entry itself, which must be in the listing.
            let after = format!("{known:020}");
            let list = || self.storage.list(&log, Some(&after));
            let listed = match copied {
                None => list()?,
                // The entry shows whether the copy counts. Both requests are made together.
                Some(copied) => std::thread::scope(|scope| {
                    let listed = scope.spawn(list);
                    if let Some(known) = self.entry(known)?.and_then(|entry| copied.checked(&entry)) {
                        self.keep(&known);
                    }
                    listed
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })?,
            };
            let entry = format!("{known:020}.json");
            if listed.iter().any(|file| file.name == entry) {
                return Ok(last_entry(&listed));
            }
        }
        Ok(last_entry(&self.storage.list(&log, None)?))
    }

    /// The data files at a version.
    pub(super) fn files(&self, version: u64) -> Result<Arc<LoggedFiles>, StoreError> {
        Ok(self.at(version)?.files)
    }

    /// Whether the log of a version allows deletion vectors.
    pub(super) fn allows_vectors(&self, version: u64) -> Result<bool, StoreError> {
        Ok(self.at(version)?.vectors)
    }

    /// Whether the table has this column at a version.
    pub(super) fn has_column(&self, version: u64, column: &str) -> Result<bool, StoreError> {
        Ok(self.at(version)?.columns.iter().any(|own| own == column))
    }

    /// The names of the files that an entry adds.
    pub(super) fn added(&self, version: u64) -> Result<Vec<String>, StoreError> {
        let path = self.entry_path(version);
        let absent = || StoreError::io("read", &path)(io::ErrorKind::NotFound.into());
        let text = self.entry(version)?.ok_or_else(absent)?;
        let text = String::from_utf8_lossy(&text);
        let mut added = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let action: serde_json::Value = serde_json::from_str(line).map_err(|error| StoreError::File {
                path: path.clone(),
                problem: error.to_string(),
            })?;
            let name = action.get("add").and_then(|add| add.get("path")?.as_str());
            added.extend(name.map(str::to_owned));
        }
        Ok(added)
    }

    /// The log at a version. The log with the highest version is kept in the cache.
    fn at(&self, version: u64) -> Result<Known, StoreError> {
        if let Some(known) = self.known().get(&self.table)
            && known.version == version
        {
            return Ok(known.clone());
        }
        if let Some(known) = log_copy::read(self, version)? {
            self.keep(&known);
            return Ok(known);
        }
        let known = self.read_log(version)?;
        // A copy of an older version would replace that of the last one. In an object store only a writer leaves copies:
        // a reader may not be allowed to write.
        if !self.storage.is_remote()
            && self.latest()? == Some(version)
            && let Some(entry) = self.entry(version)?
        {
            log_copy::write(self, &known, &entry);
        }
        self.keep(&known);
        Ok(known)
    }

    /// Reads the log at a version, whatever copies of it there are.
    fn read_log(&self, version: u64) -> Result<Known, StoreError> {
        self.wait(async {
            let log = self.log()?;
            let snapshot = EagerSnapshot::try_new(log.as_ref(), Some(version)).await?;
            let refused = PROTOCOL.can_write_to(&snapshot).err();
            Ok(Known {
                version,
                files: Arc::new(logged(&snapshot)?),
                vectors: entry::allows_vectors(&snapshot),
                columns: snapshot
                    .schema()
                    .fields()
                    .map(|field| field.name().clone())
                    .collect(),
                refused: refused.map(|refused| refused.to_string()),
            })
        })
    }

    /// The copy of the log at a version, if it differs from the log.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the log cannot be read.
    pub(super) fn wrong_copy(&self, version: u64) -> Result<Option<PathBuf>, StoreError> {
        let read = self.read_log(version)?;
        let copied = log_copy::read(self, version)?;
        let differs = copied.is_some_and(|copied| copied != read);
        Ok(differs.then(|| self.storage.root().join(log_copy::key(&self.table))))
    }

    /// Puts what a log says into the cache.
    pub(super) fn keep(&self, known: &Known) {
        let mut logs = self.known();
        match logs.get(&self.table) {
            // Entries of an object store stay; on a local disk an older copy of the store can take its place.
            Some(kept)
                if kept.version > known.version
                    && (self.storage.is_remote() || self.has_entry(kept.version).unwrap_or(false)) => {}
            _ => {
                logs.insert(self.table.clone(), known.clone());
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the entry that gives the table the files `wanted` and follows the version `latest` of the log. The table need not
    /// exist yet. Nothing is written.
    pub(super) fn prepare_after(
        &self,
        latest: Option<u64>,
        schema: &SchemaRef,
        wanted: &LoggedFiles,
        stamp: &Stamp<'_>,
    ) -> Result<Prepared, StoreError> {
        let has_vectors = wanted.values().any(|file| file.deleted.is_some());
        let columns: Arc<[String]> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let made = |version: u64, text: Vec<u8>, vectors: bool| {
            let known = Known {
                version,
                files: Arc::new(wanted.clone()),
                vectors,
                columns: columns.clone(),
                refused: None,
            };
            Prepared::Entry(Entry { version, text, known })
        };
        let Some(latest) = latest else {
            let location = self.location().map_err(|error| self.error(error))?;
            let text = entry::create(&self.table, location, schema, wanted, stamp);
            return Ok(made(0, text.map_err(|error| self.error(error))?, has_vectors));
        };
        let known = self.at(latest)?;
        if let Some(refused) = known.refused {
            return Err(self.error(DeltaTableError::Generic(refused)));
        }
        // The log must declare deletion vectors once in the life of a table, and new columns when they are added.
        // Only then is the log read again.
        let vectors = has_vectors && !known.vectors;
        let forbids = stamp.plain_reader && known.vectors && !has_vectors;
        let say = match vectors || forbids || known.columns != columns {
            true => self.wait(async {
                let log = self.log()?;
                let snapshot = EagerSnapshot::try_new(log.as_ref(), Some(latest)).await?;
                match forbids {
                    true => entry::forbid_vectors(&snapshot),
                    false => entry::say(&snapshot, schema, vectors),
                }
            })?,
            false => Vec::new(),
        };
        let text = entry::change(&known.files, wanted, stamp, say).map_err(|error| self.error(error))?;
        Ok(match text {
            Some(text) => made(latest + 1, text, (known.vectors && !forbids) || has_vectors),
            None => Prepared::Same(latest),
        })
    }

    /// Updates the cached log after an entry was written.
    pub(super) fn wrote(&self, entry: &Entry) {
        self.keep(&entry.known);
    }

    /// The URL of the table's folder.
    fn location(&self) -> Result<Url, DeltaTableError> {
        match self.storage.is_remote() {
            true => Url::parse(&self.path.display().to_string()).map_err(|_| self.no_url()),
            false => Url::from_directory_path(&self.path).map_err(|()| self.no_url()),
        }
    }

    /// The URL of the table within [`Storage::objects`], whose root is the store's folder.
    ///
    /// The scheme `memory` stands for the given object store. With a `file` URL, the Delta kernel would look for the
    /// path in the root of the file system, where there is no table.
    fn url(&self) -> Result<Url, DeltaTableError> {
        Url::parse(&format!("memory:///{}/", self.table)).map_err(|_| self.no_url())
    }

    fn no_url(&self) -> DeltaTableError {
        DeltaTableError::InvalidTableLocation(self.path.display().to_string())
    }

    fn log(&self) -> Result<LogStoreRef, DeltaTableError> {
        let url = self.url()?;
        DeltaTableBuilder::from_url(url.clone())?
            .with_storage_backend(self.storage.objects(), url)
            .build_storage()
    }

    /// Returns whether there is a checkpoint of this version.
    pub(super) fn has_checkpoint(&self, version: u64) -> Result<bool, StoreError> {
        let key = format!("{}/{version:020}.checkpoint.parquet", log_folder(&self.table));
        Ok(self.storage.size(&key)?.is_some())
    }

    /// Writes a checkpoint of a version: one file with all that the log says, from which later reads begin.
    pub(super) fn checkpoint(&self, version: u64) -> Result<(), StoreError> {
        self.wait(async {
            let url = self.url()?;
            let table = DeltaTableBuilder::from_url(url.clone())?
                .with_storage_backend(self.storage.objects(), url)
                .with_version(version)
                .load()
                .await?;
            deltalake::checkpoints::create_checkpoint(&table, None).await
        })
    }

    /// Runs `work` of deltalake to its end.
    fn wait<T: Send>(
        &self,
        work: impl Future<Output = Result<T, DeltaTableError>> + Send,
    ) -> Result<T, StoreError> {
        storage::run(work)?.map_err(|error| self.error(error))
    }

    fn error(&self, error: DeltaTableError) -> StoreError {
        file_error(&error).unwrap_or_else(|| StoreError::Delta {
            table: self.table.clone(),
            path: self.path.clone(),
            source: Box::new(error),
        })
    }
}

/// The last version in a listing of a log.
fn last_entry(listed: &[StoredFile]) -> Option<u64> {
    let version = |file: &StoredFile| file.name.strip_suffix(".json")?.parse().ok();
    listed.iter().filter_map(version).max()
}

/// Finds the file error or failed request that caused an error, such as a full disk or a missing permission.
fn file_error(error: &DeltaTableError) -> Option<StoreError> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(StoreError::Io { action, path, source }) = error.downcast_ref::<StoreError>() {
            // `io::Error` is not `Clone`. Its number, if it has one, carries the same information.
            let source = match source.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::new(source.kind(), source.to_string()),
            };
            return Some(StoreError::Io {
                action,
                path: path.clone(),
                source,
            });
        }
        if let Some(request) = error.downcast_ref::<ObjectError>() {
            return Some(StoreError::Object(request.clone()));
        }
        cause = error.source();
    }
    None
}
