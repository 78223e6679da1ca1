//! Leases: readers tell `vacuum` which versions it must keep.
//!
//! Every reader of version 12 holds a shared lock on the file `_vaplan/leases/00000012`. The lock belongs to the open
//! file, so the system frees it when the process ends, however it ends.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// A lease of a version. `vacuum` keeps the version until the lease is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    /// Takes a lease of a version. Returns `None` in a store that this process may not write to: it then reads
    /// without a lease, and `vacuum` can remove files while it reads.
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
                // On a full disk the reader reads without a lease instead of failing.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(None),
                Err(error) => return Err(StoreError::io("lease", &path)(error)),
            };
            file.lock_shared().map_err(StoreError::io("lease", &path))?;
            // Between opening and locking, the last other reader may have removed the file. Then try again.
            if is_at(&file, &path) {
                return Ok(Some(Lease { file, path }));
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The last reader removes the file. If that fails, the file stays without a lock, which is harmless.
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

/// The versions that some process is reading.
///
/// # Errors
/// Returns [`StoreError::Io`] if the folder cannot be read.
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
            // The reader finished in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // The file belongs to another user, so it cannot be locked to find out whether its process still runs.
            // Count the version as held.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                held.insert(version);
                continue;
            }
            Err(error) => return Err(StoreError::io("lease", &entry.path())(error)),
        };
        if file.try_lock().is_err() {
            held.insert(version);
        } else if is_at(&file, &entry.path()) {
            // A process that was killed left the file.
            std::fs::remove_file(entry.path()).map_err(StoreError::io("remove", &entry.path()))?;
        }
    }
    Ok(held)
}
