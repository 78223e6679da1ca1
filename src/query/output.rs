//! Rows as people and programs read them.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::json::writer::{LineDelimited, WriterBuilder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches_with_schema;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;

use super::{QueryError, Rows};

/// As many rows as a table for people shows; widths want all of them at once, so this bounds memory.
pub const TABLE_ROWS: usize = 10_000;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines and columns for people, the first 10,000 rows.
    Table,
    /// Comma-separated values with a header; lists as `[a, b]`.
    Csv,
    /// One JSON array of objects, one object a line; nulls are written.
    Json,
    /// A Parquet file; wants a file to write.
    Parquet,
}

/// How much was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Rows written.
    pub rows: usize,
    /// Were there more than a table shows.
    pub cut: bool,
}

/// Writes all rows to `out` as they come; a table for people at its end.
///
/// # Errors
/// [`QueryError::Sql`] where running the query fails, [`QueryError::Encode`] where the format cannot hold a column,
/// [`QueryError::Output`] where `out` takes no more, [`QueryError::NoFile`] for Parquet, which [`write_file`] writes.
pub fn write(rows: Rows<'_>, format: Format, out: &mut dyn Write) -> Result<Written, QueryError> {
    match format {
        Format::Table => write_table(rows, out),
        Format::Csv => write_csv(rows, out),
        Format::Json => write_json(rows, out),
        Format::Parquet => Err(QueryError::NoFile),
    }
}

fn write_table(rows: Rows<'_>, out: &mut dyn Write) -> Result<Written, QueryError> {
    let schema = rows.schema();
    let mut batches = Vec::new();
    let mut written = Written { rows: 0, cut: false };
    for batch in rows {
        let batch = batch?;
        let room = TABLE_ROWS - written.rows;
        written.cut = batch.num_rows() > room;
        let batch = batch.slice(0, batch.num_rows().min(room));
        written.rows += batch.num_rows();
        batches.push(batch);
        if written.cut {
            break;
        }
    }
    let table = pretty_format_batches_with_schema(schema, &batches).map_err(encode("a table"))?;
    writeln!(out, "{table}")?;
    Ok(written)
}

fn write_csv(rows: Rows<'_>, out: &mut dyn Write) -> Result<Written, QueryError> {
    let mut written = 0;
    // Through a buffer: the writer would wrap what `out` says in an error of its own, and hide a closed pipe.
    let mut buffer = Vec::new();
    let header = RecordBatch::new_empty(rows.schema());
    let mut first = true;
    for batch in std::iter::once(Ok(header)).chain(rows) {
        let batch = flat(&batch?).map_err(encode("CSV"))?;
        written += batch.num_rows();
        csv::WriterBuilder::new()
            .with_header(std::mem::take(&mut first))
            .build(&mut buffer)
            .write(&batch)
            .map_err(encode("CSV"))?;
        out.write_all(&buffer)?;
        buffer.clear();
    }
    Ok(Written {
        rows: written,
        cut: false,
    })
}

/// CSV holds no lists and maps: they become text.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if schema.fields().iter().all(|field| !field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let options = FormatOptions::new();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            let shown = ArrayFormatter::try_new(column, &options)?;
            let text: StringArray = (0..column.len())
                .map(|row| column.is_valid(row).then(|| shown.value(row).to_string()))
                .collect();
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(text) as ArrayRef);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn write_json(rows: Rows<'_>, out: &mut dyn Write) -> Result<Written, QueryError> {
    let mut written = 0;
    let mut buffer = Vec::new();
    out.write_all(b"[")?;
    for batch in rows {
        let mut lines: LineDelimitedWriter<_> = WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, LineDelimited>(&mut buffer);
        lines
            .write(&batch?)
            .and_then(|()| lines.finish())
            .map_err(encode("JSON"))?;
        drop(lines);
        for line in buffer
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            out.write_all(if written == 0 { b"\n" } else { b",\n" })?;
            out.write_all(line)?;
            written += 1;
        }
        buffer.clear();
    }
    out.write_all(b"\n]\n")?;
    Ok(Written {
        rows: written,
        cut: false,
    })
}

/// Writes all rows to a file of this name, which is there whole or not at all.
///
/// # Errors
/// As [`write()`], and [`QueryError::File`] or [`QueryError::Parquet`] where the file cannot be written.
pub fn write_file(rows: Rows<'_>, format: Format, path: &Path) -> Result<Written, QueryError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = new_file(folder).map_err(QueryError::file(path))?;
    let written = match format {
        Format::Parquet => write_parquet(rows, file.as_file_mut(), path)?,
        _ => {
            let mut buffered = std::io::BufWriter::new(file.as_file_mut());
            let written = write(rows, format, &mut buffered).map_err(|error| match error {
                QueryError::Output(source) => QueryError::File {
                    path: path.to_owned(),
                    source,
                },
                other => other,
            })?;
            buffered.flush().map_err(QueryError::file(path))?;
            written
        }
    };
    file.as_file().sync_all().map_err(QueryError::file(path))?;
    file.persist(path).map_err(|error| QueryError::File {
        path: path.to_owned(),
        source: error.error,
    })?;
    Ok(written)
}

/// A file without a place yet, readable as the user's mask says (tempfile's own are for the owner alone).
fn new_file(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vaplan-query-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn write_parquet(rows: Rows<'_>, file: &mut std::fs::File, path: &Path) -> Result<Written, QueryError> {
    let fault = |source| QueryError::Parquet {
        path: path.to_owned(),
        source,
    };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).map_err(fault)?;
    let mut written = 0;
    for batch in rows {
        let batch = batch?;
        written += batch.num_rows();
        writer.write(&batch).map_err(fault)?;
    }
    writer.close().map_err(fault)?;
    Ok(Written {
        rows: written,
        cut: false,
    })
}

fn encode(format: &'static str) -> impl FnOnce(ArrowError) -> QueryError {
    move |source| QueryError::Encode { format, source }
}
