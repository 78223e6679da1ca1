//! Operator: the labels that differ between a version and the version before.
//!
//! ```text
//! labels ────────────┐
//!                    ├─ updates of a version, by video and modality ── label by label ─▶ changes
//! previous, negated ─┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::consolidation::consolidate;
use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::records::{Flip, LabelRecord, SetBy, Track, VideoId};
use crate::workers::panic_point;

/// A label that differs from the version before. A label that is in no record counts as unset.
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
    /// The label after the change. The label before was the opposite.
    pub to: bool,
    /// What set the label after the change; [`SetBy::Plg`] if the class has no track after the change.
    pub rule: SetBy,
    /// Why PLD flipped the label; `None` unless `rule` is [`SetBy::Pld`]. The value is boxed to keep the struct small,
    /// because a first run has many changes and no flips.
    pub flip: Option<Box<Flip>>,
}

/// Returns the labels that differ between two records of one video and modality, in order of class and segment.
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

/// Turns the record updates of each version into changed labels.
///
/// `labels` and `previous` each hold at most one record per video and modality. `previous` holds the labels of the
/// version before the first time of this dataflow, so that the first time reports only real differences; `previous` is
/// empty if there is no such version.
///
/// All records of a video must be on one worker (see [`placement`](crate::placement)).
///
/// The operator emits the changes of a version after the frontier has passed the version, because only then are its
/// updates complete. Work is proportional to the records that changed.
pub fn changes<'scope, T: Timestamp + Lattice>(
    labels: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
    previous: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
) -> Stream<'scope, T, Vec<Change>> {
    labels
        .concat(previous.negate())
        .inner
        .unary_frontier(Pipeline, "Changes", |_capability, _info| {
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
                    panic_point("difference");
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
