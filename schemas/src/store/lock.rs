//! One writer at a time: of a store, or of any other folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::StoreError;

/// A store or folder, taken for writing by this process until it is dropped.
#[derive(Debug)]
pub struct WriteLock {
    // The lock is the open file's: the system frees it when the process ends, however it ends.
    _file: File,
}

impl WriteLock {
    /// Takes the lock of this file, which is made where there is none; waits while another process has it, and says so
    /// once through `on_wait`.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the file cannot be made or locked.
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
        // Who holds it, for those who wait; that it may not last is no harm.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "process {}", std::process::id()))
            .map_err(failed())?;
        Ok(WriteLock { _file: file })
    }
}
