//! One video with its weak label, and which video the key of a feature file names.

use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use crate::ingest::annotations::{KeyError, key11};

/// A video with its weak label.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// Hash of the full name.
    pub id: VideoId,
    /// Full name.
    pub name: Arc<str>,
    /// Split that the video belongs to.
    pub split: vaplan_schemas::rows::Split,
    /// Classes of the weak label in ascending order.
    pub weak: Arc<[ClassId]>,
    /// File that the weak label comes from.
    pub source: Arc<str>,
}

/// Tells which video a key of a feature file names, as [`Roster`](crate::ingest::annotations::Roster) does. A plan keeps
/// the names of all videos of a run, so this type needs only 24 bytes per video beside the names.
#[derive(Clone, Debug)]
pub struct Names {
    names: Vec<Arc<str>>,
    /// Positions in `names`, in alphabetical order of names. All names that begin with a key are together.
    order: Vec<u32>,
    /// The index among the labelled videos for each position in `names`; [`NOT_LABELLED`] if the video is not labelled.
    chosen: Vec<u32>,
}

const NOT_LABELLED: u32 = u32::MAX;

impl Names {
    /// Takes all known names, each with its index among the labelled videos (`None` if the video is not labelled).
    ///
    /// # Panics
    /// Panics if there are 2^32 - 1 or more names.
    pub fn new(names: impl IntoIterator<Item = (Arc<str>, Option<usize>)>) -> Names {
        let index = |chosen: Option<usize>| match chosen {
            Some(position) => u32::try_from(position).expect("fewer than 2^32 videos"),
            None => NOT_LABELLED,
        };
        let (names, chosen): (Vec<Arc<str>>, Vec<u32>) = names
            .into_iter()
            .map(|(name, chosen)| (name, index(chosen)))
            .unzip();
        let mut order: Vec<u32> = (0..u32::try_from(names.len()).expect("fewer than 2^32 videos")).collect();
        order.sort_unstable_by(|a, b| names[*a as usize].cmp(&names[*b as usize]));
        Names { names, order, chosen }
    }

    /// The video that a key names.
    pub fn meaning(&self, key: &str) -> Meaning {
        let name = |position: &u32| &*self.names[*position as usize];
        let first = self.order.partition_point(|position| name(position) < key);
        let later = &self.order[first..];
        let fits = |position: &&u32| name(position) == key || key11(name(position)) == key;
        let Some(own) = later.first().filter(fits) else {
            return Meaning::Unknown;
        };
        if name(own) != key {
            let count = later.partition_point(|position| name(position).starts_with(key));
            let last = later[count - 1];
            if last != *own {
                let ambiguous = KeyError::Ambiguous {
                    key: key.to_owned(),
                    first: self.names[*own as usize].clone(),
                    second: self.names[last as usize].clone(),
                };
                return Meaning::Ambiguous {
                    key: key.into(),
                    reason: ambiguous.to_string(),
                };
            }
        }
        match self.chosen[*own as usize] {
            NOT_LABELLED => Meaning::NotLabelled,
            position => Meaning::Video(position as usize),
        }
    }
}

/// The meaning of the key of a feature file.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// The key names this video, by its index among the labelled videos.
    Video(usize),
    /// The key names a known video that is not labelled.
    NotLabelled,
    /// The key names no known video.
    Unknown,
    /// The key fits more than one video.
    Ambiguous {
        /// The ambiguous key.
        key: Arc<str>,
        /// A message that names two of the videos.
        reason: String,
    },
}

impl Meaning {
    /// Whether features under the key must be read. An ambiguous key is read, so that it can be rejected by name.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Meaning::Video(_) | Meaning::Ambiguous { .. })
    }

    /// The rejected row for a key that fits more than one video. `None` for any other key.
    pub fn reject(&self, file: &str, row: u64) -> Option<RejectRow> {
        let Meaning::Ambiguous { key, reason } = self else {
            return None;
        };
        let reject = RejectRow::reject(RejectKind::AmbiguousKey, file, reason.clone());
        Some(reject.row(row).video(&**key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::annotations::Roster;

    #[test]
    fn keys_mean_the_videos_that_the_roster_tells() {
        let names = [
            "AAAAAAAAAAA_20_30",
            "AAAAAAAAAAA_0_10",
            "AAAAAAAAAAAB",
            "BBBBBBBBBBB_0_10",
            "BBBBBBBBBBB",
            "short",
            "ééééééééééé_0_10",
            "CCCCCCCCCCC_0_10",
            "CCCCCCCCCC",
        ];
        let roster = Roster::new(names);
        // Every third video is not labelled.
        let chosen = |position: usize| (position % 3 != 2).then_some(position);
        let known = (0..)
            .zip(names)
            .map(|(position, name)| (name.into(), chosen(position)));
        let known = Names::new(known);
        let mut keys: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for name in names {
            keys.extend(name.char_indices().map(|(end, _)| name[..end].to_owned()));
            keys.extend([format!("{name}x"), key11(name).to_owned()]);
        }
        for key in keys {
            let wanted = match roster.resolve(&key) {
                Ok(position) => chosen(position).map_or(Meaning::NotLabelled, Meaning::Video),
                Err(KeyError::Unknown) => Meaning::Unknown,
                Err(ambiguous) => Meaning::Ambiguous {
                    key: (&*key).into(),
                    reason: ambiguous.to_string(),
                },
            };
            assert_eq!(known.meaning(&key), wanted, "{key}");
        }
        assert!(matches!(known.meaning("AAAAAAAAAAA"), Meaning::Ambiguous { .. }));
        assert_eq!(known.meaning("BBBBBBBBBBB"), Meaning::Video(4));
        assert_eq!(Names::new([]).meaning(""), Meaning::Unknown);
    }
}
