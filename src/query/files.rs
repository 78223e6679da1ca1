//! SQL tables that read exactly the files that a store version names, without the deleted rows of these files.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::datasource::TableType;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl, PartitionedFile,
};
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::ObjectMeta;
use datafusion::object_store::limit::LimitStore;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path as ObjectKey;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use url::Url;
use vaplan_schemas::store::{DataFile, Store};

/// The largest number of data files that a query holds open at once, so that a store of thousands of files needs few
/// descriptors.
const OPEN_FILES: usize = 16;

/// Makes the object store of a store's data files available to SQL.
///
/// Keys are paths below the store's folder or URL, so that they hold the store's own names only. In the object store
/// of the whole file system, keys would hold the names of the user's folders, and that object store refuses `..` and
/// decodes `%20` in them.
pub(super) fn register(context: &SessionContext, store: &Store) -> Result<(), DataFusionError> {
    let url = files_url();
    if store.is_remote() {
        context.register_object_store(url.as_ref(), store.objects());
        return Ok(());
    }
    let files = LocalFileSystem::new_with_prefix(store.root())
        .map_err(|error| DataFusionError::ObjectStore(Box::new(error)))?;
    context.register_object_store(url.as_ref(), Arc::new(LimitStore::new(files, OPEN_FILES)));
    Ok(())
}

/// The URL that stands for the store's folder.
fn files_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse("vaplan://store").expect("the URL is well formed")
}

/// Makes a table of exactly `files`, which are data files of the store in folder `root`, without their deleted rows.
pub(super) fn provider(
    root: &Path,
    schema: &SchemaRef,
    files: &[DataFile],
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    if files.is_empty() {
        return Ok(Arc::new(EmptyTable::new(schema.clone())));
    }
    if files.iter().any(|file| file.deleted.is_some()) {
        let files_of = files.iter().map(|file| partitioned(root, file));
        return Ok(Arc::new(PatchedTable {
            schema: schema.clone(),
            files: files_of.collect::<Result<_, _>>()?,
            rows: files.iter().map(|file| file.rows).sum(),
        }));
    }
    let urls = files
        .iter()
        .map(|file| ListingTableUrl::try_new(url(&key(root, file)?)?, None))
        .collect::<Result<_, _>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(schema.clone());
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// The key of a data file: its path below the store's folder.
fn key(root: &Path, file: &DataFile) -> Result<ObjectKey, DataFusionError> {
    let outside = || {
        let (file, root) = (file.path.display(), root.display());
        DataFusionError::Configuration(format!("data file `{file}` is not in the store `{root}`"))
    };
    let below = file.path.strip_prefix(root).map_err(|_| outside())?;
    let names: Option<Vec<&str>> = below.iter().map(|name| name.to_str()).collect();
    Ok(ObjectKey::from_iter(names.ok_or_else(outside)?))
}

/// The URL of a key. Unlike a file path, a URL is not read as a pattern, so a name such as `[a]*` works.
fn url(key: &ObjectKey) -> Result<Url, DataFusionError> {
    let base = files_url();
    let base: &Url = base.as_ref();
    base.join(key.as_ref())
        .map_err(|error| DataFusionError::External(Box::new(error)))
}

/// A file, with the selection of the rows that a scan reads.
fn partitioned(root: &Path, file: &DataFile) -> Result<PartitionedFile, DataFusionError> {
    let whole = PartitionedFile::new_from_meta(ObjectMeta {
        location: key(root, file)?,
        // Data files never change, so no reader needs this time.
        last_modified: Default::default(),
        size: file.bytes,
        e_tag: None,
        version: None,
    });
    let Some(deleted) = &file.deleted else {
        return Ok(whole);
    };
    let rows = file.rows + deleted.len();
    let ends = deleted.ranges();
    let starts = std::iter::once(0).chain(ends.iter().map(|gone| gone.end));
    let stops = ends.iter().map(|gone| gone.start).chain([rows]);
    let live = starts.zip(stops).map(|(from, to)| from as usize..to as usize);
    let selection = RowSelection::from_consecutive_ranges(live, rows as usize);
    Ok(whole.with_extension(ParquetRowSelection::new(selection)))
}

/// A table with deleted rows. It exists because DataFusion's `ListingTable` does not support deletion vectors.
#[derive(Debug)]
struct PatchedTable {
    schema: SchemaRef,
    files: Vec<PartitionedFile>,
    rows: u64,
}

#[async_trait]
impl TableProvider for PatchedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        // The Parquet reader applies the filters while it decodes, because the session sets `pushdown_filters`.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let format = ParquetFormat::default();
        let source = format.file_source(TableSchema::from(self.schema.clone()));
        let groups = FileGroup::new(self.files.clone()).split_files(state.config().target_partitions());
        let rows = Precision::Inexact(self.rows as usize);
        let config = FileScanConfigBuilder::new(files_url(), source)
            .with_file_groups(groups)
            .with_statistics(Statistics::new_unknown(&self.schema).with_num_rows(rows))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        format.create_physical_plan(state, config).await
    }
}
