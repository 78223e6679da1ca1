//! The contents of a timeline of a video, made from rows of a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{
    ClassRow, FlipReason, LabelRule, LabelTrack, ScoreTrack, SegmentLabel, Split, TruthRow, VideoRow,
};

/// A part of the timeline: events of one modality, or events that are in both modalities at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Audible events.
    Audio,
    /// Visible events.
    Visual,
    /// Events that are audible and visible at the same time.
    AudioVisual,
}

impl Lane {
    /// All lanes in the order in which they are shown.
    pub const ALL: [Lane; 3] = [Lane::Audio, Lane::Visual, Lane::AudioVisual];

    /// The name of the lane in tables and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Audio => "audio",
            Lane::Visual => "visual",
            Lane::AudioVisual => "audio_visual",
        }
    }
}

impl From<Modality> for Lane {
    fn from(modality: Modality) -> Lane {
        match modality {
            Modality::Audio => Lane::Audio,
            Modality::Visual => Lane::Visual,
        }
    }
}

/// One class in one lane.
#[derive(Clone, Debug, PartialEq)]
pub struct TimelineTrack {
    /// Lane of the track.
    pub lane: Lane,
    /// Name of the class.
    pub class: Arc<str>,
    /// Label of each segment.
    pub labels: Vec<bool>,
    /// Truth of each segment. `None` if the video is not annotated.
    pub truth: Option<Vec<bool>>,
    /// Score of each segment. `None` for a class outside the weak label, and in lane [`Lane::AudioVisual`].
    pub scores: Option<Vec<f64>>,
    /// The threshold that the scores are compared with.
    pub score_threshold: Option<f64>,
    /// Labels that PLD flipped, each with its segment.
    pub flips: Vec<ShownFlip>,
}

/// A label that PLD flipped.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownFlip {
    /// Segment, from 0.
    pub segment: usize,
    /// The label after the flip.
    pub label: bool,
    /// Why; `None` in a store of a program that did not record reasons.
    pub why: Option<FlipReason>,
}

/// A video with its labels, scores and truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Split that the video belongs to. `None` for a video that is in no store.
    pub split: Option<Split>,
    /// Number T of segments.
    pub segments: usize,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// Classes of the weak label. For a video that is in no store, the classes that were predicted.
    pub weak_labels: Vec<Arc<str>>,
    /// Whether the video has no weak label, and `weak_labels` are candidates that were guessed from its scores.
    pub guessed: bool,
    /// Whether labels of the video are those of another program, which `label --pseudo-labels` imported.
    pub imported: bool,
    /// Tracks by lane, then in order of the classes. Audio and visual lanes have the classes of the weak label, the
    /// labels and the truth. Lane [`Lane::AudioVisual`] has only the classes with a label or truth there.
    pub tracks: Vec<TimelineTrack>,
}

/// Rows of a store about a video. Labels, scores and truth of other videos are ignored.
#[derive(Clone, Copy, Debug)]
pub struct TimelineRows<'a> {
    /// Row of the video.
    pub video: &'a VideoRow,
    /// Rows of all classes.
    pub classes: &'a [ClassRow],
    /// Labels of the video.
    pub labels: &'a [LabelTrack],
    /// Scores of the video.
    pub scores: &'a [ScoreTrack],
    /// Dense truth. `None` if the video is not annotated.
    pub truth: Option<&'a [TruthRow]>,
}

/// The rows of one class and modality.
#[derive(Default)]
struct ClassRows<'a> {
    labels: Option<&'a LabelTrack>,
    scores: Option<&'a ScoreTrack>,
    truth: Vec<&'a TruthRow>,
}

impl Timeline {
    /// What the list [`Timeline::weak_labels`] is, for people.
    pub fn heading(&self) -> &'static str {
        match (self.split, self.guessed) {
            (Some(_), false) if self.imported => "labels of another program, weak label",
            (Some(_), false) => "weak label",
            (Some(_), true) => "no weak label, candidate classes guessed from the scores",
            (None, _) => "predicted classes",
        }
    }

    /// Makes a timeline from the rows of one video.
    ///
    /// The features of the video give T. For a video without features, T is the end of its last true event.
    pub fn of_rows(rows: &TimelineRows<'_>) -> Timeline {
        let video = rows.video;
        let order: BTreeMap<&str, u32> = rows
            .classes
            .iter()
            .map(|class| (&*class.class, class.position))
            .collect();
        // The position comes first, so that tracks are in the order of the classes. Unknown classes come last.
        let key = |modality: Modality, class: &Arc<str>| {
            (
                modality,
                order.get(&**class).copied().unwrap_or(u32::MAX),
                class.clone(),
            )
        };
        let mut found: BTreeMap<_, ClassRows<'_>> = BTreeMap::new();
        for modality in Modality::ALL {
            for class in &video.weak_labels {
                found.entry(key(modality, class)).or_default();
            }
        }
        for track in rows.labels.iter().filter(|track| track.video == video.video) {
            found.entry(key(track.modality, &track.class)).or_default().labels = Some(track);
        }
        for track in rows.scores.iter().filter(|track| track.video == video.video) {
            found.entry(key(track.modality, &track.class)).or_default().scores = Some(track);
        }
        let mut segments = video.segments as usize;
        for row in rows
            .truth
            .unwrap_or_default()
            .iter()
            .filter(|row| row.video == video.video)
        {
            found
                .entry(key(row.modality, &row.class))
                .or_default()
                .truth
                .push(row);
            if video.segments == 0 {
                segments = segments.max(row.offset as usize);
            }
        }

        let score_threshold = |modality: Modality, class: &str| {
            let mut of_class = rows.classes.iter();
            of_class
                .find(|row| row.modality == modality && &*row.class == class)
                .map(|row| row.score_threshold)
        };
        let mut tracks: Vec<TimelineTrack> = found
            .iter()
            .map(|((modality, _, class), found)| TimelineTrack {
                lane: (*modality).into(),
                class: class.clone(),
                labels: labels(found.labels, segments),
                truth: rows.truth.map(|_| truth(&found.truth, segments)),
                scores: found.scores.map(|track| track.score.clone()),
                score_threshold: score_threshold(*modality, class),
                flips: flips(found.labels),
            })
            .collect();
        tracks.extend(both(&tracks));
        Timeline {
            video: video.video.clone(),
            split: Some(video.split),
            segments,
            segment_seconds: video.segment_seconds,
            weak_labels: video.weak_labels.clone(),
            guessed: video.guessed,
            imported: rows
                .labels
                .iter()
                .any(|track| track.rules.contains(&LabelRule::Import)),
            tracks,
        }
    }
}

fn labels(track: Option<&LabelTrack>, segments: usize) -> Vec<bool> {
    let labels = track.map_or(&[][..], |track| &track.labels);
    let label = |segment: usize| labels.get(segment).copied().unwrap_or(false);
    (0..segments).map(label).collect()
}

fn flips(track: Option<&LabelTrack>) -> Vec<ShownFlip> {
    let segments = track.into_iter().flat_map(|track| track.iter().enumerate());
    let flipped = segments.filter(|(_, own)| own.rule == LabelRule::Pld);
    let flip = |(segment, own): (usize, SegmentLabel<'_>)| ShownFlip {
        segment,
        label: own.label,
        why: own.why.copied(),
    };
    flipped.map(flip).collect()
}

fn truth(rows: &[&TruthRow], segments: usize) -> Vec<bool> {
    let there = |segment: usize| {
        rows.iter()
            .any(|row| (row.onset as usize..row.offset as usize).contains(&segment))
    };
    (0..segments).map(there).collect()
}

/// Tracks of the classes that are labelled or true in both modalities at the same time.
pub(super) fn both(tracks: &[TimelineTrack]) -> Vec<TimelineTrack> {
    let meet = |a: &[bool], v: &[bool]| a.iter().zip(v).map(|(a, v)| *a && *v).collect::<Vec<bool>>();
    let visual = |class: &str| {
        tracks
            .iter()
            .find(|track| track.lane == Lane::Visual && &*track.class == class)
    };
    tracks
        .iter()
        .filter(|track| track.lane == Lane::Audio)
        .filter_map(|audio| {
            let visual = visual(&audio.class)?;
            let labels = meet(&audio.labels, &visual.labels);
            let truth = audio
                .truth
                .as_ref()
                .zip(visual.truth.as_ref())
                .map(|(a, v)| meet(a, v));
            let any = labels.iter().chain(truth.iter().flatten()).any(|cell| *cell);
            any.then(|| TimelineTrack {
                lane: Lane::AudioVisual,
                class: audio.class.clone(),
                labels,
                truth,
                scores: None,
                score_threshold: None,
                flips: Vec::new(),
            })
        })
        .collect()
}
