//! Texts to token ids, by a `tokenizer.json` and the `tokenizers` crate.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use tokenizers::ModelWrapper;
use vaplan_schemas::contain::contain;

/// A text that every tokenizer has ids for.
const PROBE: &str = "a";

/// A tokenizer cannot be used, or cannot encode a text.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer `{path}`: {problem}")]
pub struct TokenizerError {
    /// Path of the `tokenizer.json`.
    pub path: PathBuf,
    /// What was found and what was expected.
    pub problem: String,
}

/// Encodes texts as token ids.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    end: u32,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// The file's own `truncation` and `padding` are ignored: the model decides how many ids it takes.
    ///
    /// # Errors
    /// [`TokenizerError`] if the file cannot be read, is no tokenizer, or puts no ids before and after a text.
    pub fn read(path: &Path) -> Result<Tokenizer, TokenizerError> {
        let failed = |problem: String| TokenizerError {
            path: path.to_owned(),
            problem,
        };
        let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        // The crate panics on some files that lack a field.
        let mut inner = contain(|| tokenizers::Tokenizer::from_bytes(&bytes))
            .map_err(|panic| failed(format!("is not a tokenizer: {panic}")))?
            .map_err(|error| failed(format!("is not a tokenizer: {error}")))?;
        inner.with_padding(None);
        // Dropout is for training: equal texts would get different ids.
        if let ModelWrapper::BPE(model) = inner.get_model()
            && model.dropout.is_some()
        {
            let mut model = model.clone();
            model.dropout = None;
            inner.with_model(model);
        }
        inner
            .with_truncation(None)
            .expect("taking truncation away cannot fail");
        let mut made = Tokenizer {
            path: path.to_owned(),
            inner,
            end: 0,
        };
        let ends = made.ids("")?;
        let &[_, end] = ends.as_slice() else {
            return Err(failed(format!(
                "encodes the empty text as {ends:?}, expected two ids, one before and one after a text: a \
                 `post_processor` of type RobertaProcessing or TemplateProcessing adds them"
            )));
        };
        let around = made.ids(PROBE)?;
        if around.len() < 3 || around.first() != ends.first() || around.last() != Some(&end) {
            return Err(failed(format!(
                "encodes the text `{PROBE}` as {around:?}, expected the id {} first, the id {end} last, and ids of the text \
                 between them",
                ends[0]
            )));
        }
        made.end = end;
        Ok(made)
    }

    /// Token ids of a text with the ids before and after it, at most `most` (2 or more).
    ///
    /// A longer text loses its last ids but keeps the id after the text, as in transformers.
    ///
    /// # Errors
    /// [`TokenizerError`] if the text has a character that the vocabulary cannot express.
    pub fn encode(&self, text: &str, most: usize) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.ids(text)?;
        if ids.len() > most {
            ids.truncate(most.max(2) - 1);
            ids.push(self.end);
        }
        Ok(ids)
    }

    /// The id after every text. CLIP pads with this id and pools at its first place.
    pub fn end(&self) -> u32 {
        self.end
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let failed = |problem: String| TokenizerError {
            path: self.path.clone(),
            problem: format!("cannot encode the text `{text}`: {problem}"),
        };
        let encoding = contain(|| self.inner.encode_fast(text, true))
            .map_err(failed)?
            .map_err(|error| failed(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}
