//! Reads VALOR-style label folders: one folder per modality with files `<id11>.npy` of 0 and 1 with shape `(T, C)`.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;

use super::error::IngestError;
use super::features::npy_files;
use super::npy::{self, Matrix, NpyNumbers, NpyProblem, Shape};

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
    /// Label matrices in order of the paths of their files.
    pub videos: Vec<LabelMatrix>,
    /// Files that could not be read.
    pub rejects: Vec<RejectRow>,
    /// Files whose key is not wanted, which were not opened.
    pub unwanted: Vec<PathBuf>,
}

impl LabelFolder {
    /// Reads every `.npy` file whose key is `wanted`. If the folder has no such file, the files in the folders below it are
    /// read, as for features. A bad file becomes a rejected row, and the other files are still read.
    ///
    /// # Errors
    /// - Returns [`IngestError::Io`] if the folder cannot be listed.
    /// - Returns [`IngestError::Features`] if the folder has no `.npy` file.
    pub fn read(
        folder: &Path,
        modality: Modality,
        classes: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<LabelFolder, IngestError> {
        let mut paths = npy_files(folder, modality)?;
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
            if !wanted(key_of(&path)) {
                read.unwanted.push(path);
                continue;
            }
            match read_labels(&path, classes) {
                Ok(matrix) => read.videos.push(matrix),
                Err(error) => read.rejects.push(error.into_reject(&path, Some(key_of(&path)))),
            }
        }
        Ok(read)
    }
}

fn key_of(path: &Path) -> &str {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.unwrap_or_default()
}

/// Reads one file of integers, booleans or floats with shape `(T, classes)`.
///
/// # Errors
/// - Returns [`IngestError::Label`] if a value is neither 0 nor 1. No value is rounded.
/// - Returns [`NpyProblem::Shape`] if the number of classes is not `classes`.
/// - Returns the errors of [`npy::read_numbers`].
pub fn read_labels(path: &Path, classes: usize) -> Result<LabelMatrix, IngestError> {
    match npy::read_numbers(path)? {
        NpyNumbers::Whole(array) => labels_of(path, &array.into_matrix(path)?, classes),
        NpyNumbers::Real(array) => labels_of(path, &array.into_matrix(path)?, classes),
    }
}

fn labels_of<T: Copy + PartialEq + Display + From<bool>>(
    path: &Path,
    matrix: &Matrix<T>,
    classes: usize,
) -> Result<LabelMatrix, IngestError> {
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
    let [unset, set] = [false, true].map(T::from);
    let is_label = |value: &T| *value == unset || *value == set;
    if let Some(at) = matrix.data.iter().position(|value| !is_label(value)) {
        return Err(IngestError::Label {
            path: path.to_owned(),
            row: at / classes,
            column: at % classes,
            value: matrix.data[at].to_string(),
        });
    }
    Ok(LabelMatrix {
        key: key_of(path).to_owned(),
        path: path.to_owned(),
        segments: matrix.rows,
        classes,
        labels: matrix.data.iter().map(|value| *value == set).collect(),
    })
}
