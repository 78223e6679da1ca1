//! VALOR-style label folders: `<id11>.npy`, `(T, C)` of 0 and 1, one folder per modality.

use std::path::{Path, PathBuf};

use vaplan_schemas::rows::RejectRow;

use super::error::IngestError;
use super::npy::{self, NpyProblem, Shape};

/// Segment labels of one video and modality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMatrix {
    /// Name of the file without `.npy`: a full name, or its first 11 characters.
    pub key: String,
    /// File read.
    pub path: PathBuf,
    /// T.
    pub segments: usize,
    /// C.
    pub classes: usize,
    /// `[segments, classes]`, row-major.
    pub labels: Vec<bool>,
}

/// All labels of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelFolder {
    /// In the order of the file names.
    pub videos: Vec<LabelMatrix>,
    /// Files that could not be read.
    pub rejects: Vec<RejectRow>,
}

impl LabelFolder {
    /// Reads every `.npy` whose key is `wanted`; a bad file is a reject, and loses nothing beside it.
    ///
    /// # Errors
    /// [`IngestError::Io`] if the folder cannot be listed, [`IngestError::Features`] if it holds no `.npy`.
    pub fn read(
        folder: &Path,
        classes: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<LabelFolder, IngestError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
            let path = entry.map_err(IngestError::io("list", folder))?.path();
            if path.extension().is_some_and(|extension| extension == "npy") {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            let problem = "holds no .npy file, expected `<video>.npy`".to_owned();
            return Err(IngestError::Features {
                path: folder.to_owned(),
                problem,
            });
        }
        paths.sort_unstable();
        let mut read = LabelFolder::default();
        for path in paths {
            let key = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            if !wanted(key) {
                continue;
            }
            match read_labels(&path, classes) {
                Ok(matrix) => read.videos.push(matrix),
                Err(error) => read.rejects.push(error.into_reject(&path, Some(key))),
            }
        }
        Ok(read)
    }
}

/// Reads one file of `(T, classes)` integers or booleans.
///
/// # Errors
/// [`IngestError::Label`] for a value other than 0 and 1, [`NpyProblem::Shape`] for another number of classes, and
/// what [`npy::read_ints`] gives.
pub fn read_labels(path: &Path, classes: usize) -> Result<LabelMatrix, IngestError> {
    let matrix = npy::read_ints(path)?.into_matrix(path)?;
    if matrix.cols != classes {
        let found = Shape(vec![matrix.rows as u64, matrix.cols as u64]);
        let problem = NpyProblem::Shape {
            found,
            expected: format!("(T, {classes})"),
        };
        return Err(IngestError::Npy {
            path: path.to_owned(),
            problem,
        });
    }
    if let Some(at) = matrix.data.iter().position(|value| !matches!(value, 0 | 1)) {
        let (row, column, value) = (at / classes, at % classes, matrix.data[at]);
        return Err(IngestError::Label {
            path: path.to_owned(),
            row,
            column,
            value,
        });
    }
    Ok(LabelMatrix {
        key: path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default()
            .to_owned(),
        path: path.to_owned(),
        segments: matrix.rows,
        classes,
        labels: matrix.data.iter().map(|&value| value == 1).collect(),
    })
}
