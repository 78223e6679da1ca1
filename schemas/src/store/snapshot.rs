//! A snapshot: a store version that is open for reading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;

use super::Store;
use super::ahead::LogEnds;
use super::data_file::{DataFile, HeldFiles, fetch, on_files};
use super::delta::DeltaFolder;
use super::lease::Lease;
use super::logged::{LoggedFile, LoggedFiles};
use super::parallel::on_all_cores;
use super::scan::Filter;
use super::select::Selected;
use crate::error::StoreError;
use crate::rows::VersionRow;
use crate::tables::{self, ForTable, LabelChanges, Table};

/// Tables that nearly every command reads. Their small files are fetched together with the logs.
const SMALL_TABLES: [&str; 7] = [
    tables::Classes::NAME,
    tables::Settings::NAME,
    tables::Prompts::NAME,
    tables::Rejects::NAME,
    tables::Epochs::NAME,
    tables::Candidates::NAME,
    tables::UserLabels::NAME,
];
/// The largest of these files in bytes, and the most files of each table.
const SMALL_BYTES: u64 = 1 << 20;
const SMALL_FILES: usize = 8;

/// An open store version. It reads every table as the version names it, whatever other processes commit in the
/// meantime.
#[derive(Clone, Debug)]
pub struct Snapshot {
    store: Store,
    row: VersionRow,
    /// The files of the tables whose log was already read.
    logs: Arc<Mutex<BTreeMap<String, Arc<LoggedFiles>>>>,
    /// The bytes of files in an object store that were read.
    pub(super) held: Arc<HeldFiles>,
    /// The ends of the logs, if [`Store::open_to_write`] opened this snapshot.
    pub(super) ends: Option<Arc<LogEnds>>,
    /// Keeps `vacuum` from removing the version's files.
    _lease: Option<Arc<Lease>>,
}

impl Snapshot {
    pub(super) fn new(store: Store, row: VersionRow, lease: Option<Lease>) -> Snapshot {
        Snapshot {
            store,
            row,
            logs: Arc::default(),
            held: Arc::default(),
            ends: None,
            _lease: lease.map(Arc::new),
        }
    }

    /// A snapshot that a commit of this process follows. `held` has files that were read already.
    pub(super) fn to_write(store: Store, row: VersionRow, held: Arc<HeldFiles>, ends: LogEnds) -> Snapshot {
        Snapshot {
            held,
            ends: Some(Arc::new(ends)),
            ..Snapshot::new(store, row, None)
        }
    }

    /// The version's row of `versions`.
    pub fn version(&self) -> &VersionRow {
        &self.row
    }

    /// The store of the version.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The files of a table, sorted by name; empty if the version does not have the table.
    ///
    /// # Errors
    /// Returns [`StoreError::Delta`] if the log cannot be read.
    pub fn files(&self, table: &str) -> Result<Vec<DataFile>, StoreError> {
        let folder = self.store.folder(table);
        let files = data_files(&folder, self.logged(table)?.as_ref());
        Ok(files.into_iter().map(|file| file.held_by(&self.held)).collect())
    }

    /// The names of all tables but `versions`, and the schemas that their files have in this version. A table that an older
    /// program wrote can have a former layout.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::files`].
    pub fn tables(&self) -> Result<Vec<(&'static str, SchemaRef)>, StoreError> {
        tables::each(&mut Schemas(self)).into_iter().collect()
    }

    /// The log of a table at this version. It is read once and then cached.
    pub(super) fn logged(&self, table: &str) -> Result<Arc<LoggedFiles>, StoreError> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = logs.get(table) {
            return Ok(files.clone());
        }
        let read = |table: &str| match self.delta(table) {
            Some(delta) => self.store.folder(table).files(delta),
            None => Ok(Arc::default()),
        };
        if !self.store.is_remote() {
            let files = read(table)?;
            logs.insert(table.to_owned(), files.clone());
            return Ok(files);
        }
        // Commands need nearly all tables, and a log takes two requests, one after the other. Read all logs at once.
        let all: Vec<&str> = tables::all().into_iter().map(|(table, _)| table).collect();
        let files = on_all_cores(&self.store.storage, all.len(), |number| read(all[number]))?;
        logs.extend(all.into_iter().map(str::to_owned).zip(files));
        let found = logs.get(table).cloned().unwrap_or_default();
        let mut small = Vec::new();
        for (table, files) in logs.iter() {
            small.extend(small_files(&self.store.folder(table), files, &self.held));
        }
        drop(logs);
        fetch(&small.iter().collect::<Vec<_>>())?;
        Ok(found)
    }

    /// The copy of the log of a table, if it differs from the log.
    pub(super) fn wrong_copy(&self, table: &str) -> Result<Option<PathBuf>, StoreError> {
        match self.delta(table) {
            Some(delta) => self.store.folder(table).wrong_copy(delta),
            None => Ok(None),
        }
    }

    /// The Delta version of a table, or `None` if the version does not have the table.
    pub(super) fn delta(&self, table: &str) -> Option<u64> {
        let named = self.row.tables.iter().find(|(name, _)| name == table);
        named.map(|(_, delta)| *delta)
    }

    /// The number of labels that each version changed, without versions that changed none. `versions` has the numbers;
    /// files of `label_changes` are read only for versions of a program that did not count them.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn changes_by_version(&self) -> Result<BTreeMap<u64, u64>, StoreError> {
        let mut changes = BTreeMap::new();
        let mut uncounted = BTreeSet::new();
        for row in self.store.versions()? {
            match row.changed_labels {
                Some(changed) => drop(changes.insert(row.version, changed)),
                None => drop(uncounted.insert(row.version)),
            }
        }
        let may_hold = |file: &DataFile| match file.versions() {
            Some((first, last)) => uncounted.range(first..=last).next().is_some(),
            None => true,
        };
        if !uncounted.is_empty() {
            for row in self.read_some::<LabelChanges>(may_hold)? {
                if uncounted.contains(&row.version) {
                    *changes.entry(row.version).or_default() += row.segments.len() as u64;
                }
            }
        }
        changes.retain(|_, changed| *changed > 0);
        Ok(changes)
    }

    /// The files of `versions` up to this version. If another program wrote to that table, the files of later
    /// versions can be included.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::files`].
    pub fn version_files(&self) -> Result<Vec<DataFile>, StoreError> {
        let folder = self.store.folder(crate::tables::Versions::NAME);
        let Some(latest) = folder.latest()? else {
            return Ok(Vec::new());
        };
        // A version does not name the Delta version of `versions` with its own row. But each store version is one
        // Delta commit of this table, and Delta versions count from 0.
        let own = data_files(
            &folder,
            folder
                .files(latest.min(self.row.version.saturating_sub(1)))?
                .as_ref(),
        );
        if own.last().and_then(DataFile::version) == Some(self.row.version) {
            return Ok(own);
        }
        Ok(data_files(&folder, folder.files(latest)?.as_ref()))
    }

    /// All rows of a table, in the order of its files; a table with patch files is sorted by key.
    ///
    /// # Errors
    /// Returns [`StoreError`] with the name of the file that cannot be read.
    pub fn read<T: Table>(&self) -> Result<Vec<T::Row>, StoreError> {
        self.read_files::<T>(self.files(T::NAME)?, &Filter::all())
    }

    /// The rows of the files of a table that `wanted` accepts.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn read_some<T: Table>(&self, wanted: impl Fn(&DataFile) -> bool) -> Result<Vec<T::Row>, StoreError> {
        let mut files = self.files(T::NAME)?;
        files.retain(wanted);
        self.read_files::<T>(files, &Filter::all())
    }

    /// The rows of one video, in order of their key. Of a bucketed table this reads only the video's bucket and the
    /// patch files.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn read_video<T: Table>(&self, video: &str) -> Result<Vec<T::Row>, StoreError> {
        let elsewhere = |(bucket, buckets)| crate::bucket_of(video, buckets) != bucket;
        let mut files = self.files(T::NAME)?;
        files.retain(|file| !file.bucket().is_some_and(elsewhere));
        self.read_files::<T>(files, &Filter::videos([Arc::from(video)]))
    }

    fn read_files<T: Table>(&self, files: Vec<DataFile>, filter: &Filter) -> Result<Vec<T::Row>, StoreError> {
        let read = |file: &DataFile| {
            let found = Selected::find::<T>(file, filter)?.decode::<T>()?;
            Ok::<_, StoreError>(found.into_iter().map(|(row, _)| row).collect::<Vec<_>>())
        };
        let mut rows = Vec::new();
        // On a local disk memory holds one file at a time beside the rows.
        match self.store.is_remote() {
            true => {
                let all: Vec<&DataFile> = files.iter().collect();
                let read = on_files(&self.store.storage, &all, |number| read(&files[number]))?;
                rows.extend(read.into_iter().flatten());
            }
            false => {
                for file in &files {
                    rows.extend(read(file)?);
                }
            }
        }
        // The rows of a video can be in several files.
        if files.iter().any(DataFile::is_patch) {
            rows.sort_by(T::compare);
        }
        Ok(rows)
    }

    /// The number of buckets, or `None` if the version has no bucket files.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::files`].
    pub fn buckets(&self) -> Result<Option<u32>, StoreError> {
        // Look in `videos` first, because it nearly always has bucket files. But all its rows can be in patch files,
        // so look in the other tables too.
        let mut tables = vec![crate::tables::Videos::NAME];
        tables.extend(crate::tables::all().into_iter().map(|(table, _)| table));
        for table in tables {
            let logged = self.logged(table)?;
            if let Some((_, buckets)) = logged.values().find_map(LoggedFile::bucket) {
                return Ok(Some(buckets));
            }
        }
        Ok(None)
    }
}

/// The files of a table that nearly every command reads, if they are small; none of any other table.
pub(super) fn small_files(folder: &DeltaFolder, files: &LoggedFiles, held: &Arc<HeldFiles>) -> Vec<DataFile> {
    if !SMALL_TABLES.contains(&&*folder.table) {
        return Vec::new();
    }
    let small = files.values().filter(|file| file.bytes <= SMALL_BYTES);
    small
        .take(SMALL_FILES)
        .map(|file| folder.data_file(file).held_by(held))
        .collect()
}

struct Schemas<'a>(&'a Snapshot);

impl ForTable for Schemas<'_> {
    type Out = Result<(&'static str, SchemaRef), StoreError>;

    fn table<T: Table>(&mut self) -> Self::Out {
        let former = match (T::FORMER, self.0.delta(T::NAME)) {
            (Some(column), Some(delta)) => self.0.store.folder(T::NAME).has_column(delta, column)?,
            _ => false,
        };
        let schema = if former { T::former_schema() } else { T::schema() };
        Ok((T::NAME, schema))
    }
}

pub(super) fn data_files(folder: &DeltaFolder, files: &LoggedFiles) -> Vec<DataFile> {
    files.values().map(|file| folder.data_file(file)).collect()
}

/// The rows of one file that are in the table.
pub(super) fn decode<T: Table>(file: &DataFile) -> Result<Vec<T::Row>, StoreError> {
    let found = Selected::find::<T>(file, &Filter::all())?.decode::<T>()?;
    Ok(found.into_iter().map(|(row, _)| row).collect())
}
