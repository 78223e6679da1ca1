//! What a version changed.
//!
//! ```text
//! labels ────────────┐
//!                    ├─ updates of a version, by video and modality ── cell by cell ─▶ changes
//! previous, negated ─┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::consolidation::consolidate;
use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::records::{Flip, LabelRecord, SetBy, Track, VideoId};

/// A cell whose label is another than before; a cell that is in no record counts as unset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Change {
    /// Video.
    pub video: VideoId,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: ClassId,
    /// Segment.
    pub segment: u32,
    /// Label after; before, it was the other.
    pub to: bool,
    /// What set the label after; [`SetBy::Plg`] where there is none.
    pub rule: SetBy,
    /// Of [`SetBy::Pld`]: why. Boxed: a first run has many changes, and none of them is a flip.
    pub flip: Option<Box<Flip>>,
}

/// A label record of a video and modality, with time and difference.
type Update<T> = (((VideoId, Modality), Arc<LabelRecord>), T, isize);

/// Cells that differ between two records of one video and modality, by class and segment.
pub fn cells(
    video: VideoId,
    modality: Modality,
    before: Option<&LabelRecord>,
    after: Option<&LabelRecord>,
) -> Vec<Change> {
    let classes_of = |record: Option<&LabelRecord>| -> Vec<ClassId> {
        let tracks = record.iter().flat_map(|record| &record.tracks);
        tracks.map(|track| track.class).collect()
    };
    let mut classes = classes_of(before);
    classes.extend(classes_of(after));
    classes.sort_unstable();
    classes.dedup();
    let mut changes = Vec::new();
    for class in classes {
        let (before, after) = (
            before.and_then(|record| record.track(class)),
            after.and_then(|record| record.track(class)),
        );
        let label = |track: Option<&Track>, segment| track.is_some_and(|track| track.label.get(segment));
        let len = |track: Option<&Track>| track.map_or(0, |track| track.label.len());
        for segment in 0..len(before).max(len(after)) {
            let to = label(after, segment);
            if to != label(before, segment) {
                changes.push(Change {
                    video,
                    modality,
                    class,
                    segment: segment as u32,
                    to,
                    rule: after.map_or(SetBy::Plg, |track| track.set_by(segment)),
                    flip: after.and_then(|track| track.flip(segment)).map(Box::new),
                });
            }
        }
    }
    changes
}

/// The updates of each version as changed cells.
///
/// `labels` holds at most one record per video and modality, and so does `previous`: the labels of the version
/// before the first time of this dataflow (none where the dataflow has seen them all). A version's changes come once
/// the frontier has passed it; work is proportional to the records that changed.
pub fn changes<'scope, T: Timestamp + Lattice>(
    labels: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
    previous: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
) -> Stream<'scope, T, Vec<Change>> {
    let by_video = Exchange::new(|update: &Update<T>| update.0.0.0.0);
    labels
        .concat(previous.negate())
        .inner
        .unary_frontier(by_video, "Changes", |_capability, _info| {
            let mut waiting = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each_time(|time, updates| {
                    for (record, at, diff) in updates.flat_map(|updates| updates.drain(..)) {
                        waiting
                            .entry(at.clone())
                            .or_insert_with(|| (time.delayed(&at, 0), Vec::new()))
                            .1
                            .push((record, diff));
                    }
                });
                let done: Vec<T> = waiting
                    .keys()
                    .filter(|time| !frontier.less_equal(time))
                    .cloned()
                    .collect();
                for time in done {
                    let (capability, mut updates) = waiting.remove(&time).expect("its key was just listed");
                    consolidate(&mut updates);
                    let mut pairs: BTreeMap<(VideoId, Modality), [Option<Arc<LabelRecord>>; 2]> =
                        BTreeMap::new();
                    for ((key, record), diff) in updates {
                        pairs.entry(key).or_default()[usize::from(diff > 0)] = Some(record);
                    }
                    let mut session = output.session(&capability);
                    for ((video, modality), [before, after]) in pairs {
                        session.give_iterator(
                            cells(video, modality, before.as_deref(), after.as_deref()).into_iter(),
                        );
                    }
                }
            }
        })
}
