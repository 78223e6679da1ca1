//! `optimize`: rewrites patches, deletion vectors and small files into plain files, as a version that changes no row.

use std::collections::BTreeMap;

use super::logged::{Home, LoggedFile, LoggedFiles};
use super::{Commit, CommitInfo, DataFile, Store, WriteLock};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::tables::{self, ForTable, Table, Versions};

/// A file of an append-only table with fewer rows than this is joined with its neighbours.
const SMALL: u64 = 1 << 18;
/// The most rows of such a joined file.
const LARGE: u64 = 1 << 20;

/// The result of [`Store::optimize`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optimized {
    /// The new version, or `None` if there was nothing to do.
    pub version: Option<StoreVersion>,
    /// The number of data files before and after.
    pub files: (u64, u64),
    /// The size of the data files in bytes, before and after.
    pub bytes: (u64, u64),
    /// The number of tables whose log got a checkpoint.
    pub checkpoints: u64,
}

impl Store {
    /// Rewrites patch files, files with deleted rows and small files into plain files, without changing a row. The
    /// rows of `versions` are joined into one file. Then this writes a checkpoint of the log of every table, so that
    /// opening a table reads one file of its log.
    ///
    /// `command` and `program` are recorded in the new version. All its other columns are those of the previous
    /// version.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::finish`], and [`StoreError::Empty`] if the store has no version.
    pub fn optimize(&self, lock: &WriteLock, command: &str, program: &str) -> Result<Optimized, StoreError> {
        self.rewrite(lock, command, program, false)
    }

    /// Like [`Store::optimize`]. Afterwards the log of every table asks for reader version 1 of Delta's protocol, so that
    /// readers without deletion vectors open the latest version. A later patch asks for reader version 3 again.
    ///
    /// # Errors
    /// Returns the same errors as [`Store::optimize`].
    pub fn optimize_for_every_reader(
        &self,
        lock: &WriteLock,
        command: &str,
        program: &str,
    ) -> Result<Optimized, StoreError> {
        self.rewrite(lock, command, program, true)
    }

    fn rewrite(
        &self,
        lock: &WriteLock,
        command: &str,
        program: &str,
        plain_reader: bool,
    ) -> Result<Optimized, StoreError> {
        let before = self.at_version(None)?;
        let row = before.version();
        let info = CommitInfo {
            command: command.to_owned(),
            program: program.to_owned(),
            epoch: row.epoch,
            settings: row.settings.clone(),
            models: row.models.clone(),
            // Keep the hash of the inputs, so that a run with the same inputs still finds that it has nothing to do.
            inputs: row.inputs.clone(),
            ..CommitInfo::default()
        };
        let mut commit = self.begin(lock, info)?;
        commit.same_rows = true;
        commit.plain_reader = plain_reader;
        tables::each(&mut Fold(&mut commit))
            .into_iter()
            .collect::<Result<(), _>>()?;
        let (files, bytes) = size(self, row.version)?;
        let mut done = Optimized {
            files: (files, files),
            bytes: (bytes, bytes),
            ..Optimized::default()
        };
        let rows = self.folder(Versions::NAME);
        let row_files = rows.latest()?.map(|delta| rows.files(delta)).transpose()?;
        if commit.touched.is_empty() && row_files.is_none_or(|files| files.len() <= 1) {
            drop(commit);
        } else {
            let version = commit.finish()?.version;
            let (files, bytes) = size(self, version)?;
            done.version = Some(StoreVersion(version));
            (done.files.1, done.bytes.1) = (files, bytes);
        }
        let all = tables::all().into_iter().map(|(table, _)| table);
        for table in all.chain([Versions::NAME]) {
            let folder = self.folder(table);
            if let Some(latest) = folder.latest()?.filter(|latest| *latest > 0)
                && !folder.has_checkpoint(latest)?
            {
                folder.checkpoint(latest)?;
                done.checkpoints += 1;
            }
        }
        Ok(done)
    }
}

/// The number and size of the data files of a version, without those of `versions`.
fn size(store: &Store, version: u64) -> Result<(u64, u64), StoreError> {
    let snapshot = store.at_version(Some(StoreVersion(version)))?;
    let mut size = (0, 0);
    for (table, _) in tables::all() {
        for file in snapshot.files(table)? {
            size = (size.0 + 1, size.1 + file.bytes);
        }
    }
    Ok(size)
}

struct Fold<'a, 'b>(&'a mut Commit<'b>);

impl ForTable for Fold<'_, '_> {
    type Out = Result<(), StoreError>;

    fn table<T: Table>(&mut self) -> Result<(), StoreError> {
        self.0.fold::<T>()
    }
}

impl Commit<'_> {
    /// Rewrites the files of a table that are not plain. A table with plain files only stays untouched.
    fn fold<T: Table>(&mut self) -> Result<(), StoreError> {
        let files = match &self.previous {
            Some(previous) => previous.logged(T::NAME)?,
            None => return Ok(()),
        };
        if self.plain_reader
            && let Some(delta) = self
                .previous
                .as_ref()
                .and_then(|previous| previous.delta(T::NAME))
            && self.store.folder(T::NAME).allows_vectors(delta)?
        {
            self.touch::<T>()?;
        }
        let mut files_of: BTreeMap<u32, u32> = BTreeMap::new();
        let mut due: BTreeMap<u32, Vec<T::Row>> = BTreeMap::new();
        let mut patched = false;
        for file in files.values() {
            match Home::of(file) {
                Home::Bucket(bucket) => {
                    let number = files_of.entry(bucket).or_default();
                    *number += 1;
                    if file.deleted.is_some() || *number > 1 {
                        due.insert(bucket, Vec::new());
                    }
                }
                Home::Patch => patched = true,
                Home::Fixed => {}
            }
        }
        if patched {
            let all = (0..self.cuts::<T>()).collect();
            for (bucket, rows) in self.take_from_patches::<T>(&all)? {
                due.entry(bucket).or_default().extend(rows);
            }
        }
        self.rewrite::<T>(due)?;
        for group in groups(&files) {
            self.join::<T>(group)?;
        }
        Ok(())
    }

    /// Joins several files of an append-only table into one.
    fn join<T: Table>(&mut self, group: Vec<&LoggedFile>) -> Result<(), StoreError> {
        let spans: Vec<(u64, u64)> = group.iter().filter_map(|file| file.versions()).collect();
        let first = spans.iter().map(|span| span.0).min().unwrap_or_default();
        let last = spans.iter().map(|span| span.1).max().unwrap_or_default();
        let mut rows = Vec::new();
        for file in group {
            let data: DataFile = self.data_file::<T>(file);
            rows.extend(super::snapshot::decode::<T>(&data)?);
            self.touch::<T>()?.remove(&file.name);
        }
        rows.sort_by(T::compare);
        self.write::<T>(&format!("v{first:08}to{last:08}"), &rows)
    }
}

/// The groups of neighbouring files of an append-only table that are to become one file.
fn groups(files: &LoggedFiles) -> Vec<Vec<&LoggedFile>> {
    let mut groups: Vec<Vec<&LoggedFile>> = Vec::new();
    let mut rows = LARGE;
    for file in files.values().filter(|file| file.versions().is_some()) {
        let small = file.live() < SMALL || file.deleted.is_some();
        match groups.last_mut() {
            Some(group) if small && rows + file.live() <= LARGE => group.push(file),
            // A large file stays as it is, and separates the group before it from the group after it.
            _ => groups.push(vec![file]),
        }
        rows = match groups.last() {
            Some(group) if small => group.iter().map(|file| file.live()).sum(),
            _ => LARGE,
        };
    }
    groups.retain(|group| group.len() > 1 || group.iter().any(|file| file.deleted.is_some()));
    groups
}
