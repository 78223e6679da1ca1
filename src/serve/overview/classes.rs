//! Counts by split and by class, and the histogram of losses, all from the index.

use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use crate::serve::index::{ReviewIndex, gain};

/// Number of bars of the histogram.
const BARS: usize = 40;

/// Counts of one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitCounts {
    /// Split.
    pub split: Split,
    /// Number of videos.
    pub videos: u64,
    /// Number of videos without a label.
    pub without_labels: u64,
    /// Number of videos with a user label.
    pub reviewed: u64,
    /// Number of segments of all videos.
    pub segments: u64,
}

/// Counts of one class and modality. `labels` counts segments, and so do all counts without another unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassCounts {
    /// Class.
    pub class: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Number of videos with the class in their weak label.
    pub videos: u64,
    /// Number of videos of these with a user label of this track.
    pub reviewed: u64,
    /// Number of labels.
    pub labels: u64,
    /// Labels that are set.
    pub set: u64,
    /// Labels that PLD flipped.
    pub flipped: u64,
    /// Labels that a person set.
    pub user: u64,
    /// Segments in which PLG and the parser differ.
    pub parser: u64,
    /// Segments in which audio and visual labels differ.
    pub other: u64,
    /// Segments in which label and truth differ.
    pub wrong: u64,
    /// Videos with a score within 2 % of the threshold.
    pub near: u64,
    /// What review of the class gains; see [`gain::of_classes`].
    pub gain: f64,
}

/// Counts every split that has videos.
pub fn splits(index: &ReviewIndex) -> Vec<SplitCounts> {
    let empty = |split| SplitCounts {
        split,
        videos: 0,
        without_labels: 0,
        reviewed: 0,
        segments: 0,
    };
    let mut counts = Split::ALL.map(empty);
    for at in 0..index.len() {
        let (video, tracks) = (index.video(at), index.tracks(at));
        let own = &mut counts[video.split as usize];
        own.videos += 1;
        own.without_labels += u64::from(tracks.is_empty());
        own.reviewed += u64::from(tracks.iter().any(|track| track.user > 0));
        own.segments += u64::from(video.segments);
    }
    counts.into_iter().filter(|counts| counts.videos > 0).collect()
}

/// Counts every class and modality, in the order of the classes.
pub fn count(index: &ReviewIndex) -> Vec<ClassCounts> {
    let empty = |class: &Arc<str>, modality| ClassCounts {
        class: class.clone(),
        modality,
        videos: 0,
        reviewed: 0,
        labels: 0,
        set: 0,
        flipped: 0,
        user: 0,
        parser: 0,
        other: 0,
        wrong: 0,
        near: 0,
        gain: 0.0,
    };
    let mut counts: Vec<ClassCounts> = index
        .classes
        .iter()
        .flat_map(|class| Modality::ALL.map(|modality| empty(class, modality)))
        .collect();
    for at in 0..index.len() {
        let segments = u64::from(index.video(at).segments);
        for track in index.tracks(at) {
            let own = &mut counts[track.class as usize * 2 + track.modality.index()];
            own.videos += 1;
            own.reviewed += u64::from(track.user > 0);
            own.labels += segments;
            own.set += u64::from(track.set);
            own.flipped += u64::from(track.flipped);
            own.user += u64::from(track.user);
            own.parser += u64::from(track.parser);
            own.other += u64::from(track.other);
            own.wrong += u64::from(track.wrong);
            own.near += u64::from(track.distance <= gain::NEAR);
        }
    }
    for (own, gain) in counts.iter_mut().zip(gain::of_classes(index)) {
        own.gain = gain;
    }
    counts
}

/// The number of tracks by their highest forward loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LossHistogram {
    /// Width of a bar; the first bar begins at 0.
    pub width: f64,
    /// Number of tracks of each bar: audio, then visual.
    pub bars: [Vec<u64>; 2],
}

impl LossHistogram {
    /// Counts the tracks that have predictions.
    pub fn of(index: &ReviewIndex) -> LossHistogram {
        let tracks = || {
            (0..index.len())
                .flat_map(|at| index.tracks(at))
                .filter(|track| track.loss > 0.0)
        };
        let most = tracks().map(|track| track.loss).fold(0.0, f32::max);
        let width = (f64::from(most) / BARS as f64).max(1e-6);
        let mut bars = [vec![0; BARS], vec![0; BARS]];
        for track in tracks() {
            let bar = (f64::from(track.loss) / width) as usize;
            bars[track.modality.index()][bar.min(BARS - 1)] += 1;
        }
        LossHistogram { width, bars }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::index::{IndexedTrack, VideoEntry};

    #[test]
    fn counts_add_up_over_the_videos() {
        let track = |class, modality, user| IndexedTrack {
            set: 3,
            flipped: 1,
            user,
            distance: 0.01,
            loss: 2.0,
            ..IndexedTrack::new(class, modality)
        };
        let entry = |name: &str, tracks| VideoEntry {
            name: name.into(),
            split: Split::Val,
            segments: 10,
            tracks,
        };
        let entries = [
            entry("a", vec![track(1, Modality::Visual, 0)]),
            entry("b", vec![track(1, Modality::Visual, 2)]),
            entry("c", vec![]),
        ];
        let index = ReviewIndex::new(1, vec!["Cat".into(), "Dog".into()], Some(1), entries);
        let [split] = &splits(&index)[..] else {
            panic!("one split")
        };
        assert_eq!((split.videos, split.without_labels, split.reviewed), (3, 1, 1));
        let dog = &count(&index)[3];
        assert_eq!((&*dog.class, dog.modality), ("Dog", Modality::Visual));
        assert_eq!(
            (dog.videos, dog.reviewed, dog.labels, dog.set, dog.near),
            (2, 1, 20, 6, 2)
        );
        let losses = LossHistogram::of(&index);
        assert_eq!(losses.bars[1][BARS - 1], 2, "the highest loss is in the last bar");
    }
}
