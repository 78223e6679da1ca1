use std::path::{Path, PathBuf};

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use vaplan_schemas::StoreError;

/// A question that has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The SQL does not parse, plan or run; DataFusion says why, and which names there are.
    #[error("{message}")]
    Sql {
        /// DataFusion's words.
        message: String,
    },
    /// The SQL would change something.
    #[error("a query only reads: {statement} is refused ({reason})")]
    ReadOnly {
        /// First word of the statement.
        statement: String,
        /// What DataFusion calls it.
        reason: String,
    },
    /// No SQL, or more than one statement where the format holds one answer.
    #[error("{found} SQL statements, expected {expected}")]
    Statements {
        /// Statements found.
        found: usize,
        /// What would do.
        expected: &'static str,
    },
    /// Parquet is no text.
    #[error("Parquet goes to a file: name it with --out FILE")]
    NoFile,
    /// Rows that the format cannot hold.
    #[error("cannot write rows as {format}")]
    Encode {
        /// Format asked for.
        format: &'static str,
        /// Why not.
        #[source]
        source: ArrowError,
    },
    /// Rows that Parquet cannot hold, or a file of it that cannot be written.
    #[error("cannot write Parquet to `{}`", path.display())]
    Parquet {
        /// File asked for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ParquetError,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    File {
        /// File.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Standard output, or the terminal, is gone.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
    /// The terminal gives no line.
    #[error("cannot read from the terminal")]
    Terminal(#[source] rustyline::error::ReadlineError),
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
