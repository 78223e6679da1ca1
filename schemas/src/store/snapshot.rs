//! A store version, for reading.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Store;
use super::deleted::Deleted;
use super::delta::DeltaFolder;
use super::lease::Lease;
use super::logged::{self, LoggedFile, LoggedFiles};
use super::scan::Filter;
use super::select::Selected;
use crate::error::StoreError;
use crate::rows::VersionRow;
use crate::tables::{LabelChanges, Table};

/// A Parquet file of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Size.
    pub bytes: u64,
    /// Rows that are in the table.
    pub rows: u64,
    /// Rows beside them that the file still holds, but the table no longer.
    pub deleted: Option<Deleted>,
}

impl DataFile {
    /// Bucket and number of buckets that a bucketed file is named by.
    pub fn bucket(&self) -> Option<(u32, u32)> {
        logged::bucket(self.path.file_name()?.to_str()?)
    }

    /// Is it one of a patch: of rows of any bucket, in order of their key?
    pub fn is_patch(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.is_some_and(logged::is_patch)
    }

    /// Rows in the file, deleted ones too.
    pub(super) fn all_rows(&self) -> u64 {
        self.rows + self.deleted.as_ref().map_or(0, Deleted::len)
    }

    /// First and last store version that a file of an append-only table is named by; none of a file of a patch.
    pub fn versions(&self) -> Option<(u64, u64)> {
        logged::versions(self.path.file_name()?.to_str()?)
    }

    /// Store version that a file of an append-only table is named by; none of a file that holds several.
    pub fn version(&self) -> Option<u64> {
        let (first, last) = self.versions()?;
        (first == last).then_some(first)
    }
}

/// A store version: every table as the version names it, whatever is committed meanwhile.
#[derive(Clone, Debug)]
pub struct Snapshot {
    store: Store,
    row: VersionRow,
    /// Files of the tables whose log was read.
    logs: Arc<Mutex<BTreeMap<String, Arc<LoggedFiles>>>>,
    /// Keeps its files from being vacuumed.
    _lease: Option<Arc<Lease>>,
}

impl Snapshot {
    pub(super) fn new(store: Store, row: VersionRow, lease: Option<Lease>) -> Snapshot {
        Snapshot {
            store,
            row,
            logs: Arc::default(),
            _lease: lease.map(Arc::new),
        }
    }

    /// Its row of `versions`.
    pub fn version(&self) -> &VersionRow {
        &self.row
    }

    /// The store it is of.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Files of a table by name, sorted; none where the version has no such table.
    ///
    /// # Errors
    /// [`StoreError::Delta`] where the log does not read back.
    pub fn files(&self, table: &str) -> Result<Vec<DataFile>, StoreError> {
        let folder = self.store.folder(table);
        Ok(data_files(&folder, self.logged(table)?.as_ref()))
    }

    /// The log of a table at this version, read once.
    pub(super) fn logged(&self, table: &str) -> Result<Arc<LoggedFiles>, StoreError> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = logs.get(table) {
            return Ok(files.clone());
        }
        let files = match self.delta(table) {
            Some(delta) => self.store.folder(table).files(delta)?,
            None => Arc::default(),
        };
        logs.insert(table.to_owned(), files.clone());
        Ok(files)
    }

    /// Delta version of a table; none where the version has no such table.
    pub(super) fn delta(&self, table: &str) -> Option<u64> {
        let named = self.row.tables.iter().find(|(name, _)| name == table);
        named.map(|(_, delta)| *delta)
    }

    /// How many labels each version changed, of those that changed any: told by the log of `label_changes`, and by
    /// reading the versions of files that hold several.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn changes_by_version(&self) -> Result<BTreeMap<u64, u64>, StoreError> {
        let mut changes = BTreeMap::new();
        for file in self.files(LabelChanges::NAME)? {
            match file.version() {
                Some(version) => *changes.entry(version).or_default() += file.rows,
                None => {
                    for row in decode::<LabelChanges>(&file)? {
                        *changes.entry(row.version).or_default() += 1;
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Files of `versions`, up to this one; where someone else wrote to that table, perhaps later ones too.
    ///
    /// # Errors
    /// As [`Snapshot::files`].
    pub fn version_files(&self) -> Result<Vec<DataFile>, StoreError> {
        let folder = self.store.folder(crate::tables::Versions::NAME);
        let Some(latest) = folder.latest()? else {
            return Ok(Vec::new());
        };
        // A version does not name the row that names it, but each is one Delta commit of this table, from 0.
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

    /// All rows of a table, in the order of its files; where it was patched, by key.
    ///
    /// # Errors
    /// [`StoreError`] that names the file which does not read back.
    pub fn read<T: Table>(&self) -> Result<Vec<T::Row>, StoreError> {
        self.read_files::<T>(self.files(T::NAME)?, &Filter::all())
    }

    /// The rows of the files of a table that are `wanted`.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn read_some<T: Table>(&self, wanted: impl Fn(&DataFile) -> bool) -> Result<Vec<T::Row>, StoreError> {
        let mut files = self.files(T::NAME)?;
        files.retain(wanted);
        self.read_files::<T>(files, &Filter::all())
    }

    /// The rows of one video, by key; of a bucketed table only its bucket and what was patched are read.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn read_video<T: Table>(&self, video: &str) -> Result<Vec<T::Row>, StoreError> {
        let elsewhere = |(bucket, buckets)| crate::bucket_of(video, buckets) != bucket;
        let mut files = self.files(T::NAME)?;
        files.retain(|file| !file.bucket().is_some_and(elsewhere));
        self.read_files::<T>(files, &Filter::videos([Arc::from(video)]))
    }

    fn read_files<T: Table>(&self, files: Vec<DataFile>, filter: &Filter) -> Result<Vec<T::Row>, StoreError> {
        let mut rows = Vec::new();
        for file in &files {
            let found = Selected::find::<T>(file, filter)?.decode::<T>()?;
            rows.extend(found.into_iter().map(|(row, _)| row));
        }
        // Rows of a video may lie in several files.
        if files.iter().any(DataFile::is_patch) {
            rows.sort_by(T::compare);
        }
        Ok(rows)
    }

    /// Into how many buckets the videos are cut; none in a version without bucket files.
    ///
    /// # Errors
    /// As [`Snapshot::files`].
    pub fn buckets(&self) -> Result<Option<u32>, StoreError> {
        // In `videos` there is hardly ever none; but all its rows may be of patches.
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

fn data_files(folder: &DeltaFolder, files: &LoggedFiles) -> Vec<DataFile> {
    files.values().map(|file| data_file(folder, file)).collect()
}

/// A file of a table as readers see it.
pub(super) fn data_file(folder: &DeltaFolder, file: &LoggedFile) -> DataFile {
    DataFile {
        path: folder.path.join(&file.name),
        bytes: file.bytes,
        rows: file.live(),
        deleted: file.deleted.clone(),
    }
}

/// The rows of one file that are in the table.
pub(super) fn decode<T: Table>(file: &DataFile) -> Result<Vec<T::Row>, StoreError> {
    let found = Selected::find::<T>(file, &Filter::all())?.decode::<T>()?;
    Ok(found.into_iter().map(|(row, _)| row).collect())
}
