//! The Delta log of one table: which files it holds at a version, and the commit that changes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, StructType, Transaction};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use tokio::runtime::Runtime;
use url::Url;

use super::durable::DurableFileSystem;
use super::snapshot::DataFile;
use crate::error::StoreError;
use crate::tables;

/// One table of a store.
#[derive(Clone, Debug)]
pub(super) struct DeltaFolder {
    table: String,
    root: PathBuf,
}

/// A table at a Delta version.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) files: Vec<DataFile>,
}

/// A file that a commit wants in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedFile {
    /// Within the folder of the table.
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// Least and greatest video, where rows have one: engines prune by it.
    pub(super) videos: Option<(String, String)>,
}

impl DeltaFolder {
    pub(super) fn new(table: &str, root: &Path) -> DeltaFolder {
        DeltaFolder {
            table: table.to_owned(),
            root: root.to_owned(),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.table)
    }

    /// Has it a first commit?
    pub(super) fn exists(&self) -> bool {
        self.path().join("_delta_log/00000000000000000000.json").exists()
    }

    fn failed(&self) -> impl FnOnce(DeltaTableError) -> StoreError {
        let (table, path) = (self.table.clone(), self.root.clone());
        move |source| StoreError::Delta {
            table,
            path,
            source: Box::new(source),
        }
    }

    fn builder(&self) -> Result<DeltaTableBuilder, StoreError> {
        let path = self.path();
        let url = Url::from_directory_path(&path).map_err(|()| StoreError::Io {
            action: "name as a URL",
            path,
            source: std::io::Error::other("it is not absolute"),
        })?;
        let storage = Arc::new(DurableFileSystem::new());
        Ok(DeltaTableBuilder::from_url(url.clone())
            .map_err(self.failed())?
            .with_storage_backend(storage, url))
    }

    /// The files of a Delta version, or of the latest.
    pub(super) fn load(&self, runtime: &Runtime, version: Option<u64>) -> Result<Loaded, StoreError> {
        let mut builder = self.builder()?;
        if let Some(version) = version {
            builder = builder.with_version(version);
        }
        let table = runtime.block_on(builder.load()).map_err(self.failed())?;
        self.loaded(&table)
    }

    fn loaded(&self, table: &DeltaTable) -> Result<Loaded, StoreError> {
        let state = table.snapshot().map_err(self.failed())?;
        let folder = self.path();
        let mut files: Vec<DataFile> = state
            .log_data()
            .iter()
            .map(|file| DataFile {
                path: folder.join(&*file.path()),
                bytes: u64::try_from(file.size()).unwrap_or(0),
                rows: file.num_records().unwrap_or(0) as u64,
            })
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Loaded { files })
    }

    /// Makes the table hold exactly these files, whatever an unfinished run left in its latest version; the Delta
    /// version that does. Where it holds them already, nothing is committed: a repeated commit is the same commit.
    pub(super) fn hold(
        &self,
        runtime: &Runtime,
        schema: &SchemaRef,
        wanted: &[WantedFile],
        transaction: &Transaction,
    ) -> Result<u64, StoreError> {
        let work = async {
            let table = self.open_or_create(schema).await?;
            let state = table.snapshot().map_err(self.failed())?;
            let mut missing: BTreeMap<&str, &WantedFile> =
                wanted.iter().map(|file| (file.name.as_str(), file)).collect();
            let now = chrono::Utc::now().timestamp_millis();
            let mut actions = Vec::new();
            for file in state.log_data().iter() {
                if missing.remove(&*file.path()).is_none() {
                    actions.push(Action::Remove(file.remove_action(true)));
                }
            }
            actions.extend(missing.into_values().map(|file| Action::Add(file.add(now))));
            if actions.is_empty() {
                return Ok(state.version() as u64);
            }
            let operation = DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            };
            // Another writer's commit is an error, not a reason to try again: the store has one writer.
            let properties = CommitProperties::default()
                .with_max_retries(0)
                .with_application_transaction(transaction.clone());
            let committed = CommitBuilder::from(properties)
                .with_actions(actions)
                .build(Some(state), table.log_store(), operation)
                .await
                .map_err(self.failed())?;
            Ok(committed.version() as u64)
        };
        runtime.block_on(work)
    }

    async fn open_or_create(&self, schema: &SchemaRef) -> Result<DeltaTable, StoreError> {
        if self.exists() {
            return self.builder()?.load().await.map_err(self.failed());
        }
        let schema: StructType = (&tables::plain(schema))
            .try_into_kernel()
            .map_err(|error: arrow::error::ArrowError| self.failed()(DeltaTableError::from(error)))?;
        let log_store = self.builder()?.build_storage().map_err(self.failed())?;
        CreateBuilder::new()
            .with_log_store(log_store)
            .with_table_name(&self.table)
            .with_columns(schema.fields().cloned())
            .await
            .map_err(self.failed())
    }
}

impl WantedFile {
    fn add(&self, now: i64) -> Add {
        let stats = match &self.videos {
            Some((least, greatest)) => serde_json::json!({
                "numRecords": self.rows,
                "minValues": {"video": least},
                "maxValues": {"video": greatest},
            }),
            None => serde_json::json!({"numRecords": self.rows}),
        };
        Add {
            path: self.name.clone(),
            size: self.bytes as i64,
            modification_time: now,
            data_change: true,
            stats: Some(stats.to_string()),
            ..Add::default()
        }
    }
}
