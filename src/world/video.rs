//! One video with its weak label, and which video the key of a feature file names.

use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use crate::ingest::annotations::{KeyError, Roster};

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

/// Tells which video a key of a feature file names.
#[derive(Clone, Debug)]
pub struct Names {
    roster: Roster,
    /// The index among the labelled videos for each position in the roster. `None`: the video exists, but is not
    /// labelled.
    chosen: Vec<Option<usize>>,
}

impl Names {
    /// Takes all known names, each with its index among the labelled videos (`None` if the video is not labelled).
    pub fn new(names: impl IntoIterator<Item = (Arc<str>, Option<usize>)>) -> Names {
        let (names, chosen): (Vec<_>, _) = names.into_iter().unzip();
        Names {
            roster: Roster::new(names),
            chosen,
        }
    }

    /// The video that a key names.
    pub fn meaning(&self, key: &str) -> Meaning {
        match self.roster.resolve(key) {
            Ok(position) => self.chosen[position].map_or(Meaning::NotLabelled, Meaning::Video),
            Err(KeyError::Unknown) => Meaning::Unknown,
            Err(ambiguous) => Meaning::Ambiguous {
                key: key.into(),
                reason: ambiguous.to_string(),
            },
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
