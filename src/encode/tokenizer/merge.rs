//! Words to tokens by byte-pair merges.
//!
//! Source: Sennrich et al. (arXiv 1508.07909); the pair of the lowest rank first, the leftmost of equals, as the
//! `tokenizers` crate does.

use std::collections::BTreeMap;

use super::Vocabulary;
use super::file::{AddedToken, VocabularyModel};

/// Ranks of pairs and ids of tokens.
#[derive(Clone, Debug)]
pub(super) struct Merges {
    /// Of each char that begins or goes on in a word, and of each that ends one.
    inner: BTreeMap<char, u32>,
    last: BTreeMap<char, u32>,
    /// Rank, and id of what the two become.
    pairs: BTreeMap<(u32, u32), (u32, u32)>,
    unknown: Option<u32>,
    size: u32,
}

impl Merges {
    pub(super) fn new(model: VocabularyModel, added: &[AddedToken]) -> Result<Merges, String> {
        let VocabularyModel::Bpe {
            unk_token,
            continuing_subword_prefix,
            end_of_word_suffix,
            byte_fallback,
            ignore_merges,
            vocab,
            merges,
        } = model;
        if byte_fallback
            || ignore_merges
            || continuing_subword_prefix.is_some_and(|prefix| !prefix.is_empty())
        {
            return Err(
                "uses `byte_fallback`, `ignore_merges` or `continuing_subword_prefix`, which is not known here"
                    .to_owned(),
            );
        }
        let suffix = end_of_word_suffix.unwrap_or_default();
        let id = |token: &str| id(&vocab, token);
        let mut pairs = BTreeMap::new();
        for (rank, merge) in merges.iter().enumerate() {
            let (left, right) = merge
                .pair()
                .ok_or_else(|| format!("merge {rank} is {merge:?}, expected two tokens"))?;
            let pair = (id(left)?, id(right)?);
            let rank = u32::try_from(rank).map_err(|_| "has 2^32 merges or more".to_owned())?;
            pairs
                .entry(pair)
                .or_insert((rank, id(&format!("{left}{right}"))?));
        }
        let single = |token: &str| {
            let mut chars = token.chars();
            chars.next().filter(|_| chars.next().is_none())
        };
        let inner = vocab.iter().filter_map(|(token, &id)| Some((single(token)?, id)));
        let last = vocab
            .iter()
            .filter_map(|(token, &id)| Some((single(token.strip_suffix(suffix.as_str())?)?, id)));
        let unknown = match &unk_token {
            None => None,
            Some(token) => Some(
                id(token)
                    .ok()
                    .or_else(|| {
                        added
                            .iter()
                            .find(|added| added.content == *token)
                            .map(|added| added.id)
                    })
                    .ok_or_else(|| format!("unknown token `{token}` is no token"))?,
            ),
        };
        Ok(Merges {
            inner: inner.collect(),
            last: last.collect(),
            pairs,
            unknown,
            size: vocab.values().max().map_or(0, |id| id.saturating_add(1)),
        })
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Appends the ids of a word.
    ///
    /// A char that is no token is the unknown token, or nothing where there is none.
    pub(super) fn append(&self, word: &str, ids: &mut Vec<u32>) {
        let mut tokens = Vec::with_capacity(word.len());
        let mut chars = word.chars().peekable();
        while let Some(char) = chars.next() {
            let known = if chars.peek().is_none() {
                &self.last
            } else {
                &self.inner
            };
            tokens.extend(known.get(&char).copied().or(self.unknown));
        }
        // Quadratic in a word's length: as long as a prompt is, no matter.
        loop {
            let ranked = tokens.windows(2).enumerate().filter_map(|(at, pair)| {
                let &(rank, merged) = self.pairs.get(&(pair[0], pair[1]))?;
                Some((rank, at, merged))
            });
            let Some((_, at, merged)) = ranked.min() else {
                break;
            };
            tokens[at] = merged;
            tokens.remove(at + 1);
        }
        ids.extend(tokens);
    }
}

fn id(vocab: &Vocabulary, token: &str) -> Result<u32, String> {
    vocab
        .get(token)
        .copied()
        .ok_or_else(|| format!("token `{token}` of a merge is not in its vocabulary"))
}
