//! The write lock: a store, or any other folder, has one writer at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::object_lease::ObjectLease;
use crate::error::StoreError;

/// The write lock of a store or folder. This process holds the lock until the value is dropped.
#[derive(Debug)]
pub struct WriteLock(Held);

#[derive(Debug)]
enum Held {
    /// The lock belongs to the open file, so the system frees it when the process ends, however it ends.
    File { _file: File },
    /// The lease ends if this process does not renew it.
    Lease(ObjectLease),
}

impl WriteLock {
    /// Takes the lock of this file, and creates the file if it is missing. If another process holds the lock, this
    /// calls `on_wait` once with the text in the file and waits.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the file cannot be created or locked.
    pub fn take(path: &Path, on_wait: &mut dyn FnMut(&str)) -> Result<WriteLock, StoreError> {
        let failed = || StoreError::io("lock", path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed())?;
                on_wait(holder.trim());
                file.lock().map_err(failed())?;
            }
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
        // Write the process id for processes that wait. The text need not be synced, because no one depends on it
        // after a crash.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "process {}", std::process::id()))
            .map_err(failed())?;
        Ok(WriteLock(Held::File { _file: file }))
    }

    pub(crate) fn of_lease(lease: ObjectLease) -> WriteLock {
        WriteLock(Held::Lease(lease))
    }

    /// Returns an error if another process may write now, because this process could not renew its lease in time.
    ///
    /// # Errors
    /// Returns [`StoreError::LeaseLost`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &self.0 {
            Held::File { .. } => Ok(()),
            Held::Lease(lease) => lease.check(),
        }
    }
}
