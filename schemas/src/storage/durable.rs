//! Files whose bytes are on the disk before the store says that a commit succeeded.
//!
//! The local store of `object_store` never calls fsync. After a power cut one of its log entries could exist and be
//! empty. This module therefore writes bytes into a file of the scratch folder, syncs that file, gives it its name, and
//! syncs the folder of the name.
//!
//! # Open files
//! A commit writes one file per bucket and table, which is thousands of files in a large store. No file stays open
//! between being written and being synced: [`Scratch::write`] closes its file and [`Scratch::sync`] opens it again.
//! [`OPEN_FILES`] bounds the files that are synced at once, and the files of logs that are read at once, so that a commit
//! works under any usual limit of descriptors (`ulimit -n`).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::fault;
use crate::error::StoreError;

/// Numbers the files of the scratch folder, so that two threads never write to one file.
static SCRATCH: AtomicU64 = AtomicU64::new(0);

/// The most files that this module syncs at once, and the most files of logs that it reads at once.
///
/// Sixteen syncs together take hardly longer than one, because the disk writes them in one go. More would not be faster,
/// and each needs a descriptor.
pub(crate) const OPEN_FILES: usize = 16;

/// Syncs a folder, so that the names in it survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    fault::point("folder");
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::io("sync", folder))
}

/// Syncs folders, at most [`OPEN_FILES`] at once.
pub(crate) fn sync_folders(folders: &BTreeSet<PathBuf>) -> Result<(), StoreError> {
    let mut folders: Vec<&PathBuf> = folders.iter().collect();
    together(&mut folders, |folder| sync_folder(folder))
}

/// Syncs files, at most [`OPEN_FILES`] at once.
pub(crate) fn sync_files<'a>(files: impl Iterator<Item = &'a mut Scratch>) -> Result<(), StoreError> {
    let mut files: Vec<&mut Scratch> = files.collect();
    together(&mut files, |file| file.sync())
}

fn together<T: Send>(
    items: &mut [T],
    sync: impl Fn(&mut T) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let per_thread = items.len().div_ceil(OPEN_FILES).max(1);
    let sync = &sync;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks_mut(per_thread)
            .map(|items| scope.spawn(move || items.iter_mut().try_for_each(sync)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a sync does not panic"))
    })
}

/// A file of the scratch folder that gets its name later. Dropping it without a name removes it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    synced: bool,
}

impl Scratch {
    /// Writes `parts` into a new file of the scratch folder and closes it. The bytes are not synced yet.
    pub(crate) fn write<'a>(
        folder: &Path,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Scratch, StoreError> {
        fault::point("write");
        let number = SCRATCH.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(StoreError::io("write", &path))?;
        let scratch = Scratch { path, synced: false };
        for part in parts {
            fault::room(part.len())
                .and_then(|()| file.write_all(part))
                .map_err(StoreError::io("write", &scratch.path))?;
        }
        Ok(scratch)
    }

    /// The path of the bytes until they get their name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the bytes are on the disk.
    ///
    /// To sync, this opens the file again. fsync writes what the system holds of the file, whichever descriptor wrote
    /// it, and reports a failed write that no other descriptor has reported.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        if !self.synced {
            fault::point("sync");
            File::open(&self.path)
                .and_then(|file| file.sync_all())
                .map_err(StoreError::io("write", &self.path))?;
            self.synced = true;
        }
        Ok(())
    }

    /// Syncs the bytes and gives them a name, in place of the file that has the name now. The caller syncs the folder of
    /// the name.
    pub(crate) fn rename(mut self, target: &Path) -> Result<(), StoreError> {
        self.sync()?;
        fault::point("name");
        std::fs::rename(&self.path, target).map_err(StoreError::io("write", target))?;
        self.path = PathBuf::new();
        Ok(())
    }

    /// Syncs the bytes and gives them a name that no file may have yet. The caller syncs the folder of the name.
    pub(crate) fn link(mut self, target: &Path) -> Result<(), StoreError> {
        self.sync()?;
        fault::point("name");
        std::fs::hard_link(&self.path, target).map_err(StoreError::io("write", target))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // A name that was linked stays. A file that cannot be removed here is removed by the next commit.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
