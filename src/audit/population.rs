//! The segments that can be judged: those of each video, modality and class of its weak label.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::rows::{LabelTrack, Split};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Labels, Videos};
use vaplan_schemas::{Modality, StoreError, bucket_of};

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

/// Labels of a store version, by track.
pub type Population = BTreeMap<TrackKey, LabelTrack>;

/// The key of a track.
pub fn key_of(track: &LabelTrack) -> TrackKey {
    (track.video.clone(), track.modality, track.class.clone())
}

/// Number of videos whose labels are in memory at a time.
const GROUP: usize = 8192;

/// The names of the videos of these splits, in groups whose labels fit into memory. The videos of a group are of few data
/// files.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn groups(snapshot: &Snapshot, splits: &[Split]) -> Result<Vec<Vec<Arc<str>>>, StoreError> {
    let buckets = snapshot.buckets()?.unwrap_or(1);
    let of_file = snapshot.map_files::<Videos, _>(&Filter::all(), |rows| {
        let rows = rows.into_iter().map(|found| found.row);
        let wanted = rows.filter(|row| splits.contains(&row.split));
        wanted.map(|row| row.video).collect::<Vec<_>>()
    })?;
    let mut names: Vec<Arc<str>> = of_file.into_iter().flatten().collect();
    names.sort_by_cached_key(|name| (bucket_of(name, buckets), name.clone()));
    Ok(names.chunks(GROUP).map(<[_]>::to_vec).collect())
}

/// The labels of these videos. A video that the version does not have is left out.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn of_videos(
    snapshot: &Snapshot,
    videos: impl IntoIterator<Item = Arc<str>>,
) -> Result<Population, StoreError> {
    let labels = snapshot.scan::<Labels>(&Filter::videos(videos))?;
    Ok(labels
        .into_iter()
        .map(|found| (key_of(&found.row), found.row))
        .collect())
}
