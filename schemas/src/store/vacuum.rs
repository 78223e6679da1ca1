//! `vacuum`: removes the files that only old versions need.
//!
//! Before it removes the first file, `vacuum` writes to `_vaplan/vacuumed` which versions can no longer be opened. A
//! reader that opens such a version later gets an error, and a reader that opened the version before holds a lease
//! that keeps it. If the run is killed, the next run finishes its work.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::delta::DeltaFolder;
use super::durable::{Scratch, sync_folder};
use super::references::VacuumedFolder;
use super::{LEASES, OWN, SCRATCH, Store, WriteLock, fault, lease};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::rows::VersionRow;
use crate::tables::{self, Table, Versions};

const MARK: &str = "vacuumed";

/// The versions that can be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
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
    fn keeps(&self, version: u64) -> bool {
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
        let leases = self.root.join(OWN).join(LEASES);
        let mut done = Vacuumed {
            folders: self.remove_temporary(dry)?,
            ..Vacuumed::default()
        };
        if !dry {
            // First remove the files that no version names. On a full disk this makes room for the mark.
            let all: Vec<&VersionRow> = rows.iter().filter(|row| before.keeps(row.version)).collect();
            for (table, deltas) in deltas(&all) {
                let strays = unneeded(&self.folder(table), &deltas)?;
                done.files += strays.len() as u64;
                done.bytes += strays.iter().map(|(_, bytes)| bytes).sum::<u64>();
                remove(&strays)?;
            }
            // Publish the mark before listing the leases, so that no new reader can open a version that is about to
            // be deleted.
            mark.before = Some(Box::new(before.clone()));
            self.with_spare(|| self.set_mark(&mark))?;
            mark.before = None;
        }
        let may_be_read = |version: &u64| *version < mark.from && before.keeps(*version);
        mark.read = lease::held(&leases)?.into_iter().filter(may_be_read).collect();
        if !dry {
            self.with_spare(|| self.set_mark(&mark))?;
        }
        let kept: Vec<&VersionRow> = rows.iter().filter(|row| mark.keeps(row.version)).collect();
        done.kept = kept.iter().map(|row| StoreVersion(row.version)).collect();
        done.read = mark.read.iter().copied().map(StoreVersion).collect();
        let deltas = deltas(&kept);
        // Remove the data files of all tables before writing the first checkpoint, because a checkpoint needs room.
        for (table, deltas) in &deltas {
            let files = unneeded(&self.folder(table), deltas)?;
            done.files += files.len() as u64;
            done.bytes += files.iter().map(|(_, bytes)| bytes).sum::<u64>();
            if !dry {
                remove(&files)?;
            }
        }
        done.folders.extend(self.remove_deliveries(&kept, dry)?);
        for (table, deltas) in &deltas {
            let entries = match deltas.first() {
                Some(oldest) => self.with_spare(|| old_entries(&self.folder(table), *oldest, dry))?,
                None => Vec::new(),
            };
            done.entries += entries.len() as u64;
            done.bytes += entries.iter().map(|(_, bytes)| bytes).sum::<u64>();
            if !dry {
                remove(&entries)?;
            }
        }
        done.folders.extend(self.lasting()?);
        if !dry {
            self.keep_spare();
        }
        Ok(done)
    }

    /// Returns [`StoreError::Vacuumed`] if the files of a version were removed.
    pub(super) fn openable(&self, wanted: StoreVersion) -> Result<(), StoreError> {
        let mark = self.mark()?;
        match mark.keeps(wanted.0) {
            true => Ok(()),
            false => Err(StoreError::Vacuumed {
                wanted,
                from: StoreVersion(mark.from),
            }),
        }
    }

    fn mark_path(&self) -> PathBuf {
        self.root.join(OWN).join(MARK)
    }

    fn mark(&self) -> Result<Mark, StoreError> {
        let path = self.mark_path();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::default()),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        serde_json::from_slice(&text).map_err(|error| StoreError::File {
            path,
            problem: error.to_string(),
        })
    }

    fn set_mark(&self, mark: &Mark) -> Result<(), StoreError> {
        let own = self.root.join(OWN);
        let scratch = own.join(SCRATCH);
        std::fs::create_dir_all(&scratch).map_err(StoreError::io("make", &scratch))?;
        let text = serde_json::to_vec(mark).expect("numbers are always JSON");
        Scratch::write(&scratch, [text.as_slice()])?.rename(&self.mark_path())?;
        sync_folder(&own)
    }
}

/// The Delta versions of each table that these versions need.
fn deltas(kept: &[&VersionRow]) -> BTreeMap<&'static str, BTreeSet<u64>> {
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

fn remove(files: &[(PathBuf, u64)]) -> Result<(), StoreError> {
    files.iter().try_for_each(|(path, bytes)| {
        fault::point("remove");
        std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
        fault::freed(*bytes);
        Ok(())
    })
}

/// The data files that neither one of these Delta versions nor the last Delta version names.
fn unneeded(folder: &DeltaFolder, deltas: &BTreeSet<u64>) -> Result<Vec<(PathBuf, u64)>, StoreError> {
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
    let found = list(&folder.path)?;
    let is_data = |name: &str| name.ends_with(".parquet") && !needed.contains(name);
    Ok(found
        .into_iter()
        .filter(|(name, ..)| is_data(name))
        .map(|(_, path, bytes)| (path, bytes))
        .collect())
}

/// The entries and checkpoints of a log that are not needed for reading version `oldest` and later versions.
fn old_entries(folder: &DeltaFolder, oldest: u64, dry: bool) -> Result<Vec<(PathBuf, u64)>, StoreError> {
    let log = folder.log_path();
    if oldest > 0 && !folder.has_checkpoint(oldest) && !dry {
        folder.checkpoint(oldest)?;
    }
    let version = |name: &str| {
        name.split_once('.')
            .and_then(|(version, _)| version.parse::<u64>().ok())
    };
    let found = list(&log)?;
    let old = found
        .into_iter()
        .filter(|(name, ..)| version(name).is_some_and(|version| version < oldest));
    Ok(old.map(|(_, path, bytes)| (path, bytes)).collect())
}

/// The files of a folder: name, path and size; empty if there is no such folder.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf, u64)>, StoreError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        let found = entry.metadata().map_err(StoreError::io("read", &entry.path()))?;
        if let (true, Ok(name)) = (found.is_file(), entry.file_name().into_string()) {
            files.push((name, entry.path(), found.len()));
        }
    }
    files.sort();
    Ok(files)
}
