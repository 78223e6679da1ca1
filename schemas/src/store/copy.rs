//! Copies a store, with all its versions or the last ones, to an empty place or to an older copy.
//!
//! ```text
//! data files of the kept versions ─▶ logs of the tables ─▶ mark of versions that are left out ─▶ log of `versions`
//! ```
//!
//! The log of `versions` comes last, entry by entry. A copy that was interrupted therefore has either no new version or
//! whole versions, and the next copy continues: it leaves out files that the target has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::parallel::on_all_cores;
use super::vacuum::deltas;
use super::written::content;
use super::{Store, WriteLock, log_copy};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::rows::VersionRow;
use crate::storage::{StoredFile, log_folder};
use crate::tables::{Table, Versions};

/// What [`Store::copy_to`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiedStore {
    /// The first and the last version that the copy can open.
    pub versions: (StoreVersion, StoreVersion),
    /// The number and the bytes of the files that were written.
    pub written: (u64, u64),
    /// The number and the bytes of the files that the target had already.
    pub present: (u64, u64),
}

/// The files of one table that a copy needs.
struct TableFiles {
    table: &'static str,
    data: BTreeMap<String, u64>,
    /// The entries of the log, in order.
    entries: Vec<StoredFile>,
    /// The checkpoints of the log and the file that names the last of them.
    checkpoints: Vec<StoredFile>,
}

/// Counts files.
#[derive(Default)]
struct Count {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (
            self.files.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

struct Copying<'a> {
    from: &'a Store,
    to: &'a Store,
    written: Count,
    present: Count,
    tell: &'a (dyn Fn(u64) + Sync),
}

impl Store {
    /// Copies the last `versions` versions, or all, to another store. The target is empty, or an older copy of this store.
    /// Both stores are locked by the caller. `tell` is given the number of bytes of each file that was written.
    ///
    /// Files outside the tables (staged shards, checkpoints of trainings, deliveries) are not copied.
    ///
    /// # Errors
    /// Returns [`StoreError::OtherStore`] if the target is not a copy of this store, [`StoreError::File`] if a data file
    /// is damaged, and errors of reading and writing.
    pub fn copy_to(
        &self,
        _lock: &WriteLock,
        to: &Store,
        _target_lock: &WriteLock,
        versions: Option<usize>,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<CopiedStore, StoreError> {
        let rows = self.versions()?;
        let mark = self.mark()?;
        let mut kept: Vec<&VersionRow> = rows.iter().filter(|row| mark.keeps(row.version)).collect();
        let first = kept.len().saturating_sub(versions.unwrap_or(usize::MAX));
        kept.drain(..first);
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
            return Err(StoreError::Empty {
                path: self.root.clone(),
            });
        };
        let there = to.versions()?;
        same_history(&rows, &there, to)?;
        let copying = Copying {
            from: self,
            to,
            written: Count::default(),
            present: Count::default(),
            tell,
        };
        let mut all = Vec::new();
        for (table, deltas) in deltas(&kept) {
            all.push(self.table_files(table, &deltas)?);
        }
        let (versions, tables): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|own| own.table == Versions::NAME);
        for own in &tables {
            copying.data(own)?;
        }
        for own in &tables {
            copying.log(own)?;
        }
        if first.version > 1 || rows.first().is_some_and(|row| row.version < first.version) {
            let before = to.mark()?;
            let opens = there
                .iter()
                .map(|row| row.version)
                .filter(|version| before.keeps(*version));
            let opens = opens.filter(|version| *version < first.version).collect();
            to.set_mark(&super::vacuum::Mark::keeping(first.version, opens))?;
        }
        for own in &versions {
            copying.data(own)?;
            copying.log(own)?;
        }
        for own in tables.iter().chain(&versions) {
            copying.copies(own)?;
            copying.verify(own)?;
        }
        Ok(CopiedStore {
            versions: (StoreVersion(first.version), StoreVersion(last.version)),
            written: copying.written.get(),
            present: copying.present.get(),
        })
    }

    /// The files that these Delta versions of a table need.
    fn table_files(&self, table: &'static str, deltas: &BTreeSet<u64>) -> Result<TableFiles, StoreError> {
        let folder = self.folder(table);
        let mut data = BTreeMap::new();
        for delta in deltas {
            let files = folder.files(*delta)?;
            data.extend(files.iter().map(|(name, file)| (name.clone(), file.bytes)));
        }
        // Entries after the last version are left from killed runs.
        let last = deltas.last().copied();
        let mut entries = Vec::new();
        let mut checkpoints = Vec::new();
        for file in self.storage.list(&log_folder(table), None)? {
            let Some((version, rest)) = file.name.split_once('.') else {
                checkpoints.push(file);
                continue;
            };
            if version.parse().ok() > last {
                continue;
            }
            match rest {
                "json" => entries.push(file),
                _ => checkpoints.push(file),
            }
        }
        let mut own = TableFiles {
            table,
            data,
            entries,
            checkpoints,
        };
        own.drop_later_hint(self, last)?;
        Ok(own)
    }
}

impl TableFiles {
    /// Leaves out `_last_checkpoint` if it names a checkpoint that is not copied.
    fn drop_later_hint(&mut self, from: &Store, last: Option<u64>) -> Result<(), StoreError> {
        let hint = "_last_checkpoint";
        if self.checkpoints.iter().any(|file| file.name == hint) {
            let text = from
                .storage
                .get(&format!("{}/{hint}", log_folder(self.table)))?
                .unwrap_or_default();
            let parsed: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
            let version = parsed.and_then(|hint| hint.get("version")?.as_u64());
            if version.is_none() || version > last {
                self.checkpoints.retain(|file| file.name != hint);
            }
        }
        Ok(())
    }
}

/// Returns an error unless the rows of the target are rows of this store.
fn same_history(rows: &[VersionRow], there: &[VersionRow], to: &Store) -> Result<(), StoreError> {
    let own: BTreeMap<u64, &VersionRow> = rows.iter().map(|row| (row.version, row)).collect();
    let other = there
        .iter()
        .find(|row| own.get(&row.version).is_none_or(|own| own != row));
    match other {
        Some(row) => Err(StoreError::OtherStore {
            path: to.root.clone(),
            version: StoreVersion(row.version),
        }),
        None => Ok(()),
    }
}

impl Copying<'_> {
    fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        let absent =
            || StoreError::io("read", &self.from.root.join(key))(std::io::ErrorKind::NotFound.into());
        self.from.storage.get(key)?.ok_or_else(absent)
    }

    fn wrote(&self, bytes: u64) {
        self.written.add(bytes);
        (self.tell)(bytes);
    }

    /// The storage whose number of requests at once counts: the remote one, if there is one.
    fn busy(&self) -> &std::sync::Arc<dyn crate::storage::Storage> {
        match self.to.is_remote() {
            true => &self.to.storage,
            false => &self.from.storage,
        }
    }

    /// Copies data files. The name of each has the hash of its content, which is compared.
    fn data(&self, own: &TableFiles) -> Result<(), StoreError> {
        let there = self.to.storage.list(own.table, None)?;
        let there: BTreeMap<&str, u64> = there
            .iter()
            .map(|file| (file.name.as_str(), file.bytes))
            .collect();
        let missing: Vec<(&String, u64)> = own
            .data
            .iter()
            .map(|(name, bytes)| (name, *bytes))
            .filter(|(name, bytes)| match there.get(name.as_str()) == Some(bytes) {
                true => {
                    self.present.add(*bytes);
                    false
                }
                false => true,
            })
            .collect();
        on_all_cores(self.busy(), missing.len(), |number| {
            let (name, bytes) = missing[number];
            let key = format!("{}/{name}", own.table);
            let found = self.read(&key)?;
            let sum = content(&found);
            if found.len() as u64 != bytes || !name.trim_end_matches(".parquet").ends_with(&sum) {
                return Err(StoreError::File {
                    path: self.from.root.join(key),
                    problem: format!(
                        "{} bytes with the sum {sum}, expected {bytes} bytes with the sum in the name; `vaplan check` lists all damaged files",
                        found.len()
                    ),
                });
            }
            self.to.storage.put(&key, found)?;
            self.wrote(bytes);
            Ok(())
        })?;
        Ok(())
    }

    /// Copies the log of a table: first checkpoints, because later entries may need them, then the entries in order.
    fn log(&self, own: &TableFiles) -> Result<(), StoreError> {
        let log = log_folder(own.table);
        let there = self.to.storage.list(&log, None)?;
        let there: BTreeMap<&str, u64> = there
            .iter()
            .map(|file| (file.name.as_str(), file.bytes))
            .collect();
        for file in &own.checkpoints {
            let key = format!("{log}/{}", file.name);
            if there.get(file.name.as_str()) == Some(&file.bytes) && file.name.ends_with(".parquet") {
                self.present.add(file.bytes);
                continue;
            }
            self.to.storage.put(&key, self.read(&key)?)?;
            self.wrote(file.bytes);
        }
        let copy = |file: &StoredFile| {
            if there.get(file.name.as_str()) == Some(&file.bytes) {
                self.present.add(file.bytes);
                return Ok(());
            }
            let key = format!("{log}/{}", file.name);
            let text = self.read(&key)?;
            if !self.to.storage.put_new(&key, text.clone())?
                && self.to.storage.get(&key)?.as_ref() != Some(&text)
            {
                return Err(StoreError::Conflict {
                    path: self.to.root.join(key),
                });
            }
            self.wrote(file.bytes);
            Ok(())
        };
        // Of `versions`, each entry makes a version, so they come one after the other.
        if own.table == Versions::NAME {
            return own.entries.iter().try_for_each(copy);
        }
        on_all_cores(self.busy(), own.entries.len(), |number| {
            copy(&own.entries[number])
        })
        .map(drop)
    }

    /// Copies the copy of what the log says, so that the first reader of the target need not read the whole log.
    fn copies(&self, own: &TableFiles) -> Result<(), StoreError> {
        let key = log_copy::key(own.table);
        match self.from.storage.get(&key)? {
            Some(text) => self.to.storage.put_copy(&key, text),
            None => Ok(()),
        }
    }

    /// Looks for every file in the target.
    fn verify(&self, own: &TableFiles) -> Result<(), StoreError> {
        let log = log_folder(own.table);
        let expected = own.data.iter().map(|(name, bytes)| (own.table, name, *bytes));
        let entries = own
            .entries
            .iter()
            .map(|file| (log.as_str(), &file.name, file.bytes));
        let mut found: BTreeMap<(&str, String), u64> = BTreeMap::new();
        for folder in [own.table, log.as_str()] {
            let listed = self.to.storage.list(folder, None)?.into_iter();
            found.extend(listed.map(|file| ((folder, file.name), file.bytes)));
        }
        for (folder, name, bytes) in expected.chain(entries) {
            let there = found.get(&(folder, name.clone()));
            if there != Some(&bytes) {
                return Err(StoreError::File {
                    path: self.to.root.join(folder).join(name),
                    problem: match there {
                        Some(other) => format!("{other} bytes after the copy, expected {bytes}; copy again"),
                        None => "missing after the copy; copy again".to_owned(),
                    },
                });
            }
        }
        Ok(())
    }
}
