//! The errors of tables and stores.

use std::path::{Path, PathBuf};

use crate::ids::StoreVersion;

/// A table or its rows do not match the schema of the table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A declared column is absent.
    #[error("table `{table}` has no column `{column}` (columns found: {})", found.join(", "))]
    ColumnMissing {
        /// The table that was read.
        table: &'static str,
        /// The missing column.
        column: String,
        /// The columns that the table has.
        found: Vec<String>,
    },
    /// A column has another type than declared.
    #[error("table `{table}`: column `{column}` is {found}, expected {expected}")]
    ColumnType {
        /// The table that was read.
        table: &'static str,
        /// The column that was read.
        column: &'static str,
        /// The type that was found.
        found: String,
        /// The declared type.
        expected: &'static str,
    },
    /// A value lies outside the range that its column allows.
    #[error("table `{table}`, row {row}: {column} is {value}, expected {expected}")]
    Value {
        /// The table that was read.
        table: &'static str,
        /// The row, counted from 0.
        row: usize,
        /// The column that was read.
        column: &'static str,
        /// The value that was found.
        value: String,
        /// The values that the column allows.
        expected: &'static str,
    },
    /// Two rows that were to be written have the same key.
    #[error("table `{table}`, row {row}: its key is that of the row before, {key}")]
    Duplicate {
        /// The table that was written.
        table: &'static str,
        /// The second of the two rows, counted from 0 in the order of the table.
        row: usize,
        /// The row before it, as debug text of at most 200 bytes.
        key: String,
    },
    /// A row was put into another bucket than the bucket of its video.
    #[error("table `{table}`: video `{video}` was put into bucket {bucket}, expected {expected}")]
    Bucket {
        /// The table that was written.
        table: &'static str,
        /// The video of the row.
        video: String,
        /// The bucket that the row was put into.
        bucket: u32,
        /// The bucket that the row belongs to.
        expected: u32,
    },
}

/// A request to an object store failed after all its attempts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} `{url}` failed after {attempts} {}, last {last}; {advice}", if *attempts == 1 { "attempt" } else { "attempts" })]
pub struct ObjectError {
    /// The operation: GET, PUT and so on.
    pub operation: &'static str,
    /// The URL of the object or folder, without secrets.
    pub url: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The status or error of the last attempt.
    pub last: String,
    /// What the user can do.
    pub advice: &'static str,
}

/// A store cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// The action that failed, as a verb: "read", "write" and so on.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// An environment variable has a value that cannot be used.
    #[error("environment variable {variable} is `{value}`, expected {expected}")]
    Variable {
        /// The name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The values that it may have.
        expected: &'static str,
    },
    /// An environment variable with the endpoint of an object store holds a user or a password. The error does not repeat them.
    #[error(
        "environment variable {variable} holds a user or a password, expected a URL without them: give credentials by variables of \
         their own (docs/object-stores.md)"
    )]
    Endpoint {
        /// The name of the variable.
        variable: String,
    },
    /// A request to an object store failed.
    #[error(transparent)]
    Object(ObjectError),
    /// A URL cannot be used.
    #[error("URL `{url}`: {problem}")]
    Url {
        /// The URL, without its secrets.
        url: String,
        /// The problem, and what was expected.
        problem: &'static str,
    },
    /// The settings of an object store in the environment cannot be used.
    #[error("cannot open `{url}`: {problem}; check the settings in the environment (docs/object-stores.md)")]
    Settings {
        /// The URL.
        url: String,
        /// The problem with the settings.
        problem: String,
    },
    /// Another process committed first.
    #[error(
        "`{}` exists already: another process wrote the store at the same time and came first; nothing of this command was committed, run it again",
        path.display()
    )]
    Conflict {
        /// The entry of a log that both processes wanted to write.
        path: PathBuf,
    },
    /// The target of a copy holds another store.
    #[error(
        "`{}` is no copy of this store: its version {version} is another one; copy to an empty folder or URL",
        path.display()
    )]
    OtherStore {
        /// The folder or URL of the target.
        path: PathBuf,
        /// The first version that differs.
        version: StoreVersion,
    },
    /// This process no longer has the right to write.
    #[error(
        "the lease of `{}` ended before it was renewed, so another process may write now; nothing of this command was committed, run it again",
        path.display()
    )]
    LeaseLost {
        /// The URL of the store.
        path: PathBuf,
    },
    /// There is no store at this path.
    #[error("`{path}` is no store: it has no `versions` table; `vaplan label --store` makes one")]
    NoStore {
        /// The path where a store was expected.
        path: PathBuf,
    },
    /// The store has no version yet.
    #[error(
        "store `{path}` has no version yet: a run that was to make the first did not finish; run it again"
    )]
    Empty {
        /// The folder of the store.
        path: PathBuf,
    },
    /// The store does not have the requested version.
    #[error("store has no version {wanted}, expected {first} to {last}")]
    NoVersion {
        /// The requested version.
        wanted: StoreVersion,
        /// The first version of the store.
        first: StoreVersion,
        /// The last version of the store.
        last: StoreVersion,
    },
    /// The files of the requested version were removed by `vacuum`.
    #[error("version {wanted} was vacuumed: its rows are gone; versions from {from} on are kept")]
    Vacuumed {
        /// The requested version.
        wanted: StoreVersion,
        /// The first version that can still be opened.
        from: StoreVersion,
    },
    /// A data file does not decode.
    #[error("`{path}`: {problem}")]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The problem with the file.
        problem: String,
    },
    /// The rows of a data file do not match the schema of its table.
    #[error("`{path}`")]
    Rows {
        /// The path of the file.
        path: PathBuf,
        /// The mismatch of schema or row.
        #[source]
        source: TableError,
    },
    /// The rows cannot be written: a key is repeated or a bucket is wrong.
    #[error("rows cannot be written")]
    Unwritable(#[source] TableError),
    /// The Delta log of a table could not be read or written.
    #[error("Delta log of table `{table}` in `{path}`")]
    Delta {
        /// The table.
        table: String,
        /// The folder of the store.
        path: PathBuf,
        /// The error of the deltalake crate.
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
