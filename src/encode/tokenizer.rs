//! Byte-level BPE as CLIP and CLAP (RoBERTa) use it, from a `tokenizer.json`.
//!
//! | module | what |
//! |---|---|
//! | [`file`](mod@file) | what a `tokenizer.json` says, and what of it is known here |
//! | `split` | text to words |
//! | `merge` | words to tokens |
//!
//! Ids are those of the `tokenizers` crate, which is not used because it switches on features of ahash and regex that
//! have arrow, parquet and datafusion built anew. What is not known here is refused by name, never passed over.

pub mod file;
mod merge;
mod split;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use file::{AddedToken, TokenizerFile};
use merge::Merges;
use split::Splitter;

/// What keeps a tokenizer from being used.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer `{path}`: {problem}")]
pub struct TokenizerError {
    /// Its `tokenizer.json`.
    pub path: PathBuf,
    /// What was found and what was expected.
    pub problem: String,
}

/// Text to ids.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    steps: Vec<Step>,
    splitter: Splitter,
    merges: Merges,
    added: Vec<AddedToken>,
    /// Ids before and after every text.
    begin: u32,
    end: u32,
}

/// A step of normalising.
#[derive(Clone, Debug)]
enum Step {
    Nfc,
    Lowercase,
    Replace(regex::Regex, String),
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError`], naming what is not known here.
    pub fn read(path: &Path) -> Result<Tokenizer, TokenizerError> {
        let failed = |problem: String| TokenizerError {
            path: path.to_owned(),
            problem,
        };
        let text =
            std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let file: TokenizerFile = serde_json::from_str(&text)
            .map_err(|error| failed(format!("is no tokenizer known here: {error}")))?;
        Tokenizer::new(file).map_err(failed)
    }

    fn new(file: TokenizerFile) -> Result<Tokenizer, String> {
        let steps = file
            .normalizer
            .map_or_else(|| Ok(Vec::new()), file::Normalizer::steps)?;
        let steps = steps
            .into_iter()
            .map(|step| match step {
                file::Normalizer::Nfc => Ok(Step::Nfc),
                file::Normalizer::Lowercase => Ok(Step::Lowercase),
                file::Normalizer::Replace { pattern, content } => {
                    let source = pattern.source();
                    let regex = regex::Regex::new(&source);
                    let regex = regex.map_err(|error| format!("pattern `{source}` is not known: {error}"))?;
                    Ok(Step::Replace(regex, content))
                }
                file::Normalizer::Sequence { .. } => {
                    Err("has a sequence of sequences to normalise".to_owned())
                }
            })
            .collect::<Result<Vec<Step>, String>>()?;
        let (begin, end) = file.post_processor.ends();
        let mut added = file.added_tokens;
        if let Some(token) = added
            .iter()
            .find(|token| token.single_word || token.content.is_empty())
        {
            let content = &token.content;
            return Err(format!(
                "added token `{content}` is empty or of `single_word`, which is not known here"
            ));
        }
        // Of two that begin at one place the longer is meant.
        added.sort_by_key(|token| std::cmp::Reverse(token.content.len()));
        let merges = Merges::new(file.model, &added)?;
        Ok(Tokenizer {
            steps,
            splitter: Splitter::new(&file.pre_tokenizer)?,
            merges,
            added,
            begin,
            end,
        })
    }

    /// Ids of a text, begin and end included; of more than `most` the last but the end are cut, as transformers does.
    pub fn encode(&self, text: &str, most: usize) -> Vec<u32> {
        let mut ids = vec![self.begin];
        for part in self.parts(text, false) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let text = self.normalise(&text);
                    for part in self.parts(&text, true) {
                        match part {
                            Part::Token(id) => ids.push(id),
                            Part::Text(text) => self.words(&text, &mut ids),
                        }
                    }
                }
            }
        }
        ids.truncate(most.max(2) - 1);
        ids.push(self.end);
        ids
    }

    /// Largest id and one: what a model's vocabulary has to hold.
    pub fn size(&self) -> u32 {
        let added = self.added.iter().map(|token| token.id + 1).max();
        self.merges.size().max(added.unwrap_or(0))
    }

    /// Id that CLIP pads with, and pools at: the end of a text.
    pub fn end(&self) -> u32 {
        self.end
    }

    fn words(&self, text: &str, ids: &mut Vec<u32>) {
        for word in self.splitter.words(text) {
            self.merges.append(&word, ids);
        }
    }

    fn normalise(&self, text: &str) -> String {
        self.steps.iter().fold(text.to_owned(), |text, step| match step {
            Step::Nfc => text.nfc().collect(),
            Step::Lowercase => text.to_lowercase(),
            Step::Replace(regex, content) => regex.replace_all(&text, regex::NoExpand(content)).into_owned(),
        })
    }

    /// Cuts added tokens out of a text: those that are looked for in the text as it is, or as normalised.
    fn parts(&self, text: &str, normalised: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let found = self
                .added
                .iter()
                .filter(|token| token.normalized == normalised)
                .filter_map(|token| rest.find(&token.content).map(|at| (at, token)))
                // The first; `added` has the longer ones first, and `min_by_key` keeps the first of equals.
                .min_by_key(|(at, _)| *at);
            let Some((at, token)) = found else { break };
            let mut before = &rest[..at];
            if token.lstrip {
                before = before.trim_end();
            }
            rest = &rest[at + token.content.len()..];
            if token.rstrip {
                rest = rest.trim_start();
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Token(token.id));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        parts
    }
}

enum Part {
    Token(u32),
    Text(String),
}

/// Char that stands for each byte: GPT-2's `bytes_to_unicode`.
fn byte_chars() -> [char; 256] {
    let plain = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u32;
        let code = if plain(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).expect("no surrogate is below 0x200")
    })
}

/// Id of each text; ordered, as all maps here.
type Vocabulary = BTreeMap<String, u32>;
