//! A data file that is written, but has no name yet.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::RecordBatch;
use sha2::{Digest, Sha256};

use super::Store;
use super::logged::LoggedFile;
use crate::error::{StoreError, TableError};
use crate::ids::bucket_of;
use crate::parquet_file;
use crate::storage::Staged;
use crate::tables::{GeneratedLabels, Labels, Table};

/// A file of rows. `staged` is `None` if the store already has the file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: LoggedFile,
    pub(super) staged: Option<Staged>,
}

impl Written {
    /// Writes the rows of one bucket; `(bucket, buckets)` is the bucket and the number of buckets.
    pub(super) fn bucket<T: Table>(
        store: &Store,
        (bucket, buckets): (u32, u32),
        rows: &[T::Row],
    ) -> Result<Option<Written>, StoreError> {
        let mut videos: Vec<&Arc<str>> = rows.iter().filter_map(T::video).collect();
        videos.dedup_by(|a, b| Arc::ptr_eq(a, b));
        if let Some(video) = videos
            .into_iter()
            .find(|video| bucket_of(video, buckets) != bucket)
        {
            return Err(StoreError::Unwritable(TableError::Bucket {
                table: T::NAME,
                video: video.to_string(),
                bucket,
                expected: bucket_of(video, buckets),
            }));
        }
        Written::new::<T>(store, &prefix((bucket, buckets)), rows)
    }

    /// Writes the labels of one bucket.
    pub(super) fn labels(
        store: &Store,
        bucket: (u32, u32),
        labels: &GeneratedLabels,
    ) -> Result<Written, StoreError> {
        let [first, last] = &labels.range;
        let range = Some((first, last));
        Written::batch::<Labels>(
            store,
            &prefix(bucket),
            &labels.batch,
            stats(range, labels.batch.num_rows()),
        )
    }

    /// Writes rows to a file that is named by its content. Returns `None` if there are no rows.
    pub(super) fn new<T: Table>(
        store: &Store,
        prefix: &str,
        rows: &[T::Row],
    ) -> Result<Option<Written>, StoreError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let mut sorted = Vec::new();
        let rows = if rows.is_sorted_by(|a, b| T::compare(a, b).is_le()) {
            rows
        } else {
            sorted.extend_from_slice(rows);
            sorted.sort_by(T::compare);
            &sorted
        };
        let twice = rows
            .windows(2)
            .position(|pair| T::compare(&pair[0], &pair[1]).is_eq());
        if let Some(row) = twice {
            let mut key = format!("{:?}", rows[row]);
            key.truncate(key.floor_char_boundary(200));
            let (table, row) = (T::NAME, row + 1);
            return Err(StoreError::Unwritable(TableError::Duplicate { table, row, key }));
        }
        let batch = T::encode(rows);
        let height: usize = rows.iter().map(T::height).sum();
        assert_eq!(height, batch.num_rows(), "rows of {} on disk", T::NAME);
        Written::batch::<T>(store, prefix, &batch, stats(range::<T>(rows), batch.num_rows())).map(Some)
    }

    fn batch<T: Table>(
        store: &Store,
        prefix: &str,
        batch: &RecordBatch,
        stats: String,
    ) -> Result<Written, StoreError> {
        let bytes = parquet_file::encode(batch);
        let name = format!("{prefix}-{}.parquet", content(&bytes));
        let key = format!("{}/{name}", T::NAME);
        let file = LoggedFile {
            name,
            bytes: bytes.len() as u64,
            rows: batch.num_rows() as u64,
            deleted: None,
            stats: Some(stats),
        };
        let staged = store.storage.stage(&key, bytes.into())?;
        Ok(Written { file, staged })
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of the bytes.
pub(super) fn content(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(8)
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes everything");
            text
        })
}

/// The start of the name of the file of a bucket.
fn prefix((bucket, buckets): (u32, u32)) -> String {
    format!("b{bucket:04}of{buckets:04}")
}

/// The first and the last video in alphabetical order; `None` if a row has no video.
fn range<T: Table>(rows: &[T::Row]) -> Option<(&Arc<str>, &Arc<str>)> {
    // Rows of one video share its name, which is compared once.
    let mut names: Vec<&Arc<str>> = rows.iter().filter_map(T::video).collect();
    let all = names.len() == rows.len();
    names.dedup_by(|a, b| Arc::ptr_eq(a, b));
    names
        .iter()
        .min()
        .copied()
        .zip(names.iter().max().copied())
        .filter(|_| all)
}

/// Delta's statistics: the number of rows and the range of the videos, so that query engines can skip files.
fn stats(range: Option<(&Arc<str>, &Arc<str>)>, count: usize) -> String {
    // Delta truncates long strings, and the upper bound of a truncated string would have to be raised. So long names
    // get no range.
    match range.filter(|(min, max)| min.len().max(max.len()) <= 256) {
        Some((min, max)) => serde_json::json!({
            "numRecords": count,
            "minValues": {"video": min},
            "maxValues": {"video": max},
            "nullCount": {"video": 0},
        }),
        _ => serde_json::json!({ "numRecords": count }),
    }
    .to_string()
}
