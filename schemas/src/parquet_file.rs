//! Parquet files: encoding to bytes, and reading with every panic contained.
//!
//! The parquet crate can panic on a damaged file (18 of 40,000 mutants did, DEPENDENCIES.md), so every read goes
//! through [`contain`].

use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

// The name that callers outside this crate used before `contain` had a module of its own.
pub use crate::contain::contain;
use crate::error::StoreError;

/// Rows decoded at once; a file of more is put together from several batches.
const MOST_ROWS: usize = 1 << 20;

/// A batch as the bytes of a Parquet file; the same bytes for the same batch.
pub(crate) fn encode(batch: &RecordBatch) -> Vec<u8> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(MOST_ROWS))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_created_by(format!("vaplan {}", env!("CARGO_PKG_VERSION")));
    // Hardly a score is there twice: a dictionary of them is work for nothing.
    for column in [&["cosine"][..], &["score"], &["why", "loss"]] {
        let path = column
            .iter()
            .map(|part| (*part).to_owned())
            .collect::<Vec<String>>();
        properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), false);
    }
    // What engines skip by; of the rest every file holds nearly all values.
    for column in ["video", "version"] {
        let column = ColumnPath::from(column);
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::Chunk);
    }
    // Without arrow's own schema beside it, others read plain text where we hold dictionaries.
    let options = ArrowWriterOptions::new()
        .with_properties(properties.build())
        .with_skip_arrow_metadata(true);
    let written =
        ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options).and_then(|mut writer| {
            writer.write(batch)?;
            writer.into_inner()
        });
    written.expect("a batch of a table's own schema goes into memory")
}

/// A file in memory, its footer read.
pub(crate) struct Opened {
    path: PathBuf,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
}

impl Opened {
    /// Reads a file whose columns are wanted in the types of `schema`, where they allow.
    ///
    /// # Errors
    /// [`StoreError::Io`] where it cannot be opened, [`StoreError::File`] where its footer does not decode.
    pub(crate) fn open(path: &Path, schema: &SchemaRef) -> Result<Opened, StoreError> {
        // As bytes in memory: from a file, the crate allocates whatever a damaged footer says.
        let bytes = Bytes::from(std::fs::read(path).map_err(StoreError::io("read", path))?);
        let load = || {
            let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
            match ArrowReaderMetadata::load(&bytes, options.clone().with_schema(schema.clone())) {
                Ok(metadata) => Ok(metadata),
                // Other columns than declared: decoding says which.
                Err(_) => ArrowReaderMetadata::load(&bytes, options),
            }
        };
        let metadata = contained(path, load)?;
        let path = path.to_owned();
        Ok(Opened {
            path,
            bytes,
            metadata,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Rows, as the footer says.
    pub(crate) fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// The rows of these runs, or all, as one batch of the columns of these names, or all.
    ///
    /// # Errors
    /// [`StoreError::File`] where it does not decode.
    pub(crate) fn read(
        &self,
        columns: Option<&[&str]>,
        rows: Option<&[Range<usize>]>,
    ) -> Result<RecordBatch, StoreError> {
        let read = || {
            let mut builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone());
            let mut wanted = self.rows();
            if let Some(columns) = columns {
                let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
                builder = builder.with_projection(mask);
            }
            if let Some(runs) = rows {
                wanted = runs.iter().map(Range::len).sum();
                let selection = RowSelection::from_consecutive_ranges(runs.iter().cloned(), self.rows());
                builder = builder.with_row_selection(selection);
            }
            let reader = builder.with_batch_size(wanted.clamp(1, MOST_ROWS)).build()?;
            let found = reader.schema();
            let batches = reader.collect::<Result<Vec<_>, _>>()?;
            match <[RecordBatch; 1]>::try_from(batches) {
                Ok([batch]) => Ok(batch),
                Err(batches) => concat_batches(&found, &batches),
            }
        };
        contained(&self.path, read)
    }
}

/// Runs `work` on a file; its panic or error is one of the file.
fn contained<T, E: std::fmt::Display>(
    path: &Path,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, StoreError> {
    let damaged = |problem: String| StoreError::File {
        path: path.to_owned(),
        problem,
    };
    contain(work)
        .map_err(damaged)?
        .map_err(|error| damaged(error.to_string()))
}

/// All rows of a file as one batch, in the types of `schema` where its columns allow.
///
/// # Errors
/// [`StoreError::Io`] where it cannot be opened, [`StoreError::File`] where it does not decode.
pub(crate) fn read(path: &Path, schema: &SchemaRef) -> Result<RecordBatch, StoreError> {
    Opened::open(path, schema)?.read(None, None)
}
