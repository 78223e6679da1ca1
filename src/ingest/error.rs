//! The errors of reading inputs.

use std::io;
use std::path::{Path, PathBuf};

use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::npy::NpyProblem;

/// An input that cannot be read. Each message names the file, the place in it, the value found and the value
/// expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A file or folder cannot be opened, listed, read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// The operation that failed, such as "read", "list" or "write".
        action: &'static str,
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A path that is not UTF-8. Tables hold text, so that they cannot record it.
    #[error(
        "path `{}` is not UTF-8, expected a UTF-8 name: rename the file or folder, or name a link to it",
        path.as_os_str().as_encoded_bytes().escape_ascii()
    )]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// The path leads to something other than the expected kind of file.
    #[error("`{path}` is {found}, expected {expected}")]
    Kind {
        /// The path.
        path: PathBuf,
        /// What was found, such as "a FIFO" or "a folder".
        found: &'static str,
        /// What was expected, such as "a regular file".
        expected: &'static str,
    },
    /// An npy file is damaged, or its contents are not of the expected kind.
    #[error("npy file `{path}`: {problem}")]
    Npy {
        /// Path of the file.
        path: PathBuf,
        /// The problem with the file.
        problem: NpyProblem,
    },
    /// Two files of an annotation folder have a name with the same ending, so that either could be meant.
    #[error("folder `{folder}` holds two files for `*{suffix}`: `{first}` and `{second}`, expected one")]
    RoleTwice {
        /// Path of the annotation folder.
        folder: PathBuf,
        /// Ending of the names.
        suffix: &'static str,
        /// Name of the first file.
        first: String,
        /// Name of the second file.
        second: String,
    },
    /// An annotation folder has no split.
    #[error(
        "folder `{folder}` holds no split, expected `*train.csv`, `*val_pd.csv` or `*test_pd.csv` (csv files found: {})",
        if found.is_empty() { "none".to_owned() } else { found.join(", ") }
    )]
    NoSplit {
        /// Path of the annotation folder.
        folder: PathBuf,
        /// Names of the csv files in the folder, at most 10.
        found: Vec<String>,
    },
    /// The first line of an annotation file lacks a column.
    #[error("`{path}`, row 1: no column `{column}`, expected tab-separated {expected} (found: `{found}`)")]
    Header {
        /// Path of the file.
        path: PathBuf,
        /// Name of the missing column.
        column: &'static str,
        /// Names of all expected columns.
        expected: String,
        /// The first line, at most 80 characters.
        found: String,
    },
    /// The first line of a delimited file lacks a column.
    #[error(
        "`{path}`, row 1: no column `{column}`, expected a line that names {expected} (found: `{found}`)"
    )]
    Sheet {
        /// Path of the file.
        path: PathBuf,
        /// Name of the missing column.
        column: &'static str,
        /// Names of all columns that are read.
        expected: String,
        /// The first line, at most 80 characters.
        found: String,
    },
    /// The classes of an annotation folder are not LLP's, and no list gives their order.
    #[error(
        "`{path}`, row {row}: class `{class}` is none of the 25 of LLP (nearest: `{nearest}`), expected a file \
         `classes.txt` beside it with the data set's classes, one a line in order"
    )]
    ForeignClasses {
        /// First file with such a class.
        path: PathBuf,
        /// First row with such a class.
        row: u64,
        /// Name of the class.
        class: String,
        /// Most similar class of LLP.
        nearest: String,
    },
    /// A list of classes does not have one valid name per line.
    #[error("class list `{path}`, row {row}: {problem}")]
    ClassList {
        /// Path of the file.
        path: PathBuf,
        /// Line from 1; 0 means the whole file.
        row: u64,
        /// What was found and what was expected.
        problem: String,
    },
    /// A Parquet file is damaged, or lacks a required column.
    #[error("parquet file `{path}`: {problem}")]
    Parquet {
        /// Path of the file.
        path: PathBuf,
        /// What was found and what was expected, with row and column.
        problem: String,
    },
    /// A folder or file has no features.
    #[error("`{path}`: {problem}")]
    Features {
        /// Path of the folder or file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// Predictions do not name their modality.
    #[error(
        "predictions `{path}` do not say of which modality they are, expected Parquet with a column `modality`, or a \
         folder with `audio` and `visual` in it"
    )]
    Predictions {
        /// Path of the file.
        path: PathBuf,
    },
    /// A text embedding cannot be used.
    #[error("text embeddings `{path}`, {place}: {problem}")]
    Text {
        /// Path of the file.
        path: PathBuf,
        /// Row and class, or "shape".
        place: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A file of user labels that another program wrote cannot be used as a whole.
    #[error("user labels `{path}`: {problem}")]
    UserLabels {
        /// Path of the file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// A value of a label file is neither 0 nor 1.
    #[error("label file `{path}`, row {row}, column {column}: label is {value}, expected 0 or 1")]
    Label {
        /// Path of the file.
        path: PathBuf,
        /// Number of the segment, from 0.
        row: usize,
        /// Position of the class, from 0.
        column: usize,
        /// Value found, as text.
        value: String,
    },
}

impl IngestError {
    /// Returns a function that makes [`IngestError::Io`] of an error of a store or of an object store, for `map_err`.
    pub(crate) fn of_store(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(vaplan_schemas::StoreError) -> IngestError + use<> {
        let path = path.to_owned();
        move |error| {
            let source = match error {
                vaplan_schemas::StoreError::Io { source, .. } => source,
                error => std::io::Error::other(error),
            };
            IngestError::io(action, &path)(source)
        }
    }

    /// Builds an [`IngestError::Io`] in `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IngestError {
        let path = path.to_owned();
        move |source| IngestError::Io { action, path, source }
    }

    /// Path of the file or folder that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            IngestError::RoleTwice { folder, .. } | IngestError::NoSplit { folder, .. } => folder,
            IngestError::Io { path, .. }
            | IngestError::Name { path }
            | IngestError::Kind { path, .. }
            | IngestError::Npy { path, .. }
            | IngestError::Header { path, .. }
            | IngestError::Sheet { path, .. }
            | IngestError::ForeignClasses { path, .. }
            | IngestError::ClassList { path, .. }
            | IngestError::Parquet { path, .. }
            | IngestError::Features { path, .. }
            | IngestError::Predictions { path }
            | IngestError::Text { path, .. }
            | IngestError::UserLabels { path, .. }
            | IngestError::Label { path, .. } => path,
        }
    }

    /// The message, followed by the messages of its sources, in the form of `{:#}` in anyhow.
    pub fn chain(&self) -> String {
        crate::chain::chain(self)
    }

    /// Makes a rejected row for the whole file, so that a bad file does not stop the reading of other files.
    pub fn into_reject(self, file: &Path, video: Option<&str>) -> RejectRow {
        RejectRow {
            video: video.map(str::to_owned),
            ..RejectRow::reject(
                RejectKind::UnreadableFile,
                file.display().to_string(),
                self.chain(),
            )
        }
    }
}
