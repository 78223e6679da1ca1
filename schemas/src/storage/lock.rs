//! The write lock: a store, or any other folder, has one writer at a time.
//!
//! A process that commits again and again would take a plain lock again before another process wakes up. A process therefore
//! first takes the lock of a second file, the queue, and keeps it until it has the write lock. A writer that comes back must
//! then wait in the queue behind the process that waits for the write lock.

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
        let mut file = open(path).map_err(failed())?;
        let mut name = path.as_os_str().to_owned();
        name.push(".queue");
        let queue = open(Path::new(&name)).map_err(StoreError::io("lock", Path::new(&name)))?;
        let mut told = false;
        for waited in [&queue, &file] {
            match waited.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        let mut holder = String::new();
                        (&file).read_to_string(&mut holder).map_err(failed())?;
                        on_wait(holder.trim());
                    }
                    waited.lock().map_err(failed())?;
                }
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
        }
        // The next process may now wait for the write lock.
        drop(queue);
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

    /// Whether no other process had the right to write since the look that this lock was taken with.
    pub(crate) fn is_free_since_look(&self) -> bool {
        match &self.0 {
            Held::File { .. } => false,
            Held::Lease(lease) => lease.is_free_since_look(),
        }
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

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::Duration;

    use super::WriteLock;

    #[test]
    fn a_writer_that_comes_back_at_once_does_not_starve_one_that_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (busy, ended) = (AtomicU32::new(0), AtomicBool::new(false));
        let take = || WriteLock::take(&path, &mut |_| ()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let lock = take();
                    busy.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                    drop(lock);
                }
            });
            let mut most = 0;
            for _ in 0..40 {
                let before = busy.load(Ordering::Relaxed);
                drop(take());
                most = most.max(busy.load(Ordering::Relaxed) - before);
                std::thread::sleep(Duration::from_millis(1));
            }
            ended.store(true, Ordering::Relaxed);
            // The writer can take the lock once before the other thread is in the queue, and count it late.
            assert!(
                most <= 3,
                "the busy writer had {most} turns while the other one waited"
            );
        });
    }
}
