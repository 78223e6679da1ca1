//! One Delta table: its log read and written through `deltalake`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake::kernel::{Action, Add, EagerSnapshot, MetadataExt, Protocol, Remove, StructType, Transaction};
use deltalake::logstore::LogStoreRef;
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTableBuilder, DeltaTableError};
use object_store::ObjectStore;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::deleted::Deleted;
use crate::error::StoreError;
use crate::tables;

/// Shared by all stores of the process, and never dropped, which an async caller could not do.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("vaplan-store")
        .enable_all()
        .build()
});

/// Folder of a table.
#[derive(Clone, Debug)]
pub(super) struct DeltaFolder {
    pub(super) table: String,
    pub(super) path: PathBuf,
    files: Arc<dyn ObjectStore>,
}

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

/// Who commits, and for which store version.
pub(super) struct Stamp<'a> {
    /// Hash of the inputs.
    pub(super) inputs: &'a str,
    pub(super) version: u64,
    pub(super) command: &'a str,
}

impl DeltaFolder {
    pub(super) fn new(root: &Path, table: &str, files: Arc<dyn ObjectStore>) -> DeltaFolder {
        DeltaFolder {
            table: table.to_owned(),
            path: root.join(table),
            files,
        }
    }

    /// Last version in the log, found by listing it; none: there is no table.
    pub(super) fn latest(&self) -> Result<Option<u64>, StoreError> {
        let log = self.path.join("_delta_log");
        let entries = match std::fs::read_dir(&log) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("list", &log)(error)),
        };
        let mut latest = None;
        for entry in entries {
            let name = entry.map_err(StoreError::io("list", &log))?.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_suffix(".json"))
                .and_then(|v| v.parse().ok());
            latest = latest.max(version);
        }
        Ok(latest)
    }

    /// Data files at a version.
    pub(super) fn files(&self, version: u64) -> Result<LoggedFiles, StoreError> {
        self.wait(async {
            let log = self.log()?;
            let snapshot = EagerSnapshot::try_new(log.as_ref(), Some(version)).await?;
            logged(&snapshot)
        })
    }

    /// Makes `wanted` the files of the table, creating it where there is none; gives the version that has them.
    pub(super) fn commit(
        &self,
        schema: &SchemaRef,
        wanted: &LoggedFiles,
        stamp: &Stamp<'_>,
    ) -> Result<u64, StoreError> {
        let latest = self.latest()?;
        let properties = CommitProperties::default()
            .with_max_retries(0)
            // Old log entries are what time travel reads.
            .with_cleanup_expired_logs(Some(false))
            .with_metadata([("vaplan".to_owned(), serde_json::json!({
                "version": stamp.version, "command": stamp.command,
            }))])
            .with_application_transaction(Transaction::new(
                format!("vaplan-{}", stamp.inputs),
                i64::try_from(stamp.version).unwrap_or(i64::MAX),
            ));
        self.wait(async {
            let log = self.log()?;
            let now = chrono::Utc::now().timestamp_millis();
            let Some(latest) = latest else {
                let columns: StructType = (&tables::plain(schema))
                    .try_into_kernel()
                    .map_err(DeltaTableError::from)?;
                let table = CreateBuilder::new()
                    .with_log_store(log)
                    .with_table_name(&self.table)
                    .with_columns(columns.fields().cloned())
                    .with_configuration([("delta.enableExpiredLogCleanup", Some("false"))])
                    .with_actions(wanted.values().map(|file| Action::Add(file.add(now))))
                    .with_commit_properties(properties)
                    .await?;
                return Ok(table.version().unwrap_or_default());
            };
            let snapshot = EagerSnapshot::try_new(log.as_ref(), Some(latest)).await?;
            let found = logged(&snapshot)?;
            // Which rows of a file are gone belongs to it: where that changes, the file goes and comes again.
            let same = |file: &LoggedFile, files: &LoggedFiles| {
                let other = files.get(&file.name);
                other.is_some_and(|other| other.deleted == file.deleted)
            };
            let gone = found.values().filter(|file| !same(file, wanted));
            let new: Vec<&LoggedFile> = wanted.values().filter(|file| !same(file, &found)).collect();
            let mut actions = Vec::new();
            if new.iter().any(|file| file.deleted.is_some()) {
                actions.extend(allow_deleted(&snapshot)?);
            }
            actions.extend(gone.map(|file| Action::Remove(file.remove(now))));
            actions.extend(new.iter().map(|file| Action::Add(file.add(now))));
            if actions.is_empty() {
                return Ok(latest);
            }
            let operation = DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            };
            let commit = CommitBuilder::from(properties)
                .with_actions(actions)
                .build(Some(&snapshot as &dyn TableReference), log, operation)
                .await?;
            Ok(commit.version())
        })
    }

    fn log(&self) -> Result<LogStoreRef, DeltaTableError> {
        let url = Url::from_directory_path(&self.path)
            .map_err(|()| DeltaTableError::InvalidTableLocation(self.path.display().to_string()))?;
        DeltaTableBuilder::from_url(url.clone())?
            .with_storage_backend(self.files.clone(), url)
            .build_storage()
    }

    /// Runs to the end on a thread of its own, so that async callers may call too.
    fn wait<T: Send>(
        &self,
        work: impl Future<Output = Result<T, DeltaTableError>> + Send,
    ) -> Result<T, StoreError> {
        let runtime = RUNTIME.as_ref().map_err(|error| StoreError::Io {
            action: "start threads to read",
            path: self.path.clone(),
            source: io::Error::new(error.kind(), error.to_string()),
        })?;
        let result = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join());
        let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.map_err(|error| {
            file_error(&error).unwrap_or_else(|| StoreError::Delta {
                table: self.table.clone(),
                path: self.path.clone(),
                source: Box::new(error),
            })
        })
    }
}

/// The failed file at the root of an error, where it is ours or a plain one: full disk, no permission.
fn file_error(error: &DeltaTableError) -> Option<StoreError> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(StoreError::Io { action, path, source }) = error.downcast_ref::<StoreError>() {
            // `io::Error` is not `Clone`: the number, where there is one, says all.
            let source = match source.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::new(source.kind(), source.to_string()),
            };
            return Some(StoreError::Io {
                action,
                path: path.clone(),
                source,
            });
        }
        cause = error.source();
    }
    None
}

/// What a table's log must say before its first deletion vector; nothing where it is said.
///
/// Delta's protocol: reader 3 and writer 7 with the feature `deletionVectors`, and the property that lets writers
/// make vectors. A table that never had one stays readable by readers that know no vectors.
fn allow_deleted(snapshot: &EagerSnapshot) -> Result<Vec<Action>, DeltaTableError> {
    const FEATURE: &str = "deletionVectors";
    const PROPERTY: &str = "delta.enableDeletionVectors";
    let mut actions = Vec::new();
    let protocol = serde_json::to_value(snapshot.protocol())?;
    let listed = |field: &str| -> Vec<String> {
        let features = protocol[field].as_array().into_iter().flatten();
        features
            .filter_map(|feature| feature.as_str().map(str::to_owned))
            .collect()
    };
    let (mut reader, mut writer) = (listed("readerFeatures"), listed("writerFeatures"));
    if !reader.iter().any(|feature| feature == FEATURE) {
        reader.push(FEATURE.to_owned());
        // What version 2 stood for; of its two features our tables use neither, and deltalake knows this one.
        if !writer.iter().any(|feature| feature == "appendOnly") {
            writer.push("appendOnly".to_owned());
        }
        writer.push(FEATURE.to_owned());
        let raised: Protocol = serde_json::from_value(serde_json::json!({
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": reader,
            "writerFeatures": writer,
        }))?;
        actions.push(Action::Protocol(raised));
    }
    let metadata = snapshot.metadata();
    if metadata.configuration().get(PROPERTY).map(String::as_str) != Some("true") {
        let metadata = metadata
            .clone()
            .add_config_key(PROPERTY.to_owned(), "true".to_owned())?;
        actions.push(Action::Metadata(metadata));
    }
    Ok(actions)
}

fn logged(snapshot: &EagerSnapshot) -> Result<LoggedFiles, DeltaTableError> {
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

    /// Rows that are in the table.
    pub(super) fn live(&self) -> u64 {
        let gone = self.deleted.as_ref().map_or(0, Deleted::len);
        self.rows.saturating_sub(gone)
    }

    /// Takes rows of it out of the table.
    pub(super) fn delete(&mut self, gone: impl IntoIterator<Item = std::ops::Range<u64>>) {
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

    fn add(&self, now: i64) -> Add {
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

    fn remove(&self, now: i64) -> Remove {
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
