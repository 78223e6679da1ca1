//! Parquet files: encoding to bytes, and reading with every panic contained.
//!
//! The parquet crate can panic on a damaged file (18 of 40,000 mutated files), so every read goes
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
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnPath;

// Callers outside this crate still import `contain` from this module, where it was before it had its own module.
pub use crate::contain::contain;
use crate::error::StoreError;
use crate::storage::Ranges;

/// The largest number of rows that a row group has and that is decoded at once. A larger file is decoded in several
/// batches, which are then concatenated.
const MOST_ROWS: usize = 1 << 20;

/// The largest number of rows of a data page. A reader of few rows decodes only the pages that hold these rows. A bucket
/// of `labels` has about 4,000 rows, so it has about 16 pages per column.
const PAGE_ROWS: usize = 256;

/// Encodes a batch as the bytes of a Parquet file. The same batch always gives the same bytes.
pub(crate) fn encode(batch: &RecordBatch) -> Vec<u8> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(MOST_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_created_by(format!("vaplan {}", env!("CARGO_PKG_VERSION")));
    // These columns hold almost only distinct values, so a dictionary would cost time and save no space.
    for column in [
        &["cosine", "list", "element"][..],
        &["score", "list", "element"],
        &["why", "list", "element", "loss"],
    ] {
        let path = column
            .iter()
            .map(|part| (*part).to_owned())
            .collect::<Vec<String>>();
        properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), false);
    }
    // Query engines skip row groups by the statistics of these two columns. In the other columns, every file holds
    // nearly the full range of values, so their statistics would not help.
    for column in ["video", "version"] {
        let column = ColumnPath::from(column);
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::Chunk);
    }
    // Without arrow's own schema in the file, other readers see plain text columns. With it, they would see the
    // dictionary types that this program uses in memory.
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

/// A Parquet file whose footer is decoded.
pub(crate) struct Opened {
    path: PathBuf,
    source: FileSource,
    metadata: ArrowReaderMetadata,
}

/// The bytes of a Parquet file.
enum FileSource {
    /// In memory.
    Whole(Bytes),
    /// Fetched in parts.
    Parts(Ranges),
}

impl Opened {
    /// Reads a file and its footer. Columns get the types of `schema` if the file's types allow it.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the file cannot be read, and [`StoreError::File`] if its footer does not decode.
    pub(crate) fn open(path: &Path, schema: &SchemaRef) -> Result<Opened, StoreError> {
        // Read the bytes into memory first: when it reads from a file, the crate allocates as many bytes as a damaged
        // footer claims.
        let bytes = Bytes::from(std::fs::read(path).map_err(StoreError::io("read", path))?);
        Opened::of_bytes(path, bytes, schema)
    }

    /// Like [`Opened::open`], for a file whose bytes were read. Errors name `path`.
    ///
    /// # Errors
    /// Returns [`StoreError::File`] if the footer does not decode.
    pub(crate) fn of_bytes(path: &Path, bytes: Bytes, schema: &SchemaRef) -> Result<Opened, StoreError> {
        Ok(Opened {
            path: path.to_owned(),
            metadata: load(path, &bytes, schema)?,
            source: FileSource::Whole(bytes),
        })
    }

    /// Like [`Opened::open`], for a file that is fetched in parts. Errors name `path`.
    ///
    /// # Errors
    /// Returns [`StoreError::File`] if the footer does not decode.
    pub(crate) fn of_ranges(path: &Path, ranges: Ranges, schema: &SchemaRef) -> Result<Opened, StoreError> {
        Ok(Opened {
            path: path.to_owned(),
            metadata: load(path, &ranges, schema)?,
            source: FileSource::Parts(ranges),
        })
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The columns of the file.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// The number of rows according to the footer.
    pub(crate) fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Reads rows into one batch. `columns` selects columns by name, and `rows` selects runs of rows; `None` selects
    /// all.
    ///
    /// # Errors
    /// Returns [`StoreError::File`] if the rows do not decode.
    pub(crate) fn read(
        &self,
        columns: Option<&[&str]>,
        rows: Option<&[Range<usize>]>,
    ) -> Result<RecordBatch, StoreError> {
        match &self.source {
            FileSource::Whole(bytes) => self.read_from(bytes.clone(), columns, rows),
            FileSource::Parts(ranges) => {
                // The parts of this read are dropped with it.
                let ranges = ranges.fork();
                ranges.fetch(&self.chunks(columns))?;
                self.read_from(ranges, columns, rows)
            }
        }
    }

    /// The places in the file of the columns.
    fn chunks(&self, columns: Option<&[&str]>) -> Vec<Range<u64>> {
        let groups = self.metadata.metadata().row_groups().iter();
        let chunks = groups.flat_map(|group| group.columns());
        let wanted = |name: &str| columns.is_none_or(|columns| columns.contains(&name));
        chunks
            .filter(|chunk| {
                chunk
                    .column_path()
                    .parts()
                    .first()
                    .is_some_and(|name| wanted(name))
            })
            .map(|chunk| {
                let (start, length) = chunk.byte_range();
                start..start.saturating_add(length)
            })
            .collect()
    }

    fn read_from(
        &self,
        source: impl ChunkReader + 'static,
        columns: Option<&[&str]>,
        rows: Option<&[Range<usize>]>,
    ) -> Result<RecordBatch, StoreError> {
        let read = || {
            let mut builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.metadata.clone());
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

/// Decodes the footer of a file. Columns get the types of `schema` if the file's types allow it.
fn load(
    path: &Path,
    source: &impl ChunkReader,
    schema: &SchemaRef,
) -> Result<ArrowReaderMetadata, StoreError> {
    let load = || {
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        match ArrowReaderMetadata::load(source, options.clone().with_schema(schema.clone())) {
            Ok(metadata) => Ok(metadata),
            // The columns differ from `schema`. Keep the file's own types; decoding the rows then names the wrong
            // column.
            Err(_) => ArrowReaderMetadata::load(source, options),
        }
    };
    contained(path, load)
}

/// Runs `work` on a file and turns its panic or error into [`StoreError::File`] with the file's path.
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
