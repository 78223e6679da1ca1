//! A table of exactly the files that a store version names, without the rows that are deleted of them.

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
use datafusion::object_store::path::Path as Location;
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::physical_plan::ExecutionPlan;
use url::Url;
use vaplan_schemas::store::DataFile;

/// A table of exactly these files.
pub(super) fn provider(
    schema: &SchemaRef,
    files: &[DataFile],
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    if files.is_empty() {
        return Ok(Arc::new(EmptyTable::new(schema.clone())));
    }
    if files.iter().any(|file| file.deleted.is_some()) {
        return Ok(Arc::new(Patched {
            schema: schema.clone(),
            files: files.iter().map(partitioned).collect::<Result<_, _>>()?,
            rows: files.iter().map(|file| file.rows).sum(),
        }));
    }
    let urls = files
        .iter()
        .map(|file| ListingTableUrl::try_new(url(file)?, None))
        .collect::<Result<_, _>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(schema.clone());
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// As a URL, which has no patterns: a store's folder may be called `[a]*`.
fn url(file: &DataFile) -> Result<Url, DataFusionError> {
    Url::from_file_path(&file.path).map_err(|()| {
        DataFusionError::Configuration(format!("`{}` is no absolute path", file.path.display()))
    })
}

/// A file, and which rows of it are read.
fn partitioned(file: &DataFile) -> Result<PartitionedFile, DataFusionError> {
    let location = Location::from_url_path(url(file)?.path())
        .map_err(|error| DataFusionError::ObjectStore(Box::new(error.into())))?;
    let whole = PartitionedFile::new_from_meta(ObjectMeta {
        location,
        // Files are never changed: their time says nothing.
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

/// A table of which rows were deleted: DataFusion's own listing of files knows no deletion vectors.
#[derive(Debug)]
struct Patched {
    schema: SchemaRef,
    files: Vec<PartitionedFile>,
    rows: u64,
}

#[async_trait]
impl TableProvider for Patched {
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
        // The reader takes them while it decodes, as the configuration says.
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
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_groups(groups)
            .with_statistics(Statistics::new_unknown(&self.schema).with_num_rows(rows))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        format.create_physical_plan(state, config).await
    }
}
