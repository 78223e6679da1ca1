//! Copies delivered features into the store. They stay inputs of the store, so they must not depend on files that a
//! user may delete from `done`.
//!
//! A copy is the file `_vaplan/shards/<name of the delivery>/<hash>.parquet`, or a folder `<hash>` in the same place. A
//! later delivery of the same name replaces the earlier one as an input.

use std::fs;
use std::path::{Path, PathBuf};

#[cfg(feature = "encode")]
use vaplan_schemas::Modality;
use vaplan_schemas::store::Store;

use super::WatchError;
use super::delivery::{Delivery, DeliveryKind};
use crate::ingest::{absolute, open_regular};
use crate::world::Both;

/// Returns the folder with the copies of all deliveries of this name.
pub(super) fn folder(store: &Store, delivery: &Delivery) -> PathBuf {
    store.own_dir().join("shards").join(&delivery.entry.name)
}

/// Returns the file of the features of a modality that are made of delivered media.
#[cfg(feature = "encode")]
pub(super) fn encoded(store: &Store, delivery: &Delivery, modality: Modality) -> PathBuf {
    folder(store, delivery).join(format!("{}.{modality}.parquet", &delivery.hash[..16]))
}

/// Returns the file of the rows that were rejected when delivered media were encoded.
#[cfg(feature = "encode")]
pub(super) fn rejects(store: &Store, delivery: &Delivery) -> PathBuf {
    folder(store, delivery).join(format!("{}.rejects.jsonl", &delivery.hash[..16]))
}

/// Returns the path of the copy of a delivery of features, as the store records it. For any other delivery, returns the path in
/// the inbox.
pub fn of(store: &Store, delivery: &Delivery) -> PathBuf {
    store.kept_input(&local(store, delivery))
}

/// Returns the path of the copy on the local disk. Of a store at a URL, the copy is in the scratch folder.
fn local(store: &Store, delivery: &Delivery) -> PathBuf {
    let DeliveryKind::Features(_) = delivery.kind else {
        return delivery.entry.path.clone();
    };
    // 16 hexadecimal digits (64 bits) are enough to tell the deliveries of one name apart.
    let hash = &delivery.hash[..16];
    let name = match delivery.folder {
        true => hash.to_owned(),
        false => format!("{hash}.parquet"),
    };
    folder(store, delivery).join(name)
}

/// Returns the inputs of the store that a delivery of features replaces.
pub fn replaced(store: &Store, delivery: &Delivery, inputs: &Both<Vec<PathBuf>>) -> Vec<PathBuf> {
    let DeliveryKind::Features(modality) = delivery.kind else {
        return Vec::new();
    };
    earlier(store, delivery, &of(store, delivery), &inputs[modality.index()])
}

/// Returns the inputs among `inputs` that earlier deliveries of this name have, without `place`.
pub(super) fn earlier(store: &Store, delivery: &Delivery, place: &Path, inputs: &[PathBuf]) -> Vec<PathBuf> {
    // The store records absolute paths, and may itself be named by a relative one.
    let recorded = |path: PathBuf| absolute(&path).unwrap_or(path);
    let folder = store.kept_input(&folder(store, delivery));
    let (own, folder) = (recorded(place.to_owned()), recorded(folder));
    let same = |path: &&PathBuf| **path != own && path.starts_with(&folder);
    inputs.iter().filter(same).cloned().collect()
}

/// Copies a delivery's features to their place and syncs them. A copy that exists stays. Returns false if the delivery
/// left the inbox, or if another file was renamed over it.
///
/// A hard link would be cheaper. But an edit in place of the file in `done/` would then change a file of the store that
/// is named by its hash. The copy shares blocks with the original where the file system can do that
/// (`copy_file_range`).
///
/// # Errors
/// Returns [`WatchError::Io`] if a file cannot be copied or synced.
pub fn put(store: &Store, delivery: &Delivery) -> Result<bool, WatchError> {
    let place = local(store, delivery);
    if place == delivery.entry.path || place.exists() {
        // A watch that was killed may have copied the delivery without uploading the copy.
        store.keep_input(&place)?;
        return Ok(delivery.entry.lies());
    }
    let folder = folder(store, delivery);
    fs::create_dir_all(&folder).map_err(WatchError::io("make", &folder))?;
    // Copy to another name first, so that the final name always has a complete copy.
    let unfinished = folder.join(".unfinished");
    let cleared = match unfinished.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&unfinished),
        Ok(_) => fs::remove_file(&unfinished),
        Err(_) => Ok(()),
    };
    cleared.map_err(WatchError::io("clear", &unfinished))?;
    let copied = copy(&delivery.entry.path, &unfinished);
    // The path of the copy has the hash of the delivery. If another file took the name of the delivery, the copy may
    // have the contents of that file, and must not get this path.
    if !delivery.entry.lies() {
        return Ok(false);
    }
    copied?;
    fs::rename(&unfinished, &place).map_err(WatchError::io("name", &place))?;
    let above = folder.parent().and_then(Path::parent);
    for folder in [Some(&*folder), folder.parent(), above].into_iter().flatten() {
        sync(folder)?;
    }
    store.keep_input(&place)?;
    Ok(true)
}

fn copy(from: &Path, to: &Path) -> Result<(), WatchError> {
    if from.is_dir() {
        fs::create_dir(to).map_err(WatchError::io("make", to))?;
        for entry in fs::read_dir(from).map_err(WatchError::io("list", from))? {
            let entry = entry.map_err(WatchError::io("list", from))?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return sync(to);
    }
    let (mut own, _) = open_regular(from).map_err(|error| WatchError::Label(error.into()))?;
    let mut file = fs::File::create(to).map_err(WatchError::io("write", to))?;
    std::io::copy(&mut own, &mut file).map_err(WatchError::io("write", to))?;
    sync(to)
}

pub(super) fn sync(path: &Path) -> Result<(), WatchError> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(WatchError::io("sync", path))
}
