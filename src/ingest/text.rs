//! Class text embeddings.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::annotations::unknown_class;
use super::error::IngestError;
use super::npy;
use super::open::open_regular;
use super::parquet::{EmbeddingFile, Key, KeyColumn};

/// One embedding per class, `[C, width]` row-major, in the order of the classes; not normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEmbeddings {
    /// File read.
    pub path: PathBuf,
    /// D.
    pub width: usize,
    /// `[C, width]`, finite, no row all zeros.
    pub data: Vec<f32>,
    /// Prompt of each class where the file has it (Parquet column `prompt`).
    pub prompts: Vec<Option<Arc<str>>>,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

const COLUMNS: [KeyColumn; 2] = [
    KeyColumn {
        name: "class",
        key: Key::Text,
        optional: false,
    },
    KeyColumn {
        name: "prompt",
        key: Key::Text,
        optional: true,
    },
];

impl TextEmbeddings {
    /// Reads npy `(C, D)` in the order of `classes`, or Parquet with columns `class`, `feature` (as in
    /// [`features`](super::features)) and optionally `prompt`, in any order.
    ///
    /// # Errors
    /// [`IngestError::Text`] naming row and class, for another number of classes, a class that is missing, doubled or
    /// unknown, NaN, infinity, or a vector of zeros; and what [`npy`] and Parquet files give.
    pub fn read(path: &Path, classes: &[Arc<str>]) -> Result<TextEmbeddings, IngestError> {
        let parquet = path.extension().is_some_and(|extension| extension == "parquet");
        let (width, data, prompts) = if parquet {
            read_parquet(path, classes)?
        } else {
            read_npy(path, classes)?
        };
        for (row, (vector, class)) in data.chunks_exact(width).zip(classes).enumerate() {
            let bad = |problem: String| text(path, format!("class `{class}`, row {row}"), problem);
            if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
                return Err(bad(format!(
                    "value {at} is {}, expected a finite number",
                    vector[at]
                )));
            }
            if vector.iter().all(|&value| value == 0.0) {
                return Err(bad("all values are 0, expected a direction".to_owned()));
            }
        }
        Ok(TextEmbeddings {
            path: path.to_owned(),
            width,
            data,
            prompts,
            sha256: sha256(path)?,
        })
    }

    /// Embedding of a class by position.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn row(&self, class: usize) -> &[f32] {
        &self.data[class * self.width..(class + 1) * self.width]
    }
}

type Parts = (usize, Vec<f32>, Vec<Option<Arc<str>>>);

fn read_npy(path: &Path, classes: &[Arc<str>]) -> Result<Parts, IngestError> {
    let matrix = npy::read_floats(path)?.into_matrix(path)?;
    if matrix.rows != classes.len() {
        let (found, wanted) = (matrix.rows, classes.len());
        let problem = format!("has {found} rows, expected one for each of {wanted} classes");
        return Err(text(path, "shape".to_owned(), problem));
    }
    Ok((matrix.cols, matrix.data, vec![None; classes.len()]))
}

fn read_parquet(path: &Path, classes: &[Arc<str>]) -> Result<Parts, IngestError> {
    let file = EmbeddingFile::open(path, &COLUMNS)?;
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; classes.len()];
    let mut prompts = vec![None; classes.len()];
    let mut width = None;
    let mut failed = None;
    let read = file.each(|rows| {
        for index in 0..rows.count {
            let row = rows.first + index as u64;
            let mut vector = Vec::new();
            let class = rows.text(0, index).unwrap_or_default();
            let place = format!("class `{class}`, row {row}");
            let taken = (|| {
                let position = classes.iter().position(|known| **known == *class);
                let position = position.ok_or_else(|| unknown_class(class, classes))?;
                let found = rows.features.append(index, &mut vector)?;
                let expected = *width.get_or_insert(found);
                if found != expected || found == 0 {
                    return Err(format!(
                        "feature has {found} values, expected {expected} as in row 0"
                    ));
                }
                if vectors[position].replace(vector).is_some() {
                    return Err("class is there twice, expected once".to_owned());
                }
                prompts[position] = rows.text(1, index).map(Arc::from);
                Ok(())
            })();
            if let Err(problem) = taken {
                failed = Some(text(path, place, problem));
                return false;
            }
        }
        true
    });
    if let Some(failed) = failed {
        return Err(failed);
    }
    read.map_err(|broken| text(path, format!("row {}", broken.row), broken.problem))?;
    let mut data = Vec::new();
    for (vector, class) in vectors.into_iter().zip(classes) {
        let missing = || {
            text(
                path,
                format!("class `{class}`"),
                "is missing, expected a row of it".to_owned(),
            )
        };
        data.extend(vector.ok_or_else(missing)?);
    }
    let width = width.ok_or_else(|| text(path, "shape".to_owned(), "has no rows".to_owned()))?;
    Ok((width, data, prompts))
}

fn text(path: &Path, place: String, problem: String) -> IngestError {
    IngestError::Text {
        path: path.to_owned(),
        place,
        problem,
    }
}

fn sha256(path: &Path) -> Result<String, IngestError> {
    let (mut file, _) = open_regular(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(IngestError::io("read", path))? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
