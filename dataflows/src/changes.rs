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

use crate::records::{LabelRecord, VideoId};

/// A cell whose label is another than before; a cell that is in no record counts as unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    let mut ones: BTreeMap<(ClassId, usize), bool> = BTreeMap::new();
    for (record, to) in [(before, false), (after, true)] {
        for (class, bits) in record.iter().flat_map(|record| &record.tracks) {
            for segment in (0..bits.len()).filter(|&segment| bits.get(segment)) {
                // Set before and after: no change.
                if ones.insert((*class, segment), to) == Some(false) {
                    ones.remove(&(*class, segment));
                }
            }
        }
    }
    ones.into_iter()
        .map(|((class, segment), to)| Change {
            video,
            modality,
            class,
            segment: segment as u32,
            to,
        })
        .collect()
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
