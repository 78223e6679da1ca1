//! What can go wrong with tables and stores.

use std::path::{Path, PathBuf};

use crate::ids::StoreVersion;

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
    /// A column is of another type.
    #[error("table `{table}`: column `{column}` is {found}, expected {expected}")]
    ColumnType {
        /// Table read.
        table: &'static str,
        /// Column read.
        column: &'static str,
        /// Type found.
        found: String,
        /// Type declared.
        expected: &'static str,
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
    /// Two rows to be written have one key; `row` counts from 0, in the order of the table.
    #[error("table `{table}`, row {row}: its key is that of the row before, {key}")]
    Duplicate {
        /// Table written.
        table: &'static str,
        /// Second of the rows.
        row: usize,
        /// The row before, as far as it fits.
        key: String,
    },
    /// A row to be written is of another bucket.
    #[error("table `{table}`: video `{video}` was put into bucket {bucket}, expected {expected}")]
    Bucket {
        /// Table written.
        table: &'static str,
        /// Video of the row.
        video: String,
        /// Where it was put.
        bucket: u32,
        /// Where it belongs.
        expected: u32,
    },
}

/// A store that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No store at this place.
    #[error("`{path}` is no store: it has no `versions` table; `vaplan label --store` makes one")]
    NoStore {
        /// Place looked at.
        path: PathBuf,
    },
    /// A store that has no version yet.
    #[error(
        "store `{path}` has no version yet: a run that was to make the first did not finish; run it again"
    )]
    Empty {
        /// The store.
        path: PathBuf,
    },
    /// A version that the store does not have.
    #[error("store has no version {wanted}, expected {first} to {last}")]
    NoVersion {
        /// Version asked for.
        wanted: StoreVersion,
        /// First there is.
        first: StoreVersion,
        /// Last there is.
        last: StoreVersion,
    },
    /// A version whose files were removed.
    #[error("version {wanted} was vacuumed: its rows are gone; versions from {from} on are kept")]
    Vacuumed {
        /// Version asked for.
        wanted: StoreVersion,
        /// From here on they can be opened.
        from: StoreVersion,
    },
    /// A data file that does not read back.
    #[error("`{path}`: {problem}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A data file whose rows are not as declared.
    #[error("`{path}`")]
    Rows {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TableError,
    },
    /// Rows that a table cannot hold.
    #[error("rows cannot be written")]
    Unwritable(#[source] TableError),
    /// The Delta log of a table could not be read or written.
    #[error("Delta log of table `{table}` in `{path}`")]
    Delta {
        /// Which table.
        table: String,
        /// The store.
        path: PathBuf,
        /// What deltalake says.
        #[source]
        source: Box<deltalake::DeltaTableError>,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}
