//! What is shown of a video, from rows of a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{
    ClassRow, LabelCell, LabelRule, LabelTrack, ScoreTrack, Split, TruthRow, VideoRow,
};

/// Where an event is: in one stream, or in both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Heard.
    Audio,
    /// Seen.
    Visual,
    /// Both at once.
    AudioVisual,
}

impl Lane {
    /// All three, in the order shown.
    pub const ALL: [Lane; 3] = [Lane::Audio, Lane::Visual, Lane::AudioVisual];

    /// As tables and SQL write it.
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
    /// Where.
    pub lane: Lane,
    /// What.
    pub class: Arc<str>,
    /// Label of each segment.
    pub labels: Vec<bool>,
    /// Truth of each segment; none: not annotated.
    pub truth: Option<Vec<bool>>,
    /// Score of each segment; none: a class outside the weak label, or both streams at once.
    pub scores: Option<Vec<f64>>,
    /// What scores are compared with.
    pub cutoff: Option<f64>,
    /// Labels that PLD flipped, by segment.
    pub flips: Vec<(usize, LabelCell)>,
}

/// A video with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Full name.
    pub video: Arc<str>,
    /// Part of the data set.
    pub split: Split,
    /// T.
    pub segments: usize,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// Weak label.
    pub weak_labels: Vec<Arc<str>>,
    /// By lane, then in the order of the classes. Classes of the weak label and of the truth; of both streams at
    /// once only those with a label or truth.
    pub tracks: Vec<TimelineTrack>,
}

/// Rows of a store that tell of a video; those of others are passed over.
#[derive(Clone, Copy, Debug)]
pub struct TimelineRows<'a> {
    /// Of the video.
    pub video: &'a VideoRow,
    /// All classes.
    pub classes: &'a [ClassRow],
    /// Labels.
    pub labels: &'a [LabelTrack],
    /// Scores.
    pub scores: &'a [ScoreTrack],
    /// Dense truth; none: the video is not annotated.
    pub truth: Option<&'a [TruthRow]>,
}

/// All that is known of one class and modality.
#[derive(Default)]
struct ClassRows<'a> {
    labels: Option<&'a LabelTrack>,
    scores: Option<&'a ScoreTrack>,
    truth: Vec<&'a TruthRow>,
}

impl Timeline {
    /// Puts the rows of one video together.
    ///
    /// T is that of the video's features; without features, the end of its last true event.
    pub fn of_rows(rows: &TimelineRows<'_>) -> Timeline {
        let video = rows.video;
        let order: BTreeMap<&str, u32> = rows
            .classes
            .iter()
            .map(|class| (&*class.class, class.position))
            .collect();
        // Position first, so that tracks come in the order of the classes; unknown classes last.
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

        let cutoff = |modality: Modality, class: &str| {
            let mut of_class = rows.classes.iter();
            of_class
                .find(|row| row.modality == modality && &*row.class == class)
                .map(|row| row.cutoff)
        };
        let mut tracks: Vec<TimelineTrack> = found
            .iter()
            .map(|((modality, _, class), found)| TimelineTrack {
                lane: (*modality).into(),
                class: class.clone(),
                labels: labels(found.labels, segments),
                truth: rows.truth.map(|_| truth(&found.truth, segments)),
                scores: found.scores.map(|track| track.score.clone()),
                cutoff: cutoff(*modality, class),
                flips: flips(found.labels),
            })
            .collect();
        tracks.extend(both(&tracks));
        Timeline {
            video: video.video.clone(),
            split: video.split,
            segments,
            segment_seconds: video.segment_seconds,
            weak_labels: video.weak_labels.clone(),
            tracks,
        }
    }
}

fn labels(track: Option<&LabelTrack>, segments: usize) -> Vec<bool> {
    let cells = track.map_or(&[][..], |track| &track.cells);
    (0..segments)
        .map(|segment| cells.get(segment).is_some_and(|cell| cell.label))
        .collect()
}

fn flips(track: Option<&LabelTrack>) -> Vec<(usize, LabelCell)> {
    let cells = track.into_iter().flat_map(|track| track.cells.iter().enumerate());
    let flipped = cells.filter(|(_, cell)| cell.rule == LabelRule::Pld);
    flipped.map(|(segment, cell)| (segment, cell.clone())).collect()
}

fn truth(rows: &[&TruthRow], segments: usize) -> Vec<bool> {
    let there = |segment: usize| {
        rows.iter()
            .any(|row| (row.onset as usize..row.offset as usize).contains(&segment))
    };
    (0..segments).map(there).collect()
}

/// Classes that are labelled or true in both streams at once.
fn both(tracks: &[TimelineTrack]) -> Vec<TimelineTrack> {
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
                cutoff: None,
                flips: Vec::new(),
            })
        })
        .collect()
}
