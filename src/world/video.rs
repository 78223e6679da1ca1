//! Videos, and which video the key of a feature file names.

use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use crate::ingest::annotations::{KeyError, Roster};

/// A video with its weak label.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// Hash of the name.
    pub id: VideoId,
    /// Full name.
    pub name: Arc<str>,
    /// Part of the data set.
    pub split: vaplan_schemas::rows::Split,
    /// Weak label, ascending.
    pub weak: Arc<[ClassId]>,
    /// File of the weak label.
    pub source: Arc<str>,
}

/// Which video each key of a feature file means.
#[derive(Clone, Debug)]
pub struct Names {
    roster: Roster,
    /// For each position in the roster the position in [`Plan::videos`]; none: the video exists but is not labelled.
    chosen: Vec<Option<usize>>,
}

impl Names {
    /// Takes all known names, each with its position in [`Plan::videos`]; none: the video is not labelled.
    pub fn new(names: impl IntoIterator<Item = (Arc<str>, Option<usize>)>) -> Names {
        let (names, chosen): (Vec<_>, _) = names.into_iter().unzip();
        Names {
            roster: Roster::new(names),
            chosen,
        }
    }

    /// The meaning of a key.
    pub fn meaning(&self, key: &str) -> Meaning {
        match self.roster.resolve(key) {
            Ok(position) => self.chosen[position].map_or(Meaning::Other, Meaning::Video),
            Err(KeyError::Unknown) => Meaning::Other,
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
    /// This video, by its position in the videos of a plan.
    Video(usize),
    /// A video that is not labelled, or no known video.
    Other,
    /// More than one video.
    Ambiguous {
        /// The key.
        key: Arc<str>,
        /// The message that names two of the videos.
        reason: String,
    },
}

impl Meaning {
    /// The reject of a key that means more than one video.
    pub fn reject(&self, file: &str, row: u64) -> Option<RejectRow> {
        let Meaning::Ambiguous { key, reason } = self else {
            return None;
        };
        let reject = RejectRow::reject(RejectKind::AmbiguousKey, file, reason.clone());
        Some(reject.row(row).video(&**key))
    }
}
