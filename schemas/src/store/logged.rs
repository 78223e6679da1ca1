//! A data file as a Delta log has it.

use std::collections::BTreeMap;
use std::ops::Range;

use deltalake::DeltaTableError;
use deltalake::kernel::{Add, EagerSnapshot, Remove};

use super::deleted::Deleted;

/// A data file as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoggedFile {
    /// Within the folder of the table.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Rows in the file, deleted ones too.
    pub(super) rows: u64,
    /// Rows of it that are no longer in the table.
    pub(super) deleted: Option<Deleted>,
    /// Statistics in Delta's JSON.
    pub(super) stats: Option<String>,
}

/// Data files by name.
pub(super) type LoggedFiles = BTreeMap<String, LoggedFile>;

/// What a file holds, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Rows of one bucket, or all of a table without buckets.
    Bucket(u32),
    Patch,
    /// Rows that stay where they are: of one version of an append-only table.
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

/// The data files that a log says.
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
    /// Hash bucket that the name says, and of how many, as in `b0003of0016-0123456789abcdef.parquet`.
    pub(super) fn bucket(&self) -> Option<(u32, u32)> {
        bucket(&self.name)
    }

    /// First and last store version of whose rows it is, of an append-only table.
    pub(super) fn versions(&self) -> Option<(u64, u64)> {
        versions(&self.name)
    }

    /// Rows that are in the table.
    pub(super) fn live(&self) -> u64 {
        let gone = self.deleted.as_ref().map_or(0, Deleted::len);
        self.rows.saturating_sub(gone)
    }

    /// Takes rows of it out of the table.
    pub(super) fn delete(&mut self, gone: impl IntoIterator<Item = Range<u64>>) {
        self.deleted = Deleted::with(self.deleted.as_ref(), gone);
    }

    /// First and last video, as the statistics say.
    pub(super) fn videos(&self) -> Option<(String, String)> {
        let stats: serde_json::Value = serde_json::from_str(self.stats.as_ref()?).ok()?;
        let video = |end: &str| Some(stats.get(end)?.get("video")?.as_str()?.to_owned());
        Some((video("minValues")?, video("maxValues")?))
    }

    /// Statistics as the log is to have them: bounds count rows that are gone too.
    fn wide_stats(&self) -> Option<String> {
        let stats = self.stats.as_ref()?;
        let mut parsed = serde_json::from_str::<serde_json::Value>(stats).ok()?;
        let fields = parsed.as_object_mut()?;
        fields.insert("tightBounds".to_owned(), self.deleted.is_none().into());
        Some(parsed.to_string())
    }

    pub(super) fn add(&self, now: i64) -> Add {
        let bucket = self
            .bucket()
            .map(|(bucket, _)| [("bucket".to_owned(), Some(bucket.to_string()))].into());
        let stats = match &self.deleted {
            Some(_) => self.wide_stats(),
            None => self.stats.clone(),
        };
        Add {
            path: self.name.clone(),
            size: i64::try_from(self.bytes).unwrap_or(i64::MAX),
            modification_time: now,
            data_change: true,
            stats,
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

/// Bucket and number of buckets in the name of a file.
pub(super) fn bucket(name: &str) -> Option<(u32, u32)> {
    let (bucket, rest) = name.strip_prefix('b')?.split_once("of")?;
    let (buckets, _) = rest.split_once('-')?;
    let (bucket, buckets): (u32, u32) = (bucket.parse().ok()?, buckets.parse().ok()?);
    (buckets.is_power_of_two() && bucket < buckets).then_some((bucket, buckets))
}

/// Does the name of a file say that it is of a patch, as in `p00000012-0123456789abcdef.parquet`?
pub(super) fn is_patch(name: &str) -> bool {
    name.starts_with('p')
}

/// First and last store version in the name of a file of an append-only table: `v00000007-0123456789abcdef.parquet`,
/// or of several, `v00000007to00000009-0123456789abcdef.parquet`.
pub(super) fn versions(name: &str) -> Option<(u64, u64)> {
    let (span, _) = name.strip_prefix('v')?.split_once('-')?;
    match span.split_once("to") {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => span.parse().ok().map(|version| (version, version)),
    }
}
