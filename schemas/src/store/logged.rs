//! A data file as a Delta log describes it.

use std::collections::BTreeMap;
use std::ops::Range;

use deltalake::DeltaTableError;
use deltalake::kernel::{Add, EagerSnapshot, Remove};

use super::deleted::Deleted;

/// A data file as the log describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoggedFile {
    /// The file name within the folder of the table.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// The number of rows in the file, including deleted rows.
    pub(super) rows: u64,
    /// The rows of the file that are no longer in the table.
    pub(super) deleted: Option<Deleted>,
    /// The statistics, in Delta's JSON.
    pub(super) stats: Option<String>,
}

/// Data files by name.
pub(super) type LoggedFiles = BTreeMap<String, LoggedFile>;

/// The rows that a file holds, according to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// The rows of one bucket. A table without buckets counts as bucket 0.
    Bucket(u32),
    Patch,
    /// Rows of one or more versions of an append-only table. They stay in their file.
    Fixed,
}

impl Home {
    pub(super) fn of(file: &LoggedFile) -> Home {
        match file.bucket() {
            Some((bucket, _)) => Home::Bucket(bucket),
            None if is_patch(&file.name) => Home::Patch,
            None if file.name.starts_with("all-") => Home::Bucket(0),
            None => Home::Fixed,
        }
    }
}

/// The data files that a log names.
pub(super) fn logged(snapshot: &EagerSnapshot) -> Result<LoggedFiles, DeltaTableError> {
    let file = |view: deltalake::kernel::LogicalFileView| {
        let name = view.path().into_owned();
        let deleted = match view.deletion_vector_descriptor() {
            Some(descriptor) => Deleted::read(&descriptor)
                .map_err(|problem| DeltaTableError::Generic(format!("`{name}`: {problem}")))?,
            None => None,
        };
        let file = LoggedFile {
            name: name.clone(),
            bytes: u64::try_from(view.size()).unwrap_or_default(),
            rows: view.num_records().unwrap_or_default() as u64,
            deleted,
            stats: view.stats(),
        };
        Ok((name, file))
    };
    snapshot.log_data().iter().map(file).collect()
}

impl LoggedFile {
    /// The bucket in the file name, and the number of buckets, as in `b0003of0016-0123456789abcdef.parquet`.
    pub(super) fn bucket(&self) -> Option<(u32, u32)> {
        bucket(&self.name)
    }

    /// The first and last store version in the name of a file of an append-only table.
    pub(super) fn versions(&self) -> Option<(u64, u64)> {
        versions(&self.name)
    }

    /// The number of rows that are in the table.
    pub(super) fn live(&self) -> u64 {
        let gone = self.deleted.as_ref().map_or(0, Deleted::len);
        self.rows.saturating_sub(gone)
    }

    /// Deletes rows of the file.
    pub(super) fn delete(&mut self, gone: impl IntoIterator<Item = Range<u64>>) {
        self.deleted = Deleted::with(self.deleted.as_ref(), gone);
    }

    /// The first and last video, according to the statistics.
    pub(super) fn videos(&self) -> Option<(String, String)> {
        let stats: serde_json::Value = serde_json::from_str(self.stats.as_ref()?).ok()?;
        let video = |end: &str| Some(stats.get(end)?.get("video")?.as_str()?.to_owned());
        Some((video("minValues")?, video("maxValues")?))
    }

    /// The statistics for a file with deleted rows. Their bounds are wide, because they still count the deleted rows.
    fn wide_stats(&self) -> Option<String> {
        let stats = self.stats.as_ref()?;
        let mut parsed = serde_json::from_str::<serde_json::Value>(stats).ok()?;
        let fields = parsed.as_object_mut()?;
        fields.insert("tightBounds".to_owned(), self.deleted.is_none().into());
        Some(parsed.to_string())
    }

    /// The statistics as the log has them.
    pub(super) fn logged_stats(&self) -> Option<String> {
        match &self.deleted {
            Some(_) => self.wide_stats(),
            None => self.stats.clone(),
        }
    }

    pub(super) fn add(&self, now: i64) -> Add {
        let bucket = self
            .bucket()
            .map(|(bucket, _)| [("bucket".to_owned(), Some(bucket.to_string()))].into());
        Add {
            path: self.name.clone(),
            size: i64::try_from(self.bytes).unwrap_or(i64::MAX),
            modification_time: now,
            data_change: true,
            stats: self.logged_stats(),
            tags: bucket,
            deletion_vector: self.deleted.as_ref().map(Deleted::descriptor),
            ..Add::default()
        }
    }

    pub(super) fn remove(&self, now: i64) -> Remove {
        Remove {
            path: self.name.clone(),
            data_change: true,
            deletion_timestamp: Some(now),
            extended_file_metadata: Some(true),
            partition_values: Some(Default::default()),
            size: i64::try_from(self.bytes).ok(),
            deletion_vector: self.deleted.as_ref().map(Deleted::descriptor),
            ..Remove::default()
        }
    }
}

/// The bucket and the number of buckets in a file name.
pub(super) fn bucket(name: &str) -> Option<(u32, u32)> {
    let (bucket, rest) = name.strip_prefix('b')?.split_once("of")?;
    let (buckets, _) = rest.split_once('-')?;
    let (bucket, buckets): (u32, u32) = (bucket.parse().ok()?, buckets.parse().ok()?);
    (buckets.is_power_of_two() && bucket < buckets).then_some((bucket, buckets))
}

/// Returns whether the name is that of a patch file, as in `p00000012-0123456789abcdef.parquet`.
pub(super) fn is_patch(name: &str) -> bool {
    name.starts_with('p')
}

/// The first and last store version in the name of a file of an append-only table:
/// `v00000007-0123456789abcdef.parquet` for one version, `v00000007to00000009-0123456789abcdef.parquet` for several.
pub(super) fn versions(name: &str) -> Option<(u64, u64)> {
    let (span, _) = name.strip_prefix('v')?.split_once('-')?;
    match span.split_once("to") {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => span.parse().ok().map(|version| (version, version)),
    }
}
