//! Class text embeddings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One embedding per class, `[C, width]` row-major, in the order of the classes; not normalised.
#[derive(Clone, Debug)]
pub struct TextEmbeddings {
    /// File read.
    pub path: PathBuf,
    /// D.
    pub width: usize,
    /// `[C, width]`.
    pub data: Vec<f32>,
    /// Prompt of each class where the file has it (Parquet column `prompt`).
    pub prompts: Vec<Option<Arc<str>>>,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

impl TextEmbeddings {
    /// Reads npy `(C, D)`, or Parquet with `class`, `feature` and optionally `prompt`.
    pub fn read(path: &Path, classes: &[Arc<str>]) -> Result<TextEmbeddings, super::error::IngestError> {
        let _ = classes;
        Err(super::error::IngestError::Features {
            path: path.to_owned(),
            problem: String::new(),
        })
    }
}
