//! What a `tokenizer.json` says; what is not known here does not parse.

use serde::Deserialize;

use super::Vocabulary;

/// The parts that decide on ids.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenizerFile {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    pub(super) normalizer: Option<Normalizer>,
    pub(super) pre_tokenizer: PreTokenizer,
    pub(super) post_processor: PostProcessor,
    pub(super) model: VocabularyModel,
}

/// A token that is found in the text as it stands.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    pub(super) single_word: bool,
    pub(super) lstrip: bool,
    pub(super) rstrip: bool,
    pub(super) normalized: bool,
}

/// How a text is normalised.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Normalizer {
    #[serde(rename = "NFC")]
    Nfc,
    Lowercase,
    Replace {
        pattern: Pattern,
        content: String,
    },
    Sequence {
        normalizers: Vec<Normalizer>,
    },
}

impl Normalizer {
    /// One after the other.
    pub(super) fn steps(self) -> Result<Vec<Normalizer>, String> {
        Ok(match self {
            Normalizer::Sequence { normalizers } => normalizers,
            one => vec![one],
        })
    }
}

/// What is looked for.
#[derive(Clone, Debug, Deserialize)]
pub(super) enum Pattern {
    Regex(String),
    String(String),
}

impl Pattern {
    /// As a regular expression.
    pub(super) fn source(&self) -> String {
        match self {
            Pattern::Regex(source) => source.clone(),
            Pattern::String(text) => regex::escape(text),
        }
    }
}

/// How a text becomes words.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum PreTokenizer {
    Split {
        pattern: Pattern,
        behavior: String,
        invert: bool,
    },
    ByteLevel {
        #[serde(default)]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

fn yes() -> bool {
    true
}

/// What is put around the ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum PostProcessor {
    RobertaProcessing { sep: (String, u32), cls: (String, u32) },
}

impl PostProcessor {
    /// Ids before and after.
    pub(super) fn ends(&self) -> (u32, u32) {
        let PostProcessor::RobertaProcessing { sep, cls } = self;
        (cls.1, sep.1)
    }
}

/// The vocabulary.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum VocabularyModel {
    #[serde(rename = "BPE")]
    Bpe {
        #[serde(default)]
        unk_token: Option<String>,
        #[serde(default)]
        continuing_subword_prefix: Option<String>,
        #[serde(default)]
        end_of_word_suffix: Option<String>,
        #[serde(default)]
        byte_fallback: bool,
        #[serde(default)]
        ignore_merges: bool,
        vocab: Vocabulary,
        merges: Vec<Merge>,
    },
}

/// Two tokens that become one; older files have them in one text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Text(String),
    Pair(String, String),
}

impl Merge {
    pub(super) fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Merge::Text(text) => text.split_once(' '),
            Merge::Pair(left, right) => Some((left, right)),
        }
    }
}
