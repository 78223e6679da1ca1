//! What the file system says about a file.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Seconds after which a file that is written again gets another time, on every file system: FAT counts in steps of 2 s.
const TICK: i64 = 3;

/// The identity of a file: device, inode number, size, modification time and change time (ctime).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    device: u64,
    number: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    /// The identity of a file or folder. Symbolic links are followed.
    ///
    /// # Errors
    /// Returns an error if the path does not exist or cannot be read.
    pub(crate) fn of(path: &Path) -> io::Result<FileIdentity> {
        path.metadata().map(|meta| FileIdentity::of_metadata(&meta))
    }

    /// The identity of a file, folder or symbolic link.
    ///
    /// # Errors
    /// Returns an error if the path does not exist or cannot be read.
    pub(crate) fn of_entry(path: &Path) -> io::Result<FileIdentity> {
        path.symlink_metadata()
            .map(|meta| FileIdentity::of_metadata(&meta))
    }

    fn of_metadata(meta: &Metadata) -> FileIdentity {
        FileIdentity {
            device: meta.dev(),
            number: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether nobody wrote to the file between the two looks at one path.
    ///
    /// The number of the device does not count, because it differs between hosts and can change when the file system is
    /// mounted again. The change time distinguishes files of two devices as well.
    pub(crate) fn is_same_state(&self, other: &FileIdentity) -> bool {
        FileIdentity { device: 0, ..*self } == FileIdentity { device: 0, ..*other }
    }

    /// Whether both are one file with one content. The file may have been moved or linked in between: a rename and a hard
    /// link set the change time. The size and the modification time count, because a file system gives the number of a
    /// deleted file to a new one.
    pub(crate) fn is_same_file(&self, other: &FileIdentity) -> bool {
        FileIdentity {
            changed: (0, 0),
            ..*self
        } == FileIdentity {
            changed: (0, 0),
            ..*other
        }
    }

    /// The number of bytes.
    pub(super) fn size(&self) -> u64 {
        self.bytes
    }

    /// Whether a later write must change the identity. A file that was written a moment ago can be written again within the
    /// same tick of the clock.
    pub(super) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.modified.0.max(self.changed.0) + TICK <= now
    }

    /// The inode number and the modification time, which stay when the file is renamed.
    pub(crate) fn renamed_bytes(&self) -> [u8; 24] {
        bytes_of([self.number.cast_signed(), self.modified.0, self.modified.1])
    }

    /// The bytes that hashes of inputs contain. Stores on disk have such hashes, so the bytes must stay as they are.
    pub(super) fn bytes(&self) -> [u8; 48] {
        bytes_of([
            self.bytes.cast_signed(),
            self.modified.0,
            self.modified.1,
            self.changed.0,
            self.changed.1,
            self.number.cast_signed(),
        ])
    }
}

fn bytes_of<const COUNT: usize, const BYTES: usize>(numbers: [i64; COUNT]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}
