use std::path::{Path, PathBuf};

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use vaplan_schemas::StoreError;

/// Reasons why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The SQL does not parse, plan or run. DataFusion's message names the cause and the valid names.
    #[error("{message}")]
    Sql {
        /// DataFusion's message.
        message: String,
    },
    /// The statement would change data or settings.
    #[error(
        "statement {statement} is refused, expected a statement that only reads, such as SELECT ({reason})"
    )]
    ReadOnly {
        /// First word of the statement, in upper case.
        statement: String,
        /// DataFusion's reason for the refusal.
        reason: String,
    },
    /// The text holds no statement, or several where the output holds one answer.
    #[error("{found} SQL statements, expected {expected}")]
    Statements {
        /// Statements found.
        found: usize,
        /// Number of statements expected.
        expected: &'static str,
    },
    /// Parquet is binary, so it is written to a file only.
    #[error("format `parquet` needs a file to write, expected --out FILE")]
    NoFile,
    /// The format cannot hold the rows.
    #[error("cannot write rows as {format}")]
    Encode {
        /// Format that was requested.
        format: &'static str,
        /// Cause.
        #[source]
        source: ArrowError,
    },
    /// Parquet cannot hold the rows, or the Parquet file cannot be written.
    #[error("cannot write Parquet to `{}`", path.display())]
    Parquet {
        /// File that was requested.
        path: PathBuf,
        /// Cause.
        #[source]
        source: ParquetError,
    },
    /// The output file cannot be written.
    #[error("cannot write `{}`", path.display())]
    File {
        /// File that was requested.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The operating system starts no threads for the query.
    #[error("cannot start threads to run the query")]
    Threads(#[source] std::io::Error),
    /// Standard output cannot be written.
    #[error("cannot write the answer to standard output")]
    Output(#[from] std::io::Error),
}

impl QueryError {
    pub(super) fn sql(error: DataFusionError) -> QueryError {
        QueryError::Sql {
            message: error.strip_backtrace(),
        }
    }

    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> QueryError {
        let path = path.to_owned();
        move |source| QueryError::File { path, source }
    }
}
