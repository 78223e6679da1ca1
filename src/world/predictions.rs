//! Predictions of an epoch that come with a change, as tracks of the videos of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{PredictionTrack, RejectKind, RejectRow, Severity};
use vaplan_schemas::store::Snapshot;

use super::changes::{EpochPredictions, Origin};
use super::resolve::WeakNow;
use super::videos::LoadedVideos;
use crate::error::LabelError;
use crate::ingest::annotations::KeyError;

/// Tracks of the videos that the store has after a change, and the rows that were left out.
#[derive(Debug, Default)]
pub(crate) struct PredictedTracks {
    pub(crate) tracks: Vec<PredictionTrack>,
    pub(crate) rejects: Vec<RejectRow>,
}

/// Finds the video of every row of predictions. Rows with the wrong number of classes, and keys that fit two videos,
/// are rejected.
///
/// `weak` holds the videos that the same change adds or removes. `rejects` holds the rows that the reader left out:
/// if a row of a file was left out, the other rows of this file about the same video do not count either. Predictions
/// of a video that the store lacks are ignored without a rejection, because the store may hold some splits only.
pub(crate) fn tracks(
    snapshot: &Snapshot,
    known: &mut LoadedVideos,
    weak: &BTreeMap<Arc<str>, Option<WeakNow>>,
    given: &EpochPredictions,
    rejects: &[RejectRow],
    classes: usize,
) -> Result<PredictedTracks, LabelError> {
    let epoch = given.epoch;
    let keys: BTreeSet<Arc<str>> = given.rows.iter().map(|row| row.key.clone()).collect();
    known.want(snapshot, keys.iter().cloned())?;
    // A key that is no full name can be the beginning of one. Only the names of all videos tell which video it is.
    if keys.iter().any(|key| known.get(key).is_none()) {
        known.want_all(snapshot)?;
    }
    let roster = known.roster_after(weak);
    let rejected = rejects.iter().filter(|row| row.severity == Severity::Reject);
    let bad: BTreeSet<(&str, usize)> = rejected
        .filter_map(|row| Some((&*row.file, roster.resolve(row.video.as_deref()?).ok()?)))
        .collect();
    let mut found = PredictedTracks::default();
    let mut tracks: BTreeMap<(Arc<str>, Modality), (PredictionTrack, &Origin)> = BTreeMap::new();
    for row in &given.rows {
        let origin = &row.origin;
        let mut refuse = |kind, reason: String| {
            let row_of = origin.reject(kind, Some(&row.key), reason);
            found.rejects.push(row_of.modality(row.modality));
        };
        if row.classes != classes {
            refuse(
                RejectKind::FeatureRow,
                format!(
                    "prediction has {} values, expected {classes}, one per class",
                    row.classes
                ),
            );
            continue;
        }
        if row.probability.is_empty() || row.probability.len() % classes != 0 {
            let values = row.probability.len();
            refuse(
                RejectKind::FeatureRow,
                format!(
                    "predictions are {values} values, expected a multiple of {classes}, one per segment and class"
                ),
            );
            continue;
        }
        let name = match roster.resolve(&row.key) {
            Ok(position) if bad.contains(&(&*origin.file, position)) => continue,
            Ok(position) => roster.name(position).clone(),
            Err(KeyError::Unknown) => continue,
            Err(ambiguous) => {
                refuse(RejectKind::AmbiguousKey, ambiguous.to_string());
                continue;
            }
        };
        let track = PredictionTrack {
            epoch,
            video: name.clone(),
            modality: row.modality,
            classes: classes as u32,
            probability: row.probability.clone(),
        };
        let key = (name, row.modality);
        match tracks.get(&key) {
            Some((other, _)) if same(other, &track) => {}
            Some((_, first)) => refuse(
                RejectKind::PredictionConflict,
                format!(
                    "prediction differs from that in `{}`: the first counts",
                    first.file
                ),
            ),
            None => drop(tracks.insert(key, (track, origin))),
        }
    }
    found.tracks = tracks.into_values().map(|(track, _)| track).collect();
    Ok(found)
}

/// Compares probabilities bit by bit: with `==`, a NaN would differ from itself.
pub(crate) fn same(a: &PredictionTrack, b: &PredictionTrack) -> bool {
    let bits = |track: &PredictionTrack| {
        track
            .probability
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    let key = |track: &PredictionTrack| (track.epoch, track.video.clone(), track.modality, track.classes);
    key(a) == key(b) && bits(a) == bits(b)
}
