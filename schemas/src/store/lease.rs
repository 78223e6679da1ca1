//! Who reads which version: what `vacuum` must leave.
//!
//! `_vaplan/leases/00000012` is locked, shared, by every reader of version 12. The lock is the open file's: the system
//! frees it when the process ends, however it ends.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// A version, held against `vacuum` until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    /// Holds a version; none in a store that this process may not write to, where a reader takes what there is.
    pub(super) fn take(folder: &Path, version: u64) -> Result<Option<Lease>, StoreError> {
        let path = folder.join(format!("{version:08}"));
        loop {
            let opened = match open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(folder).and_then(|()| open(&path))
                }
                opened => opened,
            };
            let file = match opened {
                Ok(file) => file,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    ) =>
                {
                    tracing::debug!(path = %path.display(), %error, "no lease");
                    return Ok(None);
                }
                // A reader of a full disk still reads.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(None),
                Err(error) => return Err(StoreError::io("lease", &path)(error)),
            };
            file.lock_shared().map_err(StoreError::io("lease", &path))?;
            // The last reader before may have taken the file away meanwhile.
            if is_at(&file, &path) {
                return Ok(Some(Lease { file, path }));
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Who is alone takes the file away; nothing is lost where that fails.
        if self.file.try_lock().is_ok() && is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(own), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (own.dev(), own.ino()) == (there.dev(), there.ino())
}

/// The versions that someone reads.
///
/// # Errors
/// [`StoreError::Io`] where the folder cannot be read.
pub(super) fn held(folder: &Path) -> Result<BTreeSet<u64>, StoreError> {
    let mut held = BTreeSet::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(held),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        let Some(version) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let file = match File::open(entry.path()) {
            Ok(file) => file,
            // Its reader is done.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Another user's: it cannot be asked whether its process still lives.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                held.insert(version);
                continue;
            }
            Err(error) => return Err(StoreError::io("lease", &entry.path())(error)),
        };
        if file.try_lock().is_err() {
            held.insert(version);
        } else if is_at(&file, &entry.path()) {
            // Left by a process that was killed.
            std::fs::remove_file(entry.path()).map_err(StoreError::io("remove", &entry.path()))?;
        }
    }
    Ok(held)
}
