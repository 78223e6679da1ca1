//! Which files outside the tables a store version needs: the rules of `vacuum` for the folder `_vaplan`.
//!
//! | path in `_vaplan` | written by | `vacuum` |
//! |---|---|---|
//! | `lock`, `leases`, `vacuumed`, `spare` | the store | keeps it: the store itself works with it |
//! | `logs/*` | whoever reads or writes a log | keeps it: a copy of what the log of a table says |
//! | `scratch/*` | a commit, before its files have names | removes it: `vacuum` holds the write lock, so the commit was killed |
//! | `staging/*` | `label` and `relabel`, until their commit | removes it: the run was killed; the same run scores the shards again |
//! | `train/features/*` | `train`, `predict`, `run`, `watch --train` | removes it: a copy of features that the next training makes again |
//! | `shards/NAME/HASH` | `watch` | keeps it if a kept version names `HASH` in a setting `features.*`; otherwise removes it |
//! | `train/*`, `run/*` | trainings | keeps it: checkpoints, from which trainings continue |
//! | `inputs.seen`, `inputs.lock` | every command that reads features | keeps it: identities and content hashes of inputs |
//! | `encoded/*` | `encode`, `label`, `run` | keeps it: feature shards that versions name, and embeddings that no run can make without the media |
//! | anything else | unknown | keeps it |
//!
//! For a store at a URL, these folders are in the scratch folder of this machine ([`Store::own_dir`]).
//!
//! A delivery is found by its hash and not by its whole path, so that a store that was moved keeps its deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::{Store, snapshot};
use crate::error::StoreError;
use crate::rows::VersionRow;
use crate::storage::{OWN, SCRATCH, fault};
use crate::tables::{Settings, Table};

/// Settings whose names begin with this prefix hold paths of features.
const FEATURES: &str = "features.";
/// The folder of delivered features.
const SHARDS: &str = "shards";

/// What `vacuum` removed from a folder of `_vaplan`, or would remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VacuumedFolder {
    /// Path of the folder within the store.
    pub folder: PathBuf,
    /// The number of removed files, and their size in bytes.
    pub removed: (u64, u64),
    /// The number of kept files, and their size in bytes.
    pub kept: (u64, u64),
    /// Why the files were removed or kept.
    pub why: &'static str,
}

/// Folders whose files no version needs, and the reason.
const TEMPORARY: [(&str, &str); 3] = [
    (SCRATCH, "files of commits that were killed"),
    ("staging", "scores of runs that were killed"),
    (
        "train/features",
        "copies of features that the next training makes again",
    ),
];

/// Folders whose files stay, and the reason. The first folder contains the folder `train/features`, which is not
/// counted here.
const LASTING: [(&str, &str); 3] = [
    ("train", "checkpoints, from which a training continues"),
    ("run", "checkpoints, from which `run` continues"),
    (
        "encoded",
        "embeddings of media, which `encode` does not compute again",
    ),
];

impl Store {
    /// Removes the files that no version needs. This writes nothing, so it works on a full disk.
    pub(super) fn remove_temporary(&self, dry: bool) -> Result<Vec<VacuumedFolder>, StoreError> {
        let mut done = Vec::new();
        for (name, why) in TEMPORARY {
            let folder = Path::new(OWN).join(name);
            let removed = clear(&self.own.join(name), dry)?;
            done.extend((removed.0 > 0).then_some(VacuumedFolder {
                folder,
                removed,
                kept: (0, 0),
                why,
            }));
        }
        Ok(done)
    }

    /// Removes delivered features that none of the `kept` versions names.
    pub(super) fn remove_deliveries(
        &self,
        kept: &[&VersionRow],
        dry: bool,
    ) -> Result<Option<VacuumedFolder>, StoreError> {
        let folder = Path::new(OWN).join(SHARDS);
        let named = self.named_features(kept)?;
        let mut done = VacuumedFolder {
            folder: folder.clone(),
            removed: (0, 0),
            kept: (0, 0),
            why: "deliveries; those stay that a kept version names as features",
        };
        for delivery in entries(&self.own.join(SHARDS))? {
            for item in entries(&delivery)? {
                let hash = item
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let size = if named.contains(&hash) {
                    let size = size(&item)?;
                    done.kept = (done.kept.0 + size.0, done.kept.1 + size.1);
                    continue;
                } else {
                    remove(&item, dry)?
                };
                done.removed = (done.removed.0 + size.0, done.removed.1 + size.1);
            }
            if !dry && entries(&delivery)?.is_empty() && delivery.is_dir() {
                std::fs::remove_dir(&delivery).map_err(StoreError::io("remove", &delivery))?;
            }
        }
        Ok((done.removed.0 + done.kept.0 > 0).then_some(done))
    }

    /// The folders of `_vaplan` that stay, whatever versions are kept.
    pub(super) fn lasting(&self) -> Result<Vec<VacuumedFolder>, StoreError> {
        let mut done = Vec::new();
        for (name, why) in LASTING {
            let folder = Path::new(OWN).join(name);
            let mut kept = size(&self.own.join(name))?;
            let copies = size(&self.own.join(name).join("features"))?;
            if name == "train" {
                kept = (kept.0 - copies.0, kept.1 - copies.1);
            }
            done.extend((kept.0 > 0).then_some(VacuumedFolder {
                folder,
                removed: (0, 0),
                kept,
                why,
            }));
        }
        Ok(done)
    }

    /// The last parts of the paths of features that the settings of these versions name.
    fn named_features(&self, kept: &[&VersionRow]) -> Result<BTreeSet<String>, StoreError> {
        let table = self.folder(Settings::NAME);
        let mut files = BTreeMap::new();
        let delta = |row: &&VersionRow| {
            row.tables
                .iter()
                .find(|(name, _)| name == Settings::NAME)
                .map(|own| own.1)
        };
        for delta in kept.iter().filter_map(delta).collect::<BTreeSet<u64>>() {
            for file in table.files(delta)?.values() {
                // Include rows that a later version deleted: another kept version may still have them.
                let mut file = file.clone();
                file.deleted = None;
                files.insert(file.name.clone(), file);
            }
        }
        let mut named = BTreeSet::new();
        for file in files.values() {
            let rows = snapshot::decode::<Settings>(&table.data_file(file))?;
            let paths = rows.iter().filter(|row| row.name.starts_with(FEATURES));
            let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
            named.extend(paths.filter_map(|row| last(&row.value)));
        }
        Ok(named)
    }
}

/// The files and folders in a folder, sorted; empty if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut paths = Vec::new();
    for entry in listed {
        paths.push(entry.map_err(StoreError::io("list", folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The number and bytes of the files at a path: a file, or a folder with all its files. A symbolic link counts as a
/// file.
fn size(path: &Path) -> Result<(u64, u64), StoreError> {
    remove(path, true)
}

/// Removes the content of a folder, and leaves the folder.
fn clear(folder: &Path, dry: bool) -> Result<(u64, u64), StoreError> {
    let mut all = (0, 0);
    for path in entries(folder)? {
        let own = remove(&path, dry)?;
        all = (all.0 + own.0, all.1 + own.1);
    }
    Ok(all)
}

/// Removes a file, or a folder with all its files; with `dry` it only counts. Returns the number and bytes of the
/// files.
fn remove(path: &Path, dry: bool) -> Result<(u64, u64), StoreError> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    if found.is_dir() {
        let all = clear(path, dry)?;
        if !dry {
            std::fs::remove_dir(path).map_err(StoreError::io("remove", path))?;
        }
        return Ok(all);
    }
    if !dry {
        fault::point("remove");
        std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
        fault::freed(found.len());
    }
    Ok((1, found.len()))
}
