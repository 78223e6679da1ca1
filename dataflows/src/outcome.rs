//! The output of the graph by video: the one container between the graph and the tables.
//!
//! A batch run, a change of a part of a store, and a resident session all fill an [`Outcome`]. The engine turns each
//! [`VideoOutcome`] into rows of tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::Modality;

use crate::admit::Admitted;
use crate::changes::Change;
use crate::decide::audio_visual;
use crate::records::{LabelRecord, VideoId};
use crate::rejection::Rejection;

/// The output of the graph at one version.
///
/// ```
/// use std::sync::Arc;
/// use vaplan_dataflows::outcome::{Outcome, Output};
/// use vaplan_dataflows::{Bits, LabelRecord, Track, VideoId};
/// use vaplan_schemas::{ClassId, Modality};
///
/// let bits: Bits = [true, false, true].into_iter().collect();
/// let record = Arc::new(LabelRecord { tracks: vec![Track::plg(ClassId(0), bits)] });
/// let mut outcome = Outcome::default();
/// outcome.update(VideoId(7), Output::Labels(Modality::Audio, record.clone()), 1);
/// assert_eq!(outcome.video(VideoId(7)).labels[Modality::Audio.index()], Some(record.clone()));
/// outcome.update(VideoId(7), Output::Labels(Modality::Audio, record), -1);
/// assert!(outcome.videos.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Output for each video that has any.
    pub videos: BTreeMap<VideoId, VideoOutcome>,
    /// Labels that differ from the version before, sorted.
    pub changes: Vec<Change>,
}

/// The output of the graph for one video. The arrays are indexed by [`Modality::index`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoOutcome {
    /// Features that count (see [`admit`](mod@crate::admit)).
    pub admitted: [Option<Admitted>; 2],
    /// Labels of each modality.
    pub labels: [Option<Arc<LabelRecord>>; 2],
    /// Why a modality has no labels, and which predictions and user labels have no effect.
    pub rejections: BTreeSet<Rejection>,
}

/// One output record of the graph for a video.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Output {
    /// Features that count (see [`admit`](mod@crate::admit)).
    Admitted(Modality, Admitted),
    /// Labels of a modality.
    Labels(Modality, Arc<LabelRecord>),
    /// A row of the input that has no effect.
    Rejection(Rejection),
}

/// A video without any output.
static EMPTY: VideoOutcome = VideoOutcome {
    admitted: [None, None],
    labels: [None, None],
    rejections: BTreeSet::new(),
};

impl Outcome {
    /// Returns the output for a video; an empty output if the graph has none.
    pub fn video(&self, video: VideoId) -> &VideoOutcome {
        self.videos.get(&video).unwrap_or(&EMPTY)
    }

    /// Adds a record (`diff` 1) or removes it (`diff` -1).
    ///
    /// The order of the updates of one version does not matter. A removal takes effect only while the same record is
    /// there, so a record that replaces another record can be added before the other record is removed.
    ///
    /// # Panics
    /// Panics if `diff` is neither 1 nor -1, because the outputs of the graph are sets.
    pub fn update(&mut self, video: VideoId, output: Output, diff: isize) {
        assert!(
            diff.abs() == 1,
            "a record of {video:?} with the difference {diff}"
        );
        let own = self.videos.entry(video).or_default();
        match output {
            Output::Admitted(modality, record) => put(&mut own.admitted[modality.index()], record, diff),
            Output::Labels(modality, record) => put(&mut own.labels[modality.index()], record, diff),
            Output::Rejection(rejection) if diff > 0 => drop(own.rejections.insert(rejection)),
            Output::Rejection(rejection) => drop(own.rejections.remove(&rejection)),
        }
        if diff < 0 && *own == EMPTY {
            self.videos.remove(&video);
        }
    }

    /// Returns whether the outcome has this record.
    pub(crate) fn holds(&self, video: VideoId, output: &Output) -> bool {
        let own = self.video(video);
        match output {
            Output::Admitted(modality, record) => own.admitted[modality.index()].as_ref() == Some(record),
            Output::Labels(modality, record) => own.labels[modality.index()].as_ref() == Some(record),
            Output::Rejection(rejection) => own.rejections.contains(rejection),
        }
    }

    /// Iterates over all label records, with their video and modality.
    pub fn labels(&self) -> impl Iterator<Item = (VideoId, Modality, &LabelRecord)> {
        self.videos.iter().flat_map(|(video, own)| {
            let records = Modality::ALL.into_iter().zip(&own.labels);
            records.filter_map(|(modality, record)| Some((*video, modality, &**record.as_ref()?)))
        })
    }

    /// Returns the number of labels that PLD flipped.
    pub fn flipped(&self) -> u64 {
        let tracks = self.labels().flat_map(|(_, _, record)| &record.tracks);
        tracks.map(|track| u64::from(track.pld.ones())).sum()
    }
}

impl VideoOutcome {
    /// Returns the labels that are set in both modalities; `None` if one of the two has no labels.
    pub fn audio_visual(&self) -> Option<LabelRecord> {
        let [audio, visual] = &self.labels;
        audio_visual(audio.as_deref(), visual.as_deref())
    }
}

fn put<T: PartialEq>(place: &mut Option<T>, record: T, diff: isize) {
    if diff > 0 {
        *place = Some(record);
    } else if place.as_ref() == Some(&record) {
        *place = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Bits, Track};
    use vaplan_schemas::ClassId;

    fn record(bits: &[bool]) -> Output {
        let label: Bits = bits.iter().copied().collect();
        let tracks = vec![Track::plg(ClassId(0), label)];
        Output::Labels(Modality::Visual, Arc::new(LabelRecord { tracks }))
    }

    #[test]
    fn a_record_replaces_another_in_either_order() {
        let (old, new) = (record(&[true, false]), record(&[true, true]));
        let video = VideoId(1);
        let mut wanted = Outcome::default();
        wanted.update(video, new.clone(), 1);
        for removed_first in [true, false] {
            let mut outcome = Outcome::default();
            outcome.update(video, old.clone(), 1);
            let mut updates = vec![(new.clone(), 1), (old.clone(), -1)];
            if removed_first {
                updates.reverse();
            }
            for (output, diff) in updates {
                outcome.update(video, output, diff);
            }
            assert_eq!(outcome, wanted, "removed first: {removed_first}");
        }
    }
}
