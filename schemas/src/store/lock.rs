//! One writer at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::StoreError;

/// The store, taken for writing by this process until it is dropped.
#[derive(Debug)]
pub struct WriteLock {
    // The lock is the open file's: the system frees it when the process ends, however it ends.
    _file: File,
}

impl WriteLock {
    pub(super) fn take(path: &Path, on_wait: &mut dyn FnMut(&str)) -> Result<WriteLock, StoreError> {
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
