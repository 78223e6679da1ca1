//! The segments that can be judged: those of each video, modality and class of its weak label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::rows::{LabelTrack, Split};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{Labels, Videos};
use vaplan_schemas::{Modality, StoreError};

use crate::choice::Choice;

/// What a sample is stratified by, beside the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditStrata {
    /// The class.
    Class,
    /// The modality.
    Modality,
    /// The rule that set the label.
    Rule,
    /// Nothing.
    All,
}

impl Choice for AuditStrata {
    const WHAT: &'static str = "strata";
    const ALL: &'static [(AuditStrata, &'static str, &'static str)] = &[
        (AuditStrata::Class, "class", "One stratum per class and label"),
        (
            AuditStrata::Modality,
            "modality",
            "One stratum per modality and label",
        ),
        (
            AuditStrata::Rule,
            "rule",
            "One stratum per rule that set the label, and label",
        ),
        (AuditStrata::All, "all", "One stratum per label"),
    ];
}

impl AuditStrata {
    /// The stratum of a segment, without its label.
    pub fn of(self, track: &LabelTrack, segment: usize) -> &str {
        match self {
            AuditStrata::Class => &track.class,
            AuditStrata::Modality => track.modality.as_str(),
            AuditStrata::Rule => track.rules[segment].as_str(),
            AuditStrata::All => "all",
        }
    }
}

/// The key of a track: video, modality and class.
pub type TrackKey = (Arc<str>, Modality, Arc<str>);

/// The labels of a store version, by track.
pub type Population = BTreeMap<TrackKey, LabelTrack>;

/// The labels of the videos of these splits.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn of_snapshot(snapshot: &Snapshot, splits: &[Split]) -> Result<Population, StoreError> {
    let videos = snapshot.read::<Videos>()?;
    let wanted: BTreeSet<Arc<str>> = videos
        .into_iter()
        .filter(|row| splits.contains(&row.split))
        .map(|row| row.video)
        .collect();
    let labels = snapshot
        .read::<Labels>()?
        .into_iter()
        .filter(|track| wanted.contains(&track.video));
    Ok(labels
        .map(|track| ((track.video.clone(), track.modality, track.class.clone()), track))
        .collect())
}
