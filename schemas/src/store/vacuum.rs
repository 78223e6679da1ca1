//! `vacuum`: removes the files that only old versions need.
//!
//! Before it removes the first file, `vacuum` writes to `_vaplan/vacuumed` which versions can no longer be opened. A
//! reader that opens such a version later gets an error, and a reader that opened the version before holds a lease
//! that keeps it. In an object store readers have no leases: `vacuum` keeps every version that was the latest within the
//! last 24 hours, and every file that is younger ([`Store::with_grace`]). If the run is killed, the next run finishes its work.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::delta::DeltaFolder;
use super::parallel::on_all_cores;
use super::references::VacuumedFolder;
use super::{LEASES, Store, WriteLock, lease};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::rows::VersionRow;
use crate::storage::{OWN, log_folder};
use crate::tables::{self, Table, Versions};

const MARK: &str = "vacuumed";

/// The versions that can be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The first version that can be opened; all later versions can be opened too.
    from: u64,
    /// Versions before `from` that were being read.
    read: BTreeSet<u64>,
    /// The previous mark, until `vacuum` knows which versions are being read. If the run is killed before that, the
    /// next run uses this mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Box<Mark>>,
}

impl Mark {
    /// The mark of a store that opens the versions `from` and later, and `others`.
    pub(super) fn keeping(from: u64, others: BTreeSet<u64>) -> Mark {
        Mark {
            from,
            read: others,
            before: None,
        }
    }

    /// Reads the mark of a store; `None` if no version was removed.
    pub(super) fn of_text(text: Option<&[u8]>, store: &Store) -> Result<Mark, StoreError> {
        let Some(text) = text else {
            return Ok(Mark::default());
        };
        serde_json::from_slice(text).map_err(|error| StoreError::File {
            path: store.root.join(mark_key()),
            problem: error.to_string(),
        })
    }

    /// Returns [`StoreError::Vacuumed`] if the files of a version were removed.
    pub(super) fn check(&self, wanted: StoreVersion) -> Result<(), StoreError> {
        match self.keeps(wanted.0) {
            true => Ok(()),
            false => Err(StoreError::Vacuumed {
                wanted,
                from: StoreVersion(self.from),
            }),
        }
    }

    pub(super) fn keeps(&self, version: u64) -> bool {
        version >= self.from || self.read.contains(&version)
    }
}

/// What [`Store::vacuum`] removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// The versions that can still be opened.
    pub kept: Vec<StoreVersion>,
    /// The versions of `kept` that stay only because a process reads them now.
    pub read: Vec<StoreVersion>,
    /// The number of data files that no kept version needs.
    pub files: u64,
    /// The number of entries and checkpoints of logs that no kept version needs.
    pub entries: u64,
    /// The size of these files in bytes.
    pub bytes: u64,
    /// What was removed and what stays outside the tables.
    pub folders: Vec<VacuumedFolder>,
}

impl Store {
    /// Removes the files that neither the last `keep` versions need nor any version that is being read. With `dry`,
    /// it only counts them.
    ///
    /// This works on a full disk: it removes files before it writes, and it has a spare file for its mark.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if a file cannot be removed; the next run removes the remaining files. Returns
    /// another [`StoreError`] if a log cannot be read.
    ///
    /// # Panics
    /// Panics if `keep` is 0, because the latest version always stays.
    pub fn vacuum(&self, _lock: &WriteLock, keep: usize, dry: bool) -> Result<Vacuumed, StoreError> {
        assert!(keep > 0, "the latest version always stays");
        let rows = self.versions()?;
        let Some(first) = rows.get(rows.len().saturating_sub(keep)) else {
            return Ok(Vacuumed::default());
        };
        let mut before = self.mark()?;
        let mut mark = Mark {
            from: first.version.max(before.from),
            ..Mark::default()
        };
        if let Some(unfinished) = before.before.take() {
            before = *unfinished;
        }
        let mut done = Vacuumed {
            folders: self.remove_temporary(dry)?,
            ..Vacuumed::default()
        };
        if !dry {
            // First remove the files that no version names. On a full disk this makes room for the mark.
            let all: Vec<&VersionRow> = rows.iter().filter(|row| before.keeps(row.version)).collect();
            for (table, deltas) in deltas(&all) {
                let strays = self.unneeded(&self.folder(table), &deltas)?;
                done.files += strays.len() as u64;
                done.bytes += strays.iter().map(|(_, bytes)| bytes).sum::<u64>();
                self.remove(&strays)?;
            }
            // Publish the mark before listing the leases, so that no new reader can open a version that is about to
            // be deleted.
            mark.before = Some(Box::new(before.clone()));
            self.with_spare(|| self.set_mark(&mark))?;
            mark.before = None;
        }
        let may_be_read = |version: &u64| *version < mark.from && before.keeps(*version);
        let read = match self.is_remote() {
            true => self.recent(&rows),
            false => lease::held(&self.own.join(LEASES))?,
        };
        mark.read = read.into_iter().filter(may_be_read).collect();
        if !dry {
            self.with_spare(|| self.set_mark(&mark))?;
        }
        let kept: Vec<&VersionRow> = rows.iter().filter(|row| mark.keeps(row.version)).collect();
        done.kept = kept.iter().map(|row| StoreVersion(row.version)).collect();
        done.read = mark.read.iter().copied().map(StoreVersion).collect();
        let deltas = deltas(&kept);
        // Remove the data files of all tables before writing the first checkpoint, because a checkpoint needs room.
        for (table, deltas) in &deltas {
            let files = self.unneeded(&self.folder(table), deltas)?;
            done.files += files.len() as u64;
            done.bytes += files.iter().map(|(_, bytes)| bytes).sum::<u64>();
            if !dry {
                self.remove(&files)?;
            }
        }
        done.folders.extend(self.remove_deliveries(&kept, dry)?);
        for (table, deltas) in &deltas {
            let entries = match deltas.first() {
                Some(oldest) => self.with_spare(|| self.old_entries(&self.folder(table), *oldest, dry))?,
                None => Vec::new(),
            };
            done.entries += entries.len() as u64;
            done.bytes += entries.iter().map(|(_, bytes)| bytes).sum::<u64>();
            if !dry {
                self.remove(&entries)?;
            }
        }
        done.folders.extend(self.lasting()?);
        if !dry && !self.is_remote() {
            self.keep_spare();
        }
        Ok(done)
    }

    /// Returns [`StoreError::Vacuumed`] if the files of a version were removed.
    pub(super) fn openable(&self, wanted: StoreVersion) -> Result<(), StoreError> {
        self.mark()?.check(wanted)
    }

    pub(super) fn mark(&self) -> Result<Mark, StoreError> {
        Mark::of_text(self.storage.get(&mark_key())?.as_deref(), self)
    }

    pub(super) fn set_mark(&self, mark: &Mark) -> Result<(), StoreError> {
        let text = serde_json::to_vec(mark).expect("numbers are always JSON");
        self.storage.put(&mark_key(), text.into())
    }

    /// The versions of an object store that a process may still be reading: those that were the latest within the time of
    /// grace.
    fn recent(&self, rows: &[VersionRow]) -> BTreeSet<u64> {
        let grace = i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        let from = chrono::Utc::now().timestamp_millis().saturating_sub(grace);
        let pairs = rows.windows(2).filter(|pair| pair[1].committed_at > from);
        pairs.map(|pair| pair[0].version).collect()
    }

    fn remove(&self, files: &[(String, u64)]) -> Result<(), StoreError> {
        // On a local disk one after the other, in order.
        match self.is_remote() {
            true => on_all_cores(&self.storage, files.len(), |number| {
                self.storage.delete(&files[number].0)
            })
            .map(drop),
            false => files.iter().try_for_each(|(key, _)| self.storage.delete(key)),
        }
    }

    /// The data files that neither one of these Delta versions nor the last Delta version names.
    fn unneeded(
        &self,
        folder: &DeltaFolder,
        deltas: &BTreeSet<u64>,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let Some(latest) = folder.latest()? else {
            return Ok(Vec::new());
        };
        // The needed versions at the end of the log form a run without gaps. For this run, read the log at its first
        // version, and then only which files each later entry adds. Earlier versions are read one by one. The last
        // version is always needed, even if a killed run wrote it, because other Delta readers see it until the next
        // commit.
        let mut run = latest;
        while run > 0 && deltas.contains(&(run - 1)) {
            run -= 1;
        }
        let mut needed = BTreeSet::new();
        for delta in deltas.range(..run).copied().chain([run]) {
            needed.extend(folder.files(delta)?.keys().cloned());
        }
        for delta in run + 1..=latest {
            needed.extend(folder.added(delta)?);
        }
        // A process that lost its lease without noticing may still be uploading files.
        let grace = chrono::TimeDelta::from_std(self.grace).unwrap_or(chrono::TimeDelta::MAX);
        let young = chrono::Utc::now()
            .checked_sub_signed(grace)
            .filter(|_| self.is_remote());
        let found = self.storage.list(&folder.table, None)?.into_iter();
        let unneeded = found.filter(|file| file.name.ends_with(".parquet") && !needed.contains(&file.name));
        let old = unneeded.filter(|file| young.is_none_or(|young| file.modified <= young));
        Ok(old
            .map(|file| (format!("{}/{}", folder.table, file.name), file.bytes))
            .collect())
    }

    /// The entries and checkpoints of a log that are not needed for reading version `oldest` and later versions.
    fn old_entries(
        &self,
        folder: &DeltaFolder,
        oldest: u64,
        dry: bool,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        if oldest > 0 && !dry && !folder.has_checkpoint(oldest)? {
            folder.checkpoint(oldest)?;
        }
        let version = |name: &str| {
            name.split_once('.')
                .and_then(|(version, _)| version.parse::<u64>().ok())
        };
        let log = log_folder(&folder.table);
        let found = self.storage.list(&log, None)?.into_iter();
        let old = found.filter(|file| version(&file.name).is_some_and(|version| version < oldest));
        Ok(old
            .map(|file| (format!("{log}/{}", file.name), file.bytes))
            .collect())
    }
}

/// The key of the mark.
pub(super) fn mark_key() -> String {
    format!("{OWN}/{MARK}")
}

/// The Delta versions of each table that these versions need.
pub(super) fn deltas(kept: &[&VersionRow]) -> BTreeMap<&'static str, BTreeSet<u64>> {
    let mut deltas: BTreeMap<&'static str, BTreeSet<u64>> = BTreeMap::new();
    for (table, _) in tables::all() {
        let of = |row: &&VersionRow| {
            let named = row.tables.iter().find(|(name, _)| name == table);
            named.map(|(_, delta)| *delta)
        };
        deltas.insert(table, kept.iter().filter_map(of).collect());
    }
    // A version does not name the Delta version of `versions` with its own row. But each store version is one Delta
    // commit of this table, and Delta versions count from 0.
    let own = kept.iter().map(|row| row.version.saturating_sub(1));
    deltas.insert(Versions::NAME, own.collect());
    deltas
}
