//! Writes an answer as a text table, CSV, JSON or Parquet.

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

use super::{AnswerRows, QueryError};
use crate::choice::Choice;

/// The largest number of rows that [`AnswerFormat::Table`] shows.
///
/// Column widths depend on every shown row, so all these rows are in memory at once. The limit bounds that memory.
pub const TABLE_ROWS: usize = 10_000;

/// The format of a query's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFormat {
    /// A text table of the first [`TABLE_ROWS`] rows.
    Table,
    /// Comma-separated values with a header line. A list is written as `[a, b]`.
    Csv,
    /// One JSON array with one object per line. Nulls are written.
    Json,
    /// A Parquet file, compressed with zstd. Only [`write_file`] writes this format.
    Parquet,
}

impl Choice for AnswerFormat {
    const WHAT: &'static str = "format";
    const ALL: &'static [(AnswerFormat, &'static str, &'static str)] = &[
        (
            AnswerFormat::Table,
            "table",
            "A text table of the first 10,000 rows",
        ),
        (
            AnswerFormat::Csv,
            "csv",
            "Comma-separated values with a header line; a list is written as `[a, b]`",
        ),
        (
            AnswerFormat::Json,
            "json",
            "One JSON array with one object per line; nulls are written",
        ),
        (AnswerFormat::Parquet, "parquet", "A Parquet file; needs --out"),
    ];
}

/// The number of rows that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenRows {
    /// The number of rows.
    pub rows: usize,
    /// Whether rows were left out because the answer has more than [`TABLE_ROWS`].
    pub cut: bool,
}

/// Writes all rows to `out`.
///
/// CSV and JSON are written batch by batch while the query runs. A table is written when the query ends.
///
/// # Errors
/// Returns [`QueryError::Sql`] if the query fails while it runs, [`QueryError::Encode`] if the format cannot hold a
/// column, [`QueryError::Output`] if `out` fails, and [`QueryError::NoFile`] for [`AnswerFormat::Parquet`], which
/// needs [`write_file`].
pub fn write(
    rows: AnswerRows<'_>,
    format: AnswerFormat,
    out: &mut dyn Write,
) -> Result<WrittenRows, QueryError> {
    match format {
        AnswerFormat::Table => write_table(rows, out),
        AnswerFormat::Csv => write_csv(rows, out),
        AnswerFormat::Json => write_json(rows, out),
        AnswerFormat::Parquet => Err(QueryError::NoFile),
    }
}

fn write_table(rows: AnswerRows<'_>, out: &mut dyn Write) -> Result<WrittenRows, QueryError> {
    let schema = rows.schema();
    let mut batches = Vec::new();
    let mut written = WrittenRows { rows: 0, cut: false };
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

fn write_csv(rows: AnswerRows<'_>, out: &mut dyn Write) -> Result<WrittenRows, QueryError> {
    let mut written = 0;
    // The CSV writer fills a buffer and not `out`. It would wrap an error of `out` in its own error, and a closed
    // pipe would then not be recognised.
    let mut buffer = Vec::new();
    let header = RecordBatch::new_empty(rows.schema());
    let rows = begun(rows)?;
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
    Ok(WrittenRows {
        rows: written,
        cut: false,
    })
}

/// Computes the first batch, so that a query that fails at once leaves no header without rows in the output.
fn begun(
    mut rows: AnswerRows<'_>,
) -> Result<impl Iterator<Item = Result<RecordBatch, QueryError>>, QueryError> {
    let first = rows.next().transpose()?;
    Ok(first.map(Ok).into_iter().chain(rows))
}

/// Turns lists and maps into text, because CSV cannot hold them.
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

fn write_json(rows: AnswerRows<'_>, out: &mut dyn Write) -> Result<WrittenRows, QueryError> {
    let mut written = 0;
    let mut buffer = Vec::new();
    let rows = begun(rows)?;
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
    Ok(WrittenRows {
        rows: written,
        cut: false,
    })
}

/// Writes all rows to the file `path`.
///
/// A new or regular file appears complete or not at all: the rows go to a temporary file beside `path`, which is then
/// renamed. A symbolic link stays, and its target is replaced in the same way. A device or pipe, such as
/// `/dev/stdout`, is written in place, so that a failed write leaves part of the rows there.
///
/// # Errors
/// Returns the same errors as [`write()`], and [`QueryError::File`] or [`QueryError::Parquet`] if the file cannot be
/// written.
pub fn write_file(
    rows: AnswerRows<'_>,
    format: AnswerFormat,
    path: &Path,
) -> Result<WrittenRows, QueryError> {
    let failed = || QueryError::file(path);
    let target = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => std::fs::canonicalize(path).map_err(failed())?,
        Ok(_) => return write_in_place(rows, format, path),
        // The target of a dangling link does not exist, so write through the link.
        Err(_) if path.is_symlink() => return write_in_place(rows, format, path),
        Err(_) => path.to_owned(),
    };
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = new_file(folder).map_err(failed())?;
    let written = write_into(rows, format, file.as_file_mut(), path)?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(&target).map_err(|error| QueryError::File {
        path: path.to_owned(),
        source: error.error,
    })?;
    Ok(written)
}

/// Writes all rows in place to the file or device `path`, from its start.
fn write_in_place(
    rows: AnswerRows<'_>,
    format: AnswerFormat,
    path: &Path,
) -> Result<WrittenRows, QueryError> {
    let mut file = std::fs::File::create(path).map_err(QueryError::file(path))?;
    write_into(rows, format, &mut file, path)
}

/// Writes all rows to an open file. Errors name `path`.
fn write_into(
    rows: AnswerRows<'_>,
    format: AnswerFormat,
    file: &mut std::fs::File,
    path: &Path,
) -> Result<WrittenRows, QueryError> {
    if format == AnswerFormat::Parquet {
        return write_parquet(rows, file, path);
    }
    let mut buffered = std::io::BufWriter::new(file);
    let written = write(rows, format, &mut buffered).map_err(|error| match error {
        QueryError::Output(source) => QueryError::File {
            path: path.to_owned(),
            source,
        },
        other => other,
    })?;
    buffered.flush().map_err(QueryError::file(path))?;
    Ok(written)
}

/// Makes a temporary file in `folder` with the permissions of the user's umask. tempfile's default would allow only
/// the owner to read the file.
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

fn write_parquet(
    rows: AnswerRows<'_>,
    file: &mut std::fs::File,
    path: &Path,
) -> Result<WrittenRows, QueryError> {
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
    Ok(WrittenRows {
        rows: written,
        cut: false,
    })
}

fn encode(format: &'static str) -> impl FnOnce(ArrowError) -> QueryError {
    move |source| QueryError::Encode { format, source }
}
