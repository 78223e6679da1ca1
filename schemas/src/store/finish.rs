//! Finishes a commit: brings a store version onto the disk.
//!
//! All files are written before any file gets its name. Then the commit waits for the disk four times, whatever the
//! number of tables: for the bytes of all files; for the names of the data files; for the entries of the tables'
//! logs; and for the entry of `versions`. After the fourth wait the version exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::delta::{DeltaFolder, Entry, Prepared};
use super::durable::{Scratch, sync_files, sync_folders};
use super::entry::Stamp;
use super::logged::LoggedFiles;
use super::{Commit, OWN, SCRATCH, fault};
use crate::error::StoreError;
use crate::rows::VersionRow;
use crate::tables::{self, Table, Versions};

/// When `versions` has this many files, they are joined into one, so that opening the store stays quick.
const VERSION_FILES: usize = 64;
/// A log gets a checkpoint every 64 entries, so that a reader reads at most this many entries after it.
const CHECKPOINT: u64 = 64;

/// An entry of a log that is written, but has no name yet.
struct Waiting {
    folder: DeltaFolder,
    entry: Entry,
    scratch: Scratch,
}

impl Commit<'_> {
    /// Commits each touched table, and last the row of `versions` that names the Delta versions of all tables.
    ///
    /// # Errors
    /// Returns [`StoreError`] if a file cannot be written or synced. The previous version then stays the latest
    /// version, and the same commit can be made again.
    pub fn finish(mut self) -> Result<VersionRow, StoreError> {
        self.renew()?;
        let command = self.info.command.clone();
        let stamp = Stamp {
            command: &command,
            version: self.version().0,
            plain_reader: self.plain_reader,
            data_change: !self.same_rows,
        };
        let mut named: BTreeMap<String, u64> = BTreeMap::new();
        let mut entries: BTreeMap<&str, Waiting> = BTreeMap::new();
        for (table, schema) in tables::all() {
            let folder = self.store.folder(table);
            let before = self.previous.as_ref().and_then(|previous| previous.delta(table));
            let prepared = match (self.touched.get(table), before) {
                (Some(files), _) => folder.prepare(&schema, files, &stamp)?,
                (None, None) => continue,
                (None, Some(before)) if folder.latest()? == Some(before) => Prepared::Same(before),
                // A killed run added an entry to a table that this commit does not touch. Set the table back, because
                // other Delta readers read the last entry.
                (None, Some(before)) => folder.prepare(&schema, folder.files(before)?.as_ref(), &stamp)?,
            };
            let delta = match prepared {
                Prepared::Same(delta) => delta,
                Prepared::Entry(entry) => {
                    let delta = entry.version;
                    entries.insert(table, self.waiting(folder, entry)?);
                    delta
                }
            };
            named.insert(table.to_owned(), delta);
        }
        let row = VersionRow {
            version: self.version().0,
            tables: named.into_iter().collect(),
            epoch: self.info.epoch,
            settings: self.info.settings.clone(),
            models: self.info.models.clone(),
            inputs: self.info.inputs.clone(),
            program: self.info.program.clone(),
            command: self.info.command.clone(),
            changed_labels: Some(self.changed_labels),
            committed_at: chrono::Utc::now().timestamp_millis(),
            author: self.info.author.clone(),
            note: self.info.note.clone(),
        };
        let versions = self.add_version(&row, &stamp)?;
        self.settle(entries, versions)?;
        Ok(row)
    }

    fn waiting(&self, folder: DeltaFolder, entry: Entry) -> Result<Waiting, StoreError> {
        let scratch = self.store.root().join(OWN).join(SCRATCH);
        Ok(Waiting {
            folder,
            scratch: Scratch::write(&scratch, [entry.text.as_slice()])?,
            entry,
        })
    }

    /// Adds the row of the new version to `versions`.
    fn add_version(&mut self, row: &VersionRow, stamp: &Stamp<'_>) -> Result<Waiting, StoreError> {
        let folder = self.store.folder(Versions::NAME);
        let files = folder.latest()?.map(|delta| folder.files(delta)).transpose()?;
        let mut files = files.map_or_else(LoggedFiles::new, |files| files.as_ref().clone());
        let mut rows = Vec::new();
        // `optimize` also joins all rows into one file.
        if files.len() >= VERSION_FILES || (self.same_rows && !files.is_empty()) {
            rows = self.store.versions()?;
            files.clear();
        }
        rows.push(row.clone());
        self.touched.insert(Versions::NAME, files);
        self.append::<Versions>(&rows)?;
        // The row of the version is new data, even if the commit changes no row of another table.
        let stamp = &Stamp {
            data_change: true,
            ..*stamp
        };
        match folder.prepare(&Versions::schema(), &self.touched[Versions::NAME], stamp)? {
            Prepared::Entry(entry) => self.waiting(folder, entry),
            Prepared::Same(_) => unreachable!("a file with a new version was added"),
        }
    }

    /// Names the files and waits for the disk four times.
    fn settle(
        mut self,
        mut entries: BTreeMap<&'static str, Waiting>,
        mut versions: Waiting,
    ) -> Result<(), StoreError> {
        let mut files = std::mem::take(&mut self.unnamed);
        // Keep only files that the tables will have: the same commit can write a file and replace it again.
        let wanted = |table: &str, name: &str| {
            let files = self.touched.get(table);
            files.is_some_and(|files| files.contains_key(name))
        };
        files.retain(|(table, name, _)| wanted(table, name));
        let data = files.iter_mut().map(|(_, _, scratch)| scratch);
        let logs = entries.values_mut().map(|waiting| &mut waiting.scratch);
        sync_files(data.chain(logs).chain([&mut versions.scratch]))?;

        let mut folders = BTreeSet::from([self.store.root().to_owned()]);
        for folder in entries.values().chain([&versions]).map(|waiting| &waiting.folder) {
            let log = folder.log_path();
            if !log.exists() {
                std::fs::create_dir_all(&log).map_err(StoreError::io("make", &log))?;
            }
            folders.insert(folder.path.clone());
        }
        for (table, name, scratch) in files {
            let folder = self.store.folder(table).path;
            scratch.rename(&folder.join(name))?;
            folders.insert(folder);
        }
        sync_folders(&folders)?;
        fault::point("after-files");

        let mut moved: Vec<(DeltaFolder, Entry)> = Vec::new();
        let mut logs = BTreeSet::<PathBuf>::new();
        for (table, _) in tables::all() {
            if !self.touched.contains_key(table) && !entries.contains_key(table) {
                continue;
            }
            fault::point(&format!("before-{table}"));
            // Sync this log even without a new entry: a killed run may have linked an entry and died before it synced
            // the log.
            let log = self.store.folder(table).log_path();
            if log.exists() {
                logs.insert(log);
            }
            if let Some(waiting) = entries.remove(table) {
                moved.push(waiting.link()?);
            }
            fault::point(&format!("after-{table}"));
        }
        sync_folders(&logs)?;

        fault::point("before-versions");
        let log = BTreeSet::from([versions.folder.log_path()]);
        moved.push(versions.link()?);
        sync_folders(&log)?;
        fault::point("after-versions");

        for (folder, entry) in moved {
            // Only now: until the entry of `versions` is on the disk, nothing may delay the commit.
            folder.leave_copy(&entry);
            let delta = entry.version;
            // `turn` differs between tables, so that they do not all write a checkpoint in the same commit.
            let turn: u64 = folder.table.bytes().map(u64::from).sum();
            if (delta + turn).is_multiple_of(CHECKPOINT)
                && delta > 0
                && let Err(error) = folder.checkpoint(delta)
            {
                // The version is committed. Without the checkpoint, readers only have more entries to read.
                tracing::warn!(table = folder.table, %error, "no checkpoint");
            }
        }
        Ok(())
    }
}

impl Waiting {
    /// Gives the entry its name, which moves the table to its new Delta version.
    fn link(self) -> Result<(DeltaFolder, Entry), StoreError> {
        self.scratch.link(&self.folder.entry_path(self.entry.version))?;
        self.folder.wrote(&self.entry);
        Ok((self.folder, self.entry))
    }
}
