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
        /// The message of DataFusion.
        message: String,
    },
    /// The query needs more memory or more temporary files than it may have.
    #[error(
        "the query needs more than its limit of memory, and not all of it can go to temporary files: give a larger \
         --memory, or none ({message})"
    )]
    Memory {
        /// The message of DataFusion.
        message: String,
    },
    /// The statement would change data or settings.
    #[error(
        "statement {statement} is refused, expected a statement that only reads, such as SELECT ({reason})"
    )]
    ReadOnly {
        /// The first word of the statement, in upper case.
        statement: String,
        /// The reason that DataFusion gives.
        reason: String,
    },
    /// The text has no statement, or has several statements where the output holds one answer.
    #[error("{found} SQL statements, expected {expected}")]
    Statements {
        /// The number of statements that were found.
        found: usize,
        /// The number of statements that were expected.
        expected: &'static str,
    },
    /// An expression is so long that planning it would need too much stack.
    #[error(
        "the query chains {found} operators such as AND, OR and +, expected at most {most}: use IN (..), or several queries"
    )]
    Long {
        /// The number of operators of the longest chain.
        found: usize,
        /// The largest number of operators.
        most: usize,
    },
    /// Parquet was requested without a file. Parquet is binary, so it is written to files only.
    #[error("format `parquet` needs a file to write, expected --out FILE")]
    NoFile,
    /// The format cannot hold the rows.
    #[error("cannot write rows as {format}")]
    Encode {
        /// The requested format.
        format: &'static str,
        /// The cause.
        #[source]
        source: ArrowError,
    },
    /// Parquet cannot hold the rows, or the Parquet file cannot be written.
    #[error("cannot write Parquet to `{}`", path.display())]
    Parquet {
        /// The requested file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ParquetError,
    },
    /// The output file cannot be written.
    #[error("cannot write `{}`", path.display())]
    File {
        /// The requested file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused to start threads for the query.
    #[error("cannot start threads to run the query")]
    Threads(#[source] std::io::Error),
    /// Standard output cannot be written.
    #[error("cannot write the answer to standard output")]
    Output(#[from] std::io::Error),
}

impl QueryError {
    pub(super) fn sql(error: DataFusionError) -> QueryError {
        if let DataFusionError::ResourcesExhausted(message) = error.find_root() {
            // The advice in the message names settings of DataFusion, which no user of vaplan can reach.
            let cause = message.split(" Consider ").next().unwrap_or_default();
            return QueryError::Memory {
                message: cause.trim_end_matches('.').to_owned(),
            };
        }
        QueryError::Sql {
            message: error.strip_backtrace(),
        }
    }

    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> QueryError {
        let path = path.to_owned();
        move |source| QueryError::File { path, source }
    }
}
