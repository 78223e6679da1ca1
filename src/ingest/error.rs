//! What can go wrong at the border.

use std::io;
use std::path::{Path, PathBuf};

use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::npy::NpyProblem;

/// An input that cannot be read; each names the file, the place in it, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A file or folder could not be opened, listed or read.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried: "read", "list", "write".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A path that text cannot hold.
    #[error(
        "path `{}` is not UTF-8, expected a UTF-8 name: rename the file or folder, or name a link to it",
        path.as_os_str().as_encoded_bytes().escape_ascii()
    )]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// Something is there, but neither a regular file nor a link to one.
    #[error("`{path}` is {found}, expected {expected}")]
    Kind {
        /// Where.
        path: PathBuf,
        /// "a FIFO", "a folder", ...
        found: &'static str,
        /// "a regular file", ...
        expected: &'static str,
    },
    /// An npy file that is damaged, or that holds something else than is wanted.
    #[error("npy file `{path}`: {problem}")]
    Npy {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: NpyProblem,
    },
    /// Two files of an annotation folder could be the same one.
    #[error("folder `{folder}` holds two files for `*{suffix}`: `{first}` and `{second}`, expected one")]
    RoleTwice {
        /// Annotation folder.
        folder: PathBuf,
        /// How the file's name ends.
        suffix: &'static str,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// An annotation folder without a split.
    #[error(
        "folder `{folder}` holds no split, expected `*train.csv`, `*val_pd.csv` or `*test_pd.csv` (csv files found: {})",
        if found.is_empty() { "none".to_owned() } else { found.join(", ") }
    )]
    NoSplit {
        /// Annotation folder.
        folder: PathBuf,
        /// What it holds.
        found: Vec<String>,
    },
    /// The first line of an annotation file lacks a column.
    #[error("`{path}`, row 1: no column `{column}`, expected tab-separated {expected} (found: `{found}`)")]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        column: &'static str,
        /// All columns wanted.
        expected: String,
        /// The first line, cut.
        found: String,
    },
    /// The first line of a delimited file lacks a column.
    #[error(
        "`{path}`, row 1: no column `{column}`, expected a line that names {expected} (found: `{found}`)"
    )]
    Sheet {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        column: &'static str,
        /// All columns of use.
        expected: String,
        /// The first line, cut.
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
        /// First row with it.
        row: u64,
        /// The class.
        class: String,
        /// LLP's class of the most similar name.
        nearest: String,
    },
    /// A list of classes is not one name a line.
    #[error("class list `{path}`, row {row}: {problem}")]
    ClassList {
        /// Which file.
        path: PathBuf,
        /// Line, from 1; 0 for the whole file.
        row: u64,
        /// What was found and what was expected.
        problem: String,
    },
    /// A Parquet file that is damaged, or that lacks what is wanted.
    #[error("parquet file `{path}`: {problem}")]
    Parquet {
        /// Which file.
        path: PathBuf,
        /// What was found and what was expected, with row and column.
        problem: String,
    },
    /// A folder or file that holds no features.
    #[error("`{path}`: {problem}")]
    Features {
        /// Which.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// Predictions without a modality.
    #[error(
        "predictions `{path}` do not say of which modality they are, expected Parquet with a column `modality`, or a \
         folder with `audio` and `visual` in it"
    )]
    Predictions {
        /// Which file.
        path: PathBuf,
    },
    /// A text embedding that cannot be used.
    #[error("text embeddings `{path}`, {place}: {problem}")]
    Text {
        /// Which file.
        path: PathBuf,
        /// Row and class, or "shape".
        place: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A cell of a label file is neither 0 nor 1.
    #[error("label file `{path}`, row {row}, column {column}: label is {value}, expected 0 or 1")]
    Label {
        /// Which file.
        path: PathBuf,
        /// Segment, from 0.
        row: usize,
        /// Class, from 0.
        column: usize,
        /// What is there.
        value: i64,
    },
}

impl IngestError {
    /// Builds an [`IngestError::Io`] in `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IngestError {
        let path = path.to_owned();
        move |source| IngestError::Io { action, path, source }
    }

    /// The file or folder it is about.
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
            | IngestError::Label { path, .. } => path,
        }
    }

    /// The message with those of its sources, as `{:#}` of anyhow gives it.
    pub fn chain(&self) -> String {
        crate::chain::chain(self)
    }

    /// The whole file as a rejected row, so that a bad file takes nothing beside it along.
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
