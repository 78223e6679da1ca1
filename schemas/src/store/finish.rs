//! Finishes a commit: brings a store version onto the disk.
//!
//! All files are written before any file is published, and the entry of `versions` is published last: see
//! [`Storage::publish`](crate::storage::Storage::publish). After that the version exists.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use super::Commit;
use super::delta::{DeltaFolder, Entry, Prepared};
use super::entry::Stamp;
use super::logged::LoggedFiles;
use super::parallel::on_all_cores;
use crate::error::StoreError;
use crate::rows::VersionRow;
use crate::storage::{Publication, inputs};
use crate::tables::{self, Table, Versions};

/// When `versions` has this many files, they are joined into one, so that opening the store stays quick.
const VERSION_FILES: usize = 64;
/// A log gets a checkpoint every 64 entries, so that a reader reads at most this many entries after it.
const CHECKPOINT: u64 = 64;
/// A log with large entries gets a checkpoint more often, but not more often than this: a checkpoint has the size of all
/// files' entries, and every commit that writes one waits for it.
const OFTEN: u64 = 8;
/// The number of bytes of entries after a checkpoint, above which checkpoints are written more often. A reader needs about 8 ms
/// for a megabyte of entries, and less for the same files in a checkpoint.
const UNCOVERED: u64 = 1 << 20;

/// A text that no other commit has: process, time in nanoseconds, and a number that differs between processes.
fn writer() -> String {
    use std::hash::{BuildHasher, RandomState};
    let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
    format!(
        "{}-{now}-{:016x}",
        std::process::id(),
        RandomState::new().hash_one(now)
    )
}

/// The number of entries between two checkpoints of a log with entries of this size in bytes: the largest power of two with at most
/// [`UNCOVERED`] bytes of entries, within [`OFTEN`] and [`CHECKPOINT`].
fn between_checkpoints(bytes: u64) -> u64 {
    let entries = (UNCOVERED / bytes.max(1)).clamp(OFTEN, CHECKPOINT);
    1 << entries.ilog2()
}

impl Commit<'_> {
    /// Commits each touched table, and last the row of `versions` that names the Delta versions of all tables.
    ///
    /// # Errors
    /// Returns [`StoreError`] if a file cannot be written or synced. The previous version then stays the latest
    /// version, and the same commit can be made again.
    pub fn finish(mut self) -> Result<VersionRow, StoreError> {
        if let Some(error) = inputs::take_failure() {
            return Err(StoreError::Object(error));
        }
        self.renew()?;
        let command = self.info.command.clone();
        let writer = self.store.is_remote().then(writer);
        let stamp = Stamp {
            command: &command,
            writer: writer.as_deref(),
            version: self.version().0,
            plain_reader: self.plain_reader,
            data_change: !self.same_rows,
        };
        let tables = tables::all();
        let prepared = on_all_cores(&self.store.storage, tables.len(), |number| {
            let (table, schema) = &tables[number];
            self.prepare(table, schema, &stamp)
        })?;
        let mut named: BTreeMap<String, u64> = BTreeMap::new();
        let mut entries: BTreeMap<&'static str, Entry> = BTreeMap::new();
        for ((table, _), prepared) in tables.iter().zip(prepared) {
            let delta = match prepared {
                None => continue,
                Some(Prepared::Same(delta)) => delta,
                Some(Prepared::Entry(entry)) => {
                    let delta = entry.version;
                    entries.insert(*table, entry);
                    delta
                }
            };
            named.insert((*table).to_owned(), delta);
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

    /// The entry that the log of a table needs; `None` if the version does not have the table.
    fn prepare(
        &self,
        table: &'static str,
        schema: &SchemaRef,
        stamp: &Stamp<'_>,
    ) -> Result<Option<Prepared>, StoreError> {
        let folder = self.store.folder(table);
        let before = self.previous.as_ref().and_then(|previous| previous.delta(table));
        let touched = self.touched.get(table);
        if touched.is_none() && before.is_none() {
            return Ok(None);
        }
        let ends = self.previous.as_ref().and_then(|previous| previous.ends.as_ref());
        let latest = match ends.and_then(|ends| ends.of(table)) {
            Some(end) => end,
            None => folder.latest()?,
        };
        Ok(Some(match (touched, before) {
            (Some(files), _) => folder.prepare_after(latest, schema, files, stamp)?,
            (None, Some(before)) if latest != Some(before) => {
                // A killed run added an entry to a table that this commit does not touch. Set the table back, because
                // other Delta readers read the last entry.
                folder.prepare_after(latest, schema, folder.files(before)?.as_ref(), stamp)?
            }
            (None, before) => return Ok(before.map(Prepared::Same)),
        }))
    }

    /// Adds the row of the new version to `versions`.
    fn add_version(&mut self, row: &VersionRow, stamp: &Stamp<'_>) -> Result<Entry, StoreError> {
        let folder = self.store.folder(Versions::NAME);
        // In an object store the put of the entry finds out whether another process committed.
        let latest = match self.store.is_remote() {
            true => self.follows,
            false => folder.latest()?,
        };
        if latest != self.follows {
            // The lease of this process ended, and another process committed. Without this check the new entry would
            // follow the entry of the other process and name the same version.
            return Err(StoreError::Conflict {
                path: folder.entry_path(latest.unwrap_or_default()),
            });
        }
        let files = latest.map(|delta| folder.files(delta)).transpose()?;
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
        match folder.prepare_after(latest, &Versions::schema(), &self.touched[Versions::NAME], stamp)? {
            Prepared::Entry(entry) => Ok(entry),
            Prepared::Same(_) => unreachable!("a file with a new version was added"),
        }
    }

    /// Publishes all files, and then leaves checkpoints of the logs.
    fn settle(
        mut self,
        mut entries: BTreeMap<&'static str, Entry>,
        versions: Entry,
    ) -> Result<(), StoreError> {
        let mut files = std::mem::take(&mut self.unnamed);
        // Keep only files that the tables will have: the same commit can write a file and replace it again.
        let wanted = |table: &str, name: &str| {
            let files = self.touched.get(table);
            files.is_some_and(|files| files.contains_key(name))
        };
        files.retain(|(table, name, _)| wanted(table, name));
        let touched = tables::all().into_iter().map(|(table, _)| table);
        let touched = touched.filter(|table| self.touched.contains_key(table) || entries.contains_key(table));
        let logs = touched.map(|table| (table, entries.get(table).map(Entry::to_write)));
        let publication = Publication {
            files,
            logs: logs.collect(),
            last: (Versions::NAME, versions.to_write()),
            copies: {
                let tables = entries.iter().map(|(table, entry)| entry.copy(table));
                tables.chain([versions.copy(Versions::NAME)]).collect()
            },
        };
        self.lock.check()?;
        self.store.storage.publish(publication)?;

        entries.insert(Versions::NAME, versions);
        let moved: Vec<(DeltaFolder, Entry)> = entries
            .into_iter()
            .map(|(table, entry)| (self.store.folder(table), entry))
            .collect();
        on_all_cores(&self.store.storage, moved.len(), |number| {
            let (folder, entry) = &moved[number];
            folder.wrote(entry);
            let delta = entry.version;
            // `turn` differs between tables, so that they do not all write a checkpoint in the same commit.
            let turn: u64 = folder.table.bytes().map(u64::from).sum();
            if (delta + turn).is_multiple_of(between_checkpoints(entry.text.len() as u64))
                && delta > 0
                && let Err(error) = folder.checkpoint(delta)
            {
                // The version is committed. Without the checkpoint, readers only have more entries to read.
                tracing::warn!(table = folder.table, %error, "no checkpoint");
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::between_checkpoints;

    #[test]
    fn large_entries_have_checkpoints_more_often_within_bounds() {
        let between = |kib: u64| between_checkpoints(kib << 10);
        assert_eq!(between_checkpoints(0), 64);
        assert_eq!(
            [2, 16, 17, 32, 60, 128, 250, 5000].map(between),
            [64, 64, 32, 32, 16, 8, 8, 8]
        );
    }
}
