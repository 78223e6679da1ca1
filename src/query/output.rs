//! Answers as a table for people, or as CSV, JSON or Parquet for programs.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::json::ArrayWriter;
use arrow::util::pretty::pretty_format_batches_with_schema;
use parquet::arrow::ArrowWriter;

use super::{Answer, QueryError};

/// Form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// With a header.
    Csv,
    /// One array of objects.
    Json,
    /// One file.
    Parquet,
}

/// Writes an answer, batch by batch; only a table for people is gathered first, for the width of its columns.
///
/// # Errors
/// [`QueryError::Sql`] where the query fails on the data, [`QueryError::Write`] where `out` does not take it.
pub fn write(answer: Answer<'_>, format: Format, out: &mut dyn Write) -> Result<(), QueryError> {
    let schema = answer.schema();
    match format {
        Format::Table => {
            let batches = answer.collect::<Result<Vec<RecordBatch>, _>>()?;
            let table = pretty_format_batches_with_schema(schema, &batches).map_err(failed)?;
            writeln!(out, "{table}").map_err(QueryError::Write)
        }
        Format::Csv => {
            let header: Vec<&str> = schema
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect();
            let mut rows = false;
            let mut writer = csv::WriterBuilder::new().with_header(true).build(Counted {
                out: &mut *out,
                any: &mut rows,
            });
            for batch in answer {
                writer.write(&batch?).map_err(failed)?;
            }
            drop(writer);
            // The writer learns its header from the first batch.
            if !rows {
                writeln!(out, "{}", header.join(",")).map_err(QueryError::Write)?;
            }
            Ok(())
        }
        Format::Json => {
            let mut writer = ArrayWriter::new(&mut *out);
            for batch in answer {
                writer.write(&batch?).map_err(failed)?;
            }
            writer.finish().map_err(failed)?;
            writeln!(out).map_err(QueryError::Write)
        }
        Format::Parquet => {
            // Parquet writers want to send what they write to; a buffer per batch does for a `dyn Write`.
            let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).map_err(other)?;
            for batch in answer {
                writer.write(&batch?).map_err(other)?;
                out.write_all(writer.inner()).map_err(QueryError::Write)?;
                writer.inner_mut().clear();
            }
            let rest = writer.into_inner().map_err(other)?;
            out.write_all(&rest).map_err(QueryError::Write)
        }
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    any: &'a mut bool,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.any |= !bytes.is_empty();
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn failed(error: arrow::error::ArrowError) -> QueryError {
    match error {
        arrow::error::ArrowError::IoError(_, source) => QueryError::Write(source),
        other => QueryError::Sql(other.to_string()),
    }
}

fn other(error: parquet::errors::ParquetError) -> QueryError {
    QueryError::Write(std::io::Error::other(error))
}
