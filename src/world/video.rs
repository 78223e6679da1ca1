//! Videos, and which video the key of a feature file names.

use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use crate::ingest::annotations::{KeyError, Roster};

/// A video as labels see it.
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

/// What keys of feature files mean for a run.
#[derive(Clone, Debug)]
pub struct Names {
    roster: Roster,
    /// Of a position in the roster: position in [`Plan::videos`]; none: known, but not asked for.
    chosen: Vec<Option<usize>>,
}

impl Names {
    /// Of all known names, each with its position in [`Plan::videos`] where it is asked for.
    pub fn new(names: impl IntoIterator<Item = (Arc<str>, Option<usize>)>) -> Names {
        let (names, chosen): (Vec<_>, _) = names.into_iter().unzip();
        Names {
            roster: Roster::new(names),
            chosen,
        }
    }

    /// What a key means.
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

/// What the key of a feature file means for a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// This video, by its position in [`Plan::videos`].
    Video(usize),
    /// A video that is not asked for, or of no annotation.
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
