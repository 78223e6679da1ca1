//! F-scores of predicted events against true events, per segment and per event.
//!
//! ```text
//! one video:  prediction, truth ── per class: TP, FP, FN of A, V, AV = A ∧ V, and A + V summed ──▶ F per class
//!             ── mean over the classes that occur (1 if no class occurs) ──▶ one number per video
//! all videos: ── mean, in percent ──▶ A, V, AV, Event@AV; Type@AV = mean of A, V, AV
//! ```
//!
//! Source (grade C): `segment_level`, `event_level` and `event_wise_metric` in `utils/eval_metrics.py` of
//! YapengTian/AVVP-ECCV20, with fixed C = 25 and T = 10. Ten more public repositories have the same code.

use serde::{Deserialize, Serialize};

use super::matrix::{BitMatrix, runs};

/// Audible and visible events of one video, as two matrices of the same shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoParse {
    /// Audible events, `[C, T]`.
    pub audio: BitMatrix,
    /// Visible events, `[C, T]`.
    pub visual: BitMatrix,
}

impl VideoParse {
    /// A video without events: two matrices of shape `[classes, segments]` with all bits 0.
    pub fn new(classes: usize, segments: usize) -> VideoParse {
        VideoParse {
            audio: BitMatrix::new(classes, segments),
            visual: BitMatrix::new(classes, segments),
        }
    }
}

/// F-scores of one level (segment or event), in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// F-score A of audible events.
    pub audio: f64,
    /// F-score V of visible events.
    pub visual: f64,
    /// F-score AV of events that are audible and visible at the same time.
    pub audio_visual: f64,
    /// Type@AV: the mean of A, V and AV.
    pub type_av: f64,
    /// Event@AV: the F-score of the counts of audible and visible events together.
    pub event_av: f64,
}

/// F-scores of both levels, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalScores {
    /// Segment level: each segment counts.
    pub segment: Level,
    /// Event level: each maximal run of segments counts.
    pub event: Level,
}

impl EvalScores {
    /// All scores with their names, `<level>.<score>`.
    pub fn named(&self) -> [(&'static str, f64); 10] {
        let EvalScores { segment, event } = self;
        [
            ("segment.audio", segment.audio),
            ("segment.visual", segment.visual),
            ("segment.audio_visual", segment.audio_visual),
            ("segment.type_av", segment.type_av),
            ("segment.event_av", segment.event_av),
            ("event.audio", event.audio),
            ("event.visual", event.visual),
            ("event.audio_visual", event.audio_visual),
            ("event.type_av", event.type_av),
            ("event.event_av", event.event_av),
        ]
    }
}

/// Segment-level F-scores of one class, in percent. TP, FP and FN are summed over all segments of all videos.
///
/// These scores are an addition of this program (grade D), to find weak classes. Their mean over the classes is *not*
/// [`EvalScores::segment`], which computes F per video first. `None` if the class is neither predicted nor true in
/// any video.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFScores {
    /// F-score A.
    pub audio: Option<f64>,
    /// F-score V.
    pub visual: Option<f64>,
    /// F-score AV.
    pub audio_visual: Option<f64>,
    /// F-score of the counts of A and V together.
    pub event_av: Option<f64>,
}

/// Adds up the scores of videos. Each video costs one pass over its matrices, and only sums are kept.
///
/// ```
/// use vaplan::eval::{Evaluator, VideoParse};
///
/// let mut truth = VideoParse::new(2, 10);
/// truth.audio.set_range(0, 0, 10);
/// let mut prediction = VideoParse::new(2, 10);
/// prediction.audio.set_range(0, 0, 6);
///
/// let mut evaluator = Evaluator::new(2);
/// evaluator.add(&prediction, &truth);
/// let scores = evaluator.scores().expect("one video was added");
/// assert_eq!(scores.segment.audio, 75.0); // 2 * 6 / (2 * 6 + 4)
/// assert_eq!(scores.event.audio, 100.0); // 6 of 10 segments: a match
/// assert_eq!(scores.segment.visual, 100.0); // nothing to find, nothing found
/// ```
#[derive(Clone, Debug)]
pub struct Evaluator {
    videos: u64,
    /// Sums of F over the videos: of A, V, AV and Event@AV, see [`KINDS`].
    segment: [f64; KINDS],
    event: [f64; KINDS],
    /// Counts of each class, summed over all videos.
    classes: Vec<[ConfusionCounts; KINDS]>,
    scratch: AudioVisualRows,
}

/// Number of kinds of scores: audio, visual, audio-visual, and audio and visual together, in this order.
const KINDS: usize = 4;

/// Rows of AV = A and V. The buffers are kept between videos, to avoid an allocation for each.
#[derive(Clone, Debug, Default)]
struct AudioVisualRows {
    predicted: Vec<u64>,
    truth: Vec<u64>,
}

impl AudioVisualRows {
    fn fill(&mut self, [audio, visual]: [(&[u64], &[u64]); 2]) {
        let meet = |row: &mut Vec<u64>, a: &[u64], v: &[u64]| {
            row.clear();
            row.extend(a.iter().zip(v).map(|(a, v)| a & v));
        };
        meet(&mut self.predicted, audio.0, visual.0);
        meet(&mut self.truth, audio.1, visual.1);
    }
}

/// Numbers of true positives, false positives and false negatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfusionCounts {
    hits: u64,
    false_alarms: u64,
    misses: u64,
}

impl ConfusionCounts {
    /// Counts one segment.
    pub(crate) fn count(&mut self, predicted: bool, truth: bool) {
        self.hits += u64::from(predicted && truth);
        self.false_alarms += u64::from(predicted && !truth);
        self.misses += u64::from(truth && !predicted);
    }

    /// Changes a segment that was counted as not predicted to predicted.
    pub(crate) fn set(&mut self, truth: bool) {
        self.misses -= u64::from(truth);
        self.count(true, truth);
    }

    /// F = 2TP / (2TP + FP + FN). `None` if nothing is predicted and nothing is true.
    fn f_score(self) -> Option<f64> {
        let all = 2 * self.hits + self.false_alarms + self.misses;
        (all > 0).then(|| (2 * self.hits) as f64 / all as f64)
    }
}

impl std::ops::Add for ConfusionCounts {
    type Output = ConfusionCounts;

    fn add(self, other: ConfusionCounts) -> ConfusionCounts {
        ConfusionCounts {
            hits: self.hits + other.hits,
            false_alarms: self.false_alarms + other.false_alarms,
            misses: self.misses + other.misses,
        }
    }
}

/// Mean of F over the classes that occur in the prediction or the truth.
#[derive(Clone, Copy, Default)]
pub(crate) struct ClassMean {
    sum: f64,
    classes: u32,
}

impl ClassMean {
    pub(crate) fn add(&mut self, counts: ConfusionCounts) {
        if let Some(f) = counts.f_score() {
            self.sum += f;
            self.classes += 1;
        }
    }

    /// The mean. If no class occurs, the value is 1, because all negatives are true negatives.
    pub(crate) fn value(self) -> f64 {
        if self.classes == 0 {
            1.0
        } else {
            self.sum / f64::from(self.classes)
        }
    }
}

impl Evaluator {
    /// An evaluator for C `classes`, without videos.
    pub fn new(classes: usize) -> Evaluator {
        Evaluator {
            videos: 0,
            segment: [0.0; KINDS],
            event: [0.0; KINDS],
            classes: vec![[ConfusionCounts::default(); KINDS]; classes],
            scratch: AudioVisualRows::default(),
        }
    }

    /// Adds a video.
    ///
    /// # Panics
    /// Panics if the four matrices differ in shape, or if they have another number of classes than the evaluator.
    pub fn add(&mut self, prediction: &VideoParse, truth: &VideoParse) {
        let shape = |matrix: &BitMatrix| (matrix.classes(), matrix.segments());
        let expected = (self.classes.len(), truth.audio.segments());
        for matrix in [&prediction.audio, &prediction.visual, &truth.audio, &truth.visual] {
            assert_eq!(shape(matrix), expected, "shape (C, T) of a matrix of a video");
        }

        let mut segment = [ClassMean::default(); KINDS];
        let mut event = [ClassMean::default(); KINDS];
        for (class, totals) in self.classes.iter_mut().enumerate() {
            let rows = [
                (prediction.audio.row(class), truth.audio.row(class)),
                (prediction.visual.row(class), truth.visual.row(class)),
            ];
            if rows
                .iter()
                .all(|(p, t)| p.iter().chain(*t).all(|word| *word == 0))
            {
                continue;
            }
            self.scratch.fill(rows);
            let mut segments = [ConfusionCounts::default(); KINDS];
            let mut events = [ConfusionCounts::default(); KINDS];
            let both = (self.scratch.predicted.as_slice(), self.scratch.truth.as_slice());
            for (kind, (predicted, truth)) in rows.into_iter().chain([both]).enumerate() {
                segments[kind] = count_segments(predicted, truth);
                events[kind] = count_events(predicted, truth);
            }
            segments[3] = segments[0] + segments[1];
            events[3] = events[0] + events[1];

            for kind in 0..KINDS {
                segment[kind].add(segments[kind]);
                event[kind].add(events[kind]);
                totals[kind] = totals[kind] + segments[kind];
            }
        }
        for kind in 0..KINDS {
            self.segment[kind] += segment[kind].value();
            self.event[kind] += event[kind].value();
        }
        self.videos += 1;
    }

    /// Number of videos that were added.
    pub fn videos(&self) -> u64 {
        self.videos
    }

    /// Scores of the videos that were added. `None` before the first video.
    pub fn scores(&self) -> Option<EvalScores> {
        (self.videos > 0).then(|| EvalScores {
            segment: level(&self.segment, self.videos),
            event: level(&self.event, self.videos),
        })
    }

    /// Scores of each class, in the order of the classes.
    pub fn class_scores(&self) -> Vec<ClassFScores> {
        let percent = |counts: ConfusionCounts| counts.f_score().map(|f| 100.0 * f);
        self.classes
            .iter()
            .map(|&[audio, visual, audio_visual, event_av]| ClassFScores {
                audio: percent(audio),
                visual: percent(visual),
                audio_visual: percent(audio_visual),
                event_av: percent(event_av),
            })
            .collect()
    }
}

fn level(sums: &[f64; KINDS], videos: u64) -> Level {
    let [audio, visual, audio_visual, event_av] = sums.map(|sum| 100.0 * (sum / videos as f64));
    let type_av = (audio + visual + audio_visual) / 3.0;
    Level {
        audio,
        visual,
        audio_visual,
        type_av,
        event_av,
    }
}

fn count_segments(predicted: &[u64], truth: &[u64]) -> ConfusionCounts {
    let mut counts = ConfusionCounts::default();
    for (p, t) in predicted.iter().zip(truth) {
        counts.hits += u64::from((p & t).count_ones());
        counts.false_alarms += u64::from((p & !t).count_ones());
        counts.misses += u64::from((t & !p).count_ones());
    }
    counts
}

/// Counts matched predicted runs (TP), unmatched predicted runs (FP) and unmatched true runs (FN).
///
/// Two runs match if their intersection is at least half of their union. At least one segment lies between two runs
/// of a row, so that two runs cannot both match the same run of the other row. Matches are therefore one to one,
/// although the source does not assign runs to each other.
fn count_events(predicted: &[u64], truth: &[u64]) -> ConfusionCounts {
    let mut counts = ConfusionCounts::default();
    let (mut predicted, mut truth) = (runs(predicted), runs(truth));
    let (mut run, mut true_run) = (predicted.next(), truth.next());
    loop {
        match (run, true_run) {
            (Some((onset, offset)), Some((start, end))) => {
                let intersection = offset.min(end).saturating_sub(onset.max(start));
                let union = (offset - onset) + (end - start) - intersection;
                if 2 * intersection >= union {
                    counts.hits += 1;
                    (run, true_run) = (predicted.next(), truth.next());
                } else if offset <= end {
                    // Every later true run starts after this predicted run ends, so that none of them can match this
                    // run.
                    counts.false_alarms += 1;
                    run = predicted.next();
                } else {
                    counts.misses += 1;
                    true_run = truth.next();
                }
            }
            (Some(_), None) => {
                counts.false_alarms += 1;
                run = predicted.next();
            }
            (None, Some(_)) => {
                counts.misses += 1;
                true_run = truth.next();
            }
            (None, None) => return counts,
        }
    }
}
