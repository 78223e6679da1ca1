//! Rows that were read in another order than that of the passes, kept on disk by bucket until their pass.
//!
//! ```text
//! rows of any bucket ── buffers, one per bucket ── full: append all buffers to a temporary file ── rows of one bucket
//! ```
//!
//! The file has no name, so that the disk space is free when the process ends, however it ends.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::LabelError;

/// Number of bytes in the buffers, of all buckets together, at which they are written to the file.
const BUFFERED: usize = 8 << 20;

/// Rows by bucket.
#[derive(Debug)]
pub(super) struct Spill<T> {
    folder: PathBuf,
    file: Option<File>,
    /// Length of the file.
    length: u64,
    buffered: usize,
    buckets: Vec<BucketRows>,
    of: PhantomData<fn() -> T>,
}

#[derive(Clone, Debug, Default)]
struct BucketRows {
    /// Rows that are in the file: start and length of each piece, in order.
    pieces: Vec<(u64, u32)>,
    /// Later rows.
    buffer: Vec<u8>,
}

impl<T: Serialize + DeserializeOwned> Spill<T> {
    /// Makes an empty spill for a number of buckets. The file will be in this folder.
    pub(super) fn new(folder: &Path, buckets: u32) -> Spill<T> {
        Spill {
            folder: folder.to_owned(),
            file: None,
            length: 0,
            buffered: 0,
            buckets: vec![BucketRows::default(); buckets as usize],
            of: PhantomData,
        }
    }

    /// Adds a row of a bucket.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the file cannot be written, for example on a full disk.
    pub(super) fn push(&mut self, bucket: u32, row: &T) -> Result<(), LabelError> {
        let buffer = &mut self.buckets[bucket as usize].buffer;
        let before = buffer.len();
        postcard::to_io(row, &mut *buffer)
            .map_err(io::Error::other)
            .map_err(failed("encode rows for", &self.folder))?;
        self.buffered += buffer.len() - before;
        if self.buffered >= BUFFERED {
            self.flush().map_err(failed("write rows to", &self.folder))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.folder)?),
        };
        let mut bytes = Vec::with_capacity(self.buffered);
        for bucket in self.buckets.iter_mut().filter(|bucket| !bucket.buffer.is_empty()) {
            let length = bucket.buffer.len() as u32;
            bucket.pieces.push((self.length + bytes.len() as u64, length));
            bytes.append(&mut bucket.buffer);
        }
        file.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        self.buffered = 0;
        Ok(())
    }

    /// Returns the rows of a bucket, in the order in which they were added.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the file cannot be read.
    pub(super) fn rows(&self, bucket: u32) -> Result<Vec<T>, LabelError> {
        let own = &self.buckets[bucket as usize];
        let mut bytes = Vec::new();
        for &(start, length) in &own.pieces {
            let at = bytes.len();
            bytes.resize(at + length as usize, 0);
            let file = self.file.as_ref().expect("a piece is in the file");
            file.read_exact_at(&mut bytes[at..], start)
                .map_err(failed("read rows from", &self.folder))?;
        }
        bytes.extend_from_slice(&own.buffer);
        let mut rows = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (row, after) = postcard::take_from_bytes(rest)
                .map_err(io::Error::other)
                .map_err(failed("decode rows from", &self.folder))?;
            rows.push(row);
            rest = after;
        }
        Ok(rows)
    }
}

fn failed(action: &'static str, folder: &Path) -> impl FnOnce(io::Error) -> LabelError {
    let path = folder.to_owned();
    move |source| LabelError::Stage { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_bucket_come_back_in_order_from_file_and_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::<(u32, String)>::new(folder.path(), 3);
        assert_eq!(spill.rows(1).unwrap(), []);
        // Each row has 4 KiB, so that the buffers are written several times.
        let text = "x".repeat(4096);
        let row = |nth: u32| (nth, text.clone());
        for nth in 0..6000 {
            spill.push(nth % 2, &row(nth)).unwrap();
        }
        assert!(spill.buckets[0].pieces.len() > 1 && !spill.buckets[0].buffer.is_empty());
        for bucket in 0..2 {
            let wanted: Vec<_> = (0..6000).filter(|nth| nth % 2 == bucket).map(row).collect();
            assert!(spill.rows(bucket).unwrap() == wanted, "bucket {bucket}");
        }
        assert_eq!(spill.rows(2).unwrap(), []);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "the file has no name"
        );
    }
}
