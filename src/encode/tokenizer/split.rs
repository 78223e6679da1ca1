//! Text to words.

use regex::Regex;

use super::byte_chars;
use super::file::PreTokenizer;

/// GPT-2's pattern, without its last look-ahead, which the function of that name does by hand: `regex` has none.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// Cuts texts to words, and writes these in the chars that stand for bytes.
#[derive(Clone, Debug)]
pub(super) struct Splitter {
    /// What is a word, before GPT-2's pattern.
    words: Option<Regex>,
    gpt2: Option<Regex>,
    prefix_space: bool,
    chars: [char; 256],
}

impl Splitter {
    pub(super) fn new(file: &PreTokenizer) -> Result<Splitter, String> {
        let mut made = Splitter {
            words: None,
            gpt2: None,
            prefix_space: false,
            chars: byte_chars(),
        };
        let steps = match file {
            PreTokenizer::Sequence { pretokenizers } => pretokenizers.as_slice(),
            one => std::slice::from_ref(one),
        };
        let (split, bytes) = match steps {
            [bytes] => (None, bytes),
            [split, bytes] => (Some(split), bytes),
            _ => {
                return Err(format!(
                    "has {} pre-tokenizers, expected `Split` and `ByteLevel`",
                    steps.len()
                ));
            }
        };
        if let Some(split) = split {
            let PreTokenizer::Split {
                pattern,
                behavior,
                invert: true,
            } = split
            else {
                return Err("has a pre-tokenizer that is no inverted `Split`".to_owned());
            };
            if behavior != "Removed" {
                return Err(format!(
                    "has a `Split` of behaviour `{behavior}`, expected `Removed`"
                ));
            }
            let source = pattern.source();
            let regex =
                Regex::new(&source).map_err(|error| format!("pattern `{source}` is not known: {error}"))?;
            made.words = Some(regex);
        }
        let PreTokenizer::ByteLevel {
            add_prefix_space,
            use_regex,
        } = bytes
        else {
            return Err("has no `ByteLevel` as its last pre-tokenizer".to_owned());
        };
        made.prefix_space = *add_prefix_space;
        if *use_regex {
            made.gpt2 = Some(Regex::new(GPT2).expect("the pattern is right"));
        }
        Ok(made)
    }

    /// Words of a text, in the chars that stand for their bytes.
    pub(super) fn words(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        match &self.words {
            Some(regex) => regex
                .find_iter(text)
                .for_each(|word| self.bytes(word.as_str(), &mut words)),
            None => self.bytes(text, &mut words),
        }
        words
    }

    fn bytes(&self, text: &str, words: &mut Vec<String>) {
        let spaced;
        let mut text = text;
        if self.prefix_space && !text.starts_with(char::is_whitespace) {
            spaced = format!(" {text}");
            text = &spaced;
        }
        let write = |word: &str| word.bytes().map(|byte| self.chars[usize::from(byte)]).collect();
        match &self.gpt2 {
            Some(regex) => gpt2(regex, text, |word| words.push(write(word))),
            None => words.push(write(text)),
        }
    }
}

/// Words of GPT-2's pattern. Its `\s+(?!\S)` leaves the last of some spaces to the word after them.
fn gpt2(regex: &Regex, text: &str, mut word: impl FnMut(&str)) {
    let mut at = 0;
    while let Some(found) = regex.find_at(text, at) {
        let mut end = found.end();
        let spaces = found.as_str().chars().all(char::is_whitespace);
        if spaces && end < text.len() {
            let last = found
                .as_str()
                .char_indices()
                .next_back()
                .map_or(0, |(last, _)| last);
            // One space alone stays a word of its own.
            if last > 0 {
                end = found.start() + last;
            }
        }
        word(&text[found.start()..end]);
        at = end;
    }
}
