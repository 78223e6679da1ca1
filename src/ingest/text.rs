//! Reads the text embeddings of the classes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::annotations::unknown_class;
use super::error::IngestError;
use super::npy;
use super::open::open_regular;
use super::parquet::{ColumnKind, EmbeddingFile, FEATURE, KeyColumn};

/// One embedding per class, row-major, in the order of the classes and not normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEmbeddings {
    /// Path of the file.
    pub path: PathBuf,
    /// Number D of values per embedding.
    pub width: usize,
    /// Values of shape `[C, width]`. All are finite, and no row is all zeros.
    pub data: Vec<f32>,
    /// Prompt of each class, if the file has it (Parquet column `prompt`).
    pub prompts: Vec<Option<Arc<str>>>,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// The columns beside the embeddings.
fn columns() -> [KeyColumn; 2] {
    [("class", false), ("prompt", true)].map(|(name, optional)| KeyColumn {
        name: name.into(),
        kind: ColumnKind::Text,
        optional,
    })
}

impl TextEmbeddings {
    /// Reads an npy file of shape `(C, D)` in the order of `classes`, or a Parquet file with columns `class`,
    /// `feature` (as in [`features`](super::features)) and optionally `prompt`, with its rows in any order.
    ///
    /// # Errors
    /// Returns the errors of [`TextRows::read`] and [`TextRows::of`].
    pub fn read(path: &Path, classes: &[Arc<str>]) -> Result<TextEmbeddings, IngestError> {
        let (width, data, prompts) = TextRows::read(path)?.of(classes)?;
        Ok(TextEmbeddings {
            path: path.to_owned(),
            width,
            data,
            prompts,
            sha256: sha256(path)?,
        })
    }

    /// The embedding of the class at position `class`.
    ///
    /// # Panics
    /// Panics if there is no such class.
    pub fn row(&self, class: usize) -> &[f32] {
        &self.data[class * self.width..(class + 1) * self.width]
    }
}

/// Text embeddings from a file or a caller, before they are checked against a list of classes.
#[derive(Clone, Debug, PartialEq)]
pub struct TextRows {
    /// Path of the file, or any other name of the source, for messages.
    pub origin: PathBuf,
    /// Number D of values per embedding.
    pub width: usize,
    /// Values of shape `[rows, width]`, row-major, not normalised.
    pub data: Vec<f32>,
    /// Class of each row. `None` if the rows are in the order of the classes.
    pub classes: Option<Vec<Arc<str>>>,
    /// Prompt of each row, if it is known. An empty list means that no prompt is known.
    pub prompts: Vec<Option<Arc<str>>>,
}

/// Width D, embeddings `[C, D]`, and prompts in the order of a list of classes.
type Parts = (usize, Vec<f32>, Vec<Option<Arc<str>>>);

impl TextRows {
    /// Reads an npy file of shape `(C, D)`, or a Parquet file with columns `class`, `feature` and optionally
    /// `prompt`.
    ///
    /// # Errors
    /// Returns [`IngestError::Text`] if rows differ in width, and the errors of reading npy and Parquet files.
    pub fn read(path: &Path) -> Result<TextRows, IngestError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
            return read_parquet(path);
        }
        let matrix = npy::read_floats(path)?.into_matrix(path)?;
        Ok(TextRows {
            origin: path.to_owned(),
            width: matrix.cols,
            data: matrix.data,
            classes: None,
            prompts: Vec::new(),
        })
    }

    /// Width, embeddings and prompts in the order of `classes`.
    ///
    /// # Errors
    /// Returns [`IngestError::Text`] with class and row if the number of rows is not the number of classes, if a
    /// class is missing, repeated or unknown, or if an embedding has NaN or infinity or is all zeros.
    pub fn of(&self, classes: &[Arc<str>]) -> Result<Parts, IngestError> {
        let bad = |place: String, problem: String| text(&self.origin, place, problem);
        if self.width == 0 || !self.data.len().is_multiple_of(self.width) {
            let problem = format!("{} values, expected rows of {}", self.data.len(), self.width);
            return Err(bad("shape".to_owned(), problem));
        }
        let rows = self.data.len() / self.width;
        let mut places: Vec<Option<usize>> = vec![None; classes.len()];
        match &self.classes {
            Some(named) => {
                for (row, class) in named.iter().enumerate() {
                    let place = || format!("class `{class}`, row {row}");
                    let Some(position) = classes.iter().position(|known| known == class) else {
                        return Err(bad(place(), unknown_class(class, classes)));
                    };
                    if row >= rows {
                        return Err(bad(place(), format!("there are {rows} rows of values")));
                    }
                    if places[position].replace(row).is_some() {
                        return Err(bad(place(), "class is there twice, expected once".to_owned()));
                    }
                }
            }
            None if rows == classes.len() => places = (0..rows).map(Some).collect(),
            None => {
                let wanted = classes.len();
                let problem = format!("has {rows} rows, expected one for each of {wanted} classes");
                return Err(bad("shape".to_owned(), problem));
            }
        }
        let (mut data, mut prompts) = (Vec::with_capacity(self.data.len()), Vec::new());
        for (position, (place, class)) in places.into_iter().zip(classes).enumerate() {
            let Some(row) = place else {
                let problem = "is missing, expected a row of it".to_owned();
                return Err(bad(format!("class `{class}`"), problem));
            };
            let vector = &self.data[row * self.width..][..self.width];
            let place = || format!("class `{class}`, row {position}");
            if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
                let problem = format!("value {at} is {}, expected a finite number", vector[at]);
                return Err(bad(place(), problem));
            }
            if vector.iter().all(|&value| value == 0.0) {
                return Err(bad(place(), "all values are 0, expected a direction".to_owned()));
            }
            data.extend_from_slice(vector);
            prompts.push(self.prompts.get(row).cloned().flatten());
        }
        Ok((self.width, data, prompts))
    }
}

fn read_parquet(path: &Path) -> Result<TextRows, IngestError> {
    // The next function opens this copy.
    let _latest = super::remote::latest(path)?;
    let file = EmbeddingFile::open(path, &columns(), FEATURE)?;
    let (mut classes, mut prompts, mut data) = (Vec::new(), Vec::new(), Vec::new());
    let mut width = None;
    let mut failed = None;
    let read = file.each(|rows| {
        for index in 0..rows.count {
            let row = rows.first + index as u64;
            let class = rows.text(0, index).unwrap_or_default();
            let found = rows.features.append(index, &mut data);
            let checked = found.and_then(|found| {
                let expected = *width.get_or_insert(found);
                match found == expected && found != 0 {
                    true => Ok(()),
                    false => Err(format!(
                        "feature has {found} values, expected {expected} as in row 0"
                    )),
                }
            });
            if let Err(problem) = checked {
                failed = Some(text(path, format!("class `{class}`, row {row}"), problem));
                return false;
            }
            classes.push(Arc::from(class));
            prompts.push(rows.text(1, index).map(Arc::from));
        }
        true
    });
    if let Some(failed) = failed {
        return Err(failed);
    }
    read.map_err(|broken| text(path, format!("row {}", broken.row), broken.problem))?;
    let width = width.ok_or_else(|| text(path, "shape".to_owned(), "has no rows".to_owned()))?;
    Ok(TextRows {
        origin: path.to_owned(),
        width,
        data,
        classes: Some(classes),
        prompts,
    })
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
