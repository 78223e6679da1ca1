//! Rows that were read in another order than that of the passes, kept on disk by bucket until their pass.

use std::io;
use std::marker::PhantomData;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vaplan_schemas::spill::SpilledBytes;

use crate::error::LabelError;

/// Rows by bucket.
#[derive(Debug)]
pub(super) struct Spill<T> {
    rows: SpilledBytes,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Spill<T> {
    /// Makes an empty spill for a number of buckets. Its file will be in this folder.
    pub(super) fn new(folder: &Path, buckets: u32) -> Spill<T> {
        Spill {
            rows: SpilledBytes::new(folder, buckets),
            of: PhantomData,
        }
    }

    /// Adds a row of a bucket.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the file cannot be written, for example on a full disk.
    pub(super) fn push(&mut self, bucket: u32, row: &T) -> Result<(), LabelError> {
        let row = postcard::to_stdvec(row)
            .map_err(io::Error::other)
            .map_err(failed("encode rows for", self.rows.folder()))?;
        let written = self.rows.push(bucket, &row);
        written.map_err(failed("write rows to", self.rows.folder()))
    }

    /// Returns the rows of a bucket, in the order in which they were added.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the file cannot be read.
    pub(super) fn rows(&self, bucket: u32) -> Result<Vec<T>, LabelError> {
        let folder = self.rows.folder();
        let bytes = self
            .rows
            .bytes(bucket)
            .map_err(failed("read rows from", folder))?;
        let mut rows = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (row, after) = postcard::take_from_bytes(rest)
                .map_err(io::Error::other)
                .map_err(failed("decode rows from", folder))?;
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
    fn rows_of_a_bucket_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::<(u32, String)>::new(folder.path(), 3);
        assert_eq!(spill.rows(1).unwrap(), []);
        let row = |nth: u32| (nth, "x".repeat(nth as usize % 7));
        for nth in 0..100 {
            spill.push(nth % 2, &row(nth)).unwrap();
        }
        for bucket in 0..2 {
            let wanted: Vec<_> = (0..100).filter(|nth| nth % 2 == bucket).map(row).collect();
            assert_eq!(spill.rows(bucket).unwrap(), wanted, "bucket {bucket}");
        }
        assert_eq!(spill.rows(2).unwrap(), []);
    }
}
