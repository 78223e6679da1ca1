//! Spare room that `vacuum` can use on a full disk.
//!
//! `vacuum` must write its mark before it removes the first file that a version names (see [`super::vacuum`]). On a
//! full disk that write would fail. Every commit therefore makes sure that there is a file `_vaplan/spare` of 16 KiB.
//! If a write fails for lack of room, `vacuum` removes that file, writes again, and makes a new spare file at its
//! end.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Store;
use crate::error::StoreError;
use crate::storage::fault;

/// The size of the file: four blocks of 4,096 bytes. The mark needs one block.
const BYTES: usize = 16 << 10;

impl Store {
    fn spare_path(&self) -> PathBuf {
        self.own.join("spare")
    }

    /// Makes the file if it is missing. It is no error if the disk has no room for the file: the commit or `vacuum`
    /// that calls this function reports its own errors on a full disk.
    pub(super) fn keep_spare(&self) {
        let path = self.spare_path();
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == BYTES as u64) {
            return;
        }
        // The bytes have no pattern, so that a file system with compression allocates them all.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(BYTES)
        .collect();
        let written = fault::room(BYTES)
            .and_then(|()| std::fs::File::create(&path))
            .and_then(|mut file| file.write_all(&bytes));
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "no spare room");
            let _ = std::fs::remove_file(&path);
        }
    }

    /// Calls `write`. If the disk was full, removes the spare file and calls `write` once more.
    pub(super) fn with_spare<T>(&self, write: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match write() {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                if std::fs::remove_file(self.spare_path()).is_ok() {
                    fault::freed(BYTES as u64);
                }
                write()
            }
            done => done,
        }
    }
}
