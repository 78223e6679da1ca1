//! Parquet files, written durably and read with every panic contained.
//!
//! The parquet crate can panic on a damaged file (18 of 40,000 mutants did, DEPENDENCIES.md), so every read goes
//! through [`contain`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::error::StoreError;

/// Rows decoded at once; a file of more is put together from several batches.
const MOST_ROWS: usize = 1 << 20;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it is an error that says what it said, and nothing is printed.
///
/// ```
/// let told = vaplan_schemas::parquet_file::contain(|| -> u32 { panic!("bad page") });
/// assert_eq!(told, Err("bad page".to_owned()));
/// ```
///
/// # Errors
/// The message of the panic.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                usual(info);
            }
        }));
    });
    let before = CONTAINED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    done.map_err(
        |panic| match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "the parquet crate panicked".to_owned(),
        },
    )
}

/// A batch as the bytes of a Parquet file; the same bytes for the same batch.
pub(crate) fn encode(batch: &RecordBatch) -> Vec<u8> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(MOST_ROWS))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_created_by(format!("vaplan {}", env!("CARGO_PKG_VERSION")));
    // Hardly a score is there twice: a dictionary of them is work for nothing.
    for column in ["cosine", "score", "loss"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
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

/// All rows of a file as one batch, in the types of `schema` where its columns allow.
///
/// # Errors
/// [`StoreError::Io`] where it cannot be opened, [`StoreError::File`] where it does not decode.
pub(crate) fn read(path: &Path, schema: &SchemaRef) -> Result<RecordBatch, StoreError> {
    let damaged = |problem: String| StoreError::File {
        path: path.to_owned(),
        problem,
    };
    // As bytes in memory: from a file, the crate allocates whatever a damaged footer says.
    let bytes = Bytes::from(std::fs::read(path).map_err(StoreError::io("read", path))?);
    let read = || {
        let hint = ArrowReaderOptions::new().with_schema(schema.clone());
        let builder = match ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), hint) {
            Ok(builder) => builder,
            // Other columns than declared: decoding says which.
            Err(_) => ParquetRecordBatchReaderBuilder::try_new(bytes)?,
        };
        let found = builder.schema().clone();
        let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(MOST_ROWS);
        let batches = builder
            .with_batch_size(rows.clamp(1, MOST_ROWS))
            .build()?
            .collect::<Result<Vec<_>, _>>()?;
        match <[RecordBatch; 1]>::try_from(batches) {
            Ok([batch]) => Ok(batch),
            Err(batches) => concat_batches(&found, &batches),
        }
    };
    contain(read)
        .map_err(damaged)?
        .map_err(|error: arrow::error::ArrowError| damaged(error.to_string()))
}
