//! What labelling tracks anew changes.

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::{LabelChangeRow, LabelChangeTrack, LabelTrack};
use vaplan_schemas::store::Place;

use crate::engine::SetLabels;
use crate::world::Both;
use crate::world::flips::FlipCounts;

/// What labelling the tracks changes.
#[derive(Debug, Default)]
pub(crate) struct TrackChanges {
    pub(crate) set: u64,
    pub(crate) unset: u64,
    /// The number of videos with tracks that were labelled anew.
    pub(crate) videos: u64,
    /// The number of rows of `labels` and of `scores` that were made anew.
    pub(crate) rows: [u64; 2],
    /// The changed labels, if nothing is committed.
    pub(crate) changes: Vec<LabelChangeRow>,
    /// The flips of all tracks, if these are counted.
    pub(crate) flips: FlipCounts,
    /// The labels of the tracks that were labelled anew.
    pub(crate) labels: Both<SetLabels>,
    /// The old places and the new rows of a patch of `labels`.
    pub(crate) gone: Vec<Place>,
    pub(crate) new: Vec<LabelTrack>,
}

/// What one process counted while it labelled the tracks of its buckets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackCounts {
    set: u64,
    unset: u64,
    videos: u64,
    rows: [u64; 2],
    flips: FlipCounts,
    labels: Both<SetLabels>,
}

impl From<TrackChanges> for TrackCounts {
    fn from(changes: TrackChanges) -> TrackCounts {
        TrackCounts {
            set: changes.set,
            unset: changes.unset,
            videos: changes.videos,
            rows: changes.rows,
            flips: changes.flips,
            labels: changes.labels,
        }
    }
}

impl TrackChanges {
    /// Adds the counts of another process.
    pub(crate) fn add_counts(&mut self, counts: TrackCounts) {
        self.add(TrackChanges {
            set: counts.set,
            unset: counts.unset,
            videos: counts.videos,
            rows: counts.rows,
            flips: counts.flips,
            labels: counts.labels,
            ..TrackChanges::default()
        });
    }

    /// Counts the labels of a track that differ from those before, and adds them to `changes`.
    pub(super) fn compare(
        &mut self,
        before: &[bool],
        after: &LabelTrack,
        version: u64,
        changes: &mut Vec<LabelChangeTrack>,
    ) {
        if before == after.labels {
            return;
        }
        let labels = before.iter().zip(&after.labels);
        let differing = labels.enumerate().filter(|(_, (before, after))| before != after);
        let rows: Vec<LabelChangeRow> = differing
            .map(|(segment, (from, to))| LabelChangeRow {
                version,
                video: after.video.clone(),
                modality: after.modality,
                class: after.class.clone(),
                segment: segment as u32,
                from: *from,
                to: *to,
                rule: after.rules[segment],
                why: after.get(segment).why.copied().map(Box::new),
            })
            .collect();
        let set = rows.iter().filter(|row| row.to).count() as u64;
        self.set += set;
        self.unset += rows.len() as u64 - set;
        changes.extend(LabelChangeTrack::group(rows));
    }

    /// Counts the flips of a row if `flips` is set, and adds the row to `rows` if its bucket is written as a `whole`.
    pub(super) fn keep(&mut self, row: LabelTrack, whole: bool, flips: bool, rows: &mut Vec<LabelTrack>) {
        if flips {
            let own = row.flipped();
            if own != [0, 0] {
                let all = self.flips.entry((row.modality, row.class.clone())).or_default();
                *all = [all[0] + own[0], all[1] + own[1]];
            }
        }
        if whole {
            rows.push(row);
        }
    }

    pub(super) fn add(&mut self, other: TrackChanges) {
        self.set += other.set;
        self.unset += other.unset;
        self.videos += other.videos;
        self.rows = [self.rows[0] + other.rows[0], self.rows[1] + other.rows[1]];
        for (own, others) in self.labels.iter_mut().zip(other.labels) {
            own.add_counts(others);
        }
        self.changes.extend(other.changes);
        for (key, own) in other.flips {
            let all = self.flips.entry(key).or_default();
            *all = [all[0] + own[0], all[1] + own[1]];
        }
        self.gone.extend(other.gone);
        self.new.extend(other.new);
    }
}
