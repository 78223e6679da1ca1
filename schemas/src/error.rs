//! What can go wrong with tables and stores.

use std::path::PathBuf;

/// A table that is not what its schema says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A declared column is absent.
    #[error("table `{table}` has no column `{column}` (columns found: {})", found.join(", "))]
    ColumnMissing {
        /// Table read.
        table: &'static str,
        /// Column wanted.
        column: String,
        /// Columns there.
        found: Vec<String>,
    },
    /// A value lies outside what its column allows; `row` counts from 0.
    #[error("table `{table}`, row {row}: {column} is {value}, expected {expected}")]
    Value {
        /// Table read.
        table: &'static str,
        /// Row, from 0.
        row: usize,
        /// Column read.
        column: &'static str,
        /// Value found.
        value: String,
        /// What would do.
        expected: &'static str,
    },
}

/// A store that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder could not be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried, as in "cannot write".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A table of the store is not as declared.
    #[error(transparent)]
    Table(#[from] TableError),
}
