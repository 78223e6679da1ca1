//! Reads VALOR-style label folders: one folder per modality with files `<id11>.npy` of 0 and 1 with shape `(T, C)`.

use std::path::{Path, PathBuf};

use vaplan_schemas::rows::RejectRow;

use super::error::IngestError;
use super::npy::{self, NpyProblem, Shape};

/// Labels of the segments of one video and modality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMatrix {
    /// Name of the file without `.npy`: the full name of the video, or its first 11 characters.
    pub key: String,
    /// Path of the file.
    pub path: PathBuf,
    /// Number T of segments.
    pub segments: usize,
    /// Number C of classes.
    pub classes: usize,
    /// Labels of shape `[segments, classes]`, row-major.
    pub labels: Vec<bool>,
}

/// All labels of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelFolder {
    /// Label matrices in order of the file names.
    pub videos: Vec<LabelMatrix>,
    /// Files that could not be read.
    pub rejects: Vec<RejectRow>,
}

impl LabelFolder {
    /// Reads every `.npy` file whose key is `wanted`. A bad file becomes a rejected row, and the other files are
    /// still read.
    ///
    /// # Errors
    /// - Returns [`IngestError::Io`] if the folder cannot be listed.
    /// - Returns [`IngestError::Features`] if the folder has no `.npy` file.
    pub fn read(
        folder: &Path,
        classes: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<LabelFolder, IngestError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
            let path = entry.map_err(IngestError::io("list", folder))?.path();
            if npy::is_npy(&path) {
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

/// Reads one file of integers or booleans with shape `(T, classes)`.
///
/// # Errors
/// - Returns [`IngestError::Label`] if a value is neither 0 nor 1.
/// - Returns [`NpyProblem::Shape`] if the number of classes is not `classes`.
/// - Returns the errors of [`npy::read_ints`].
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
