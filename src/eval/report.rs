//! The scores of a split, as JSON or as a table.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use vaplan_schemas::rows::Split;

use super::error::EvalError;
use super::matrix::BitMatrix;
use super::metric::{ClassFScores, EvalScores, Evaluator, Level, VideoParse};
use super::truth::DenseTruth;

/// How predictions became 0 and 1 before they were scored. Published numbers differ in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The predictions are labels of 0 and 1, and are scored as they are.
    Labels,
    /// A label is 1 if the probabilities of the segment and of the video are both at least 0.5 (HAN).
    Fused,
    /// A label is 1 if the probabilities of the segment and of the modality are both at least 0.5 (MA, JoMoLD, LSLD).
    Own,
    /// A label is 1 if the probability of the segment is at least 0.5.
    Segment,
}

/// Probability from which a label is set, in every protocol.
pub const LEAST_PROBABILITY: f64 = 0.5;

impl Protocol {
    /// Whether a probability of a segment sets the label. `whole` is the probability of the video (`fused`) or of the
    /// modality (`own`), and `None` if the protocol does not ask for it.
    ///
    /// Source (grade C): `eval` in `main_avvp.py` of YapengTian/AVVP-ECCV20 (`fused`); the function of the same name of
    /// JoMoLD (`own`).
    ///
    /// ```
    /// use vaplan::eval::Protocol;
    /// assert!(Protocol::sets(0.5, Some(0.5)) && !Protocol::sets(0.9, Some(0.4)) && Protocol::sets(0.9, None));
    /// ```
    pub fn sets(segment: f64, whole: Option<f64>) -> bool {
        segment >= LEAST_PROBABILITY && whole.is_none_or(|whole| whole >= LEAST_PROBABILITY)
    }

    /// The labels `[C, T]` that a protocol makes from the probabilities of segments, `[T, C]`. `whole` has the probability of
    /// each class in the video (`fused`) or in the modality (`own`), and is `None` if the protocol does not ask for it.
    ///
    /// ```
    /// use vaplan::eval::Protocol;
    /// let labels = Protocol::labels(&[0.9, 0.9, 0.1, 0.7], 2, Some(&[0.8, 0.2]));
    /// assert!(labels.get(0, 0) && !labels.get(0, 1));
    /// assert!(!labels.get(1, 0) && !labels.get(1, 1), "the video as a whole does not have class 1");
    /// ```
    ///
    /// # Panics
    /// Panics if `whole` does not have one probability per class.
    pub fn labels(segments: &[f32], classes: usize, whole: Option<&[f32]>) -> BitMatrix {
        let mut labels = BitMatrix::new(classes, segments.len().checked_div(classes).unwrap_or(0));
        for (at, probability) in segments.iter().enumerate() {
            let class = at % classes;
            let whole = whole.map(|whole| f64::from(whole[class]));
            if Protocol::sets(f64::from(*probability), whole) {
                labels.set(class, at / classes);
            }
        }
        labels
    }

    /// The name of the protocol in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Labels => "labels",
            Protocol::Fused => "fused",
            Protocol::Own => "own",
            Protocol::Segment => "segment",
        }
    }
}

/// Labels of one video, as matrices `[C, T]` with the same T. `None` means missing labels and counts as nothing
/// predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PredictedLabels {
    /// Predicted audible events.
    pub audio: Option<BitMatrix>,
    /// Predicted visible events.
    pub visual: Option<BitMatrix>,
}

impl PredictedLabels {
    /// Number T of segments. `None` if both matrices are missing.
    pub fn segments(&self) -> Option<usize> {
        self.audio
            .as_ref()
            .or(self.visual.as_ref())
            .map(BitMatrix::segments)
    }
}

/// Videos without labels, which were scored as if nothing had been predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Videos without audio labels, in the order of the truth.
    pub audio: Vec<Arc<str>>,
    /// Videos without visual labels, in the order of the truth.
    pub visual: Vec<Arc<str>>,
}

impl Missing {
    /// Whether every video has labels of both modalities.
    pub fn is_empty(&self) -> bool {
        self.audio.is_empty() && self.visual.is_empty()
    }
}

/// Scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassReport {
    /// Name of the class.
    pub class: Arc<str>,
    /// Scores of the class.
    #[serde(flatten)]
    pub scores: ClassFScores,
}

/// The scores of a split, with the split, protocol and videos that they are for.
///
/// The JSON form has `segment` and `event` with the keys of [`Level`], not rounded; `protocol`, `split` and `videos`;
/// `missing` with the names of videos without labels; and `per_class` if it was requested.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// Scores over all videos.
    #[serde(flatten)]
    pub scores: EvalScores,
    /// How predictions became 0 and 1.
    pub protocol: Protocol,
    /// Split that was scored.
    #[serde(serialize_with = "split_name")]
    pub split: Split,
    /// Number of scored videos.
    pub videos: usize,
    /// Videos without labels.
    pub missing: Missing,
    /// Scores of each class, in the order of the classes. `None` if they were not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_class: Option<Vec<ClassReport>>,
}

pub(super) fn split_name<S: Serializer>(split: &Split, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(split.as_str())
}

/// Scores `predictions`, which has one entry per video of `truth`, in the same order.
///
/// The labels of a video give its T. A video without labels gets the T of the longest video that has labels. The
/// score of such a video depends on T only if an event of the truth begins at or after T.
///
/// # Errors
/// Returns [`EvalError::NoPredictions`] if no video has labels.
///
/// # Panics
/// Panics if the numbers of predictions and videos differ, or if a matrix has a wrong shape.
pub fn evaluate(
    truth: &DenseTruth,
    predictions: &[PredictedLabels],
    per_class: bool,
) -> Result<EvalReport, EvalError> {
    assert_eq!(predictions.len(), truth.videos.len(), "one prediction per video");
    let nothing = || EvalError::NoPredictions {
        split: truth.split,
        videos: truth.videos.len(),
    };
    let longest = predictions
        .iter()
        .filter_map(PredictedLabels::segments)
        .max()
        .ok_or_else(nothing)?;

    let classes = truth.classes.len();
    let mut evaluator = Evaluator::new(classes);
    let mut missing = Missing::default();
    for (video, prediction) in truth.videos.iter().zip(predictions) {
        let segments = prediction.segments().unwrap_or(longest);
        let labels = |matrix: &Option<BitMatrix>, missing: &mut Vec<Arc<str>>| {
            matrix.clone().unwrap_or_else(|| {
                missing.push(video.name.clone());
                BitMatrix::new(classes, segments)
            })
        };
        let parse = VideoParse {
            audio: labels(&prediction.audio, &mut missing.audio),
            visual: labels(&prediction.visual, &mut missing.visual),
        };
        evaluator.add(&parse, &video.parse(classes, segments));
    }
    let per_class = per_class.then(|| {
        let scores = evaluator.class_scores();
        truth
            .classes
            .iter()
            .cloned()
            .zip(scores)
            .map(|(class, scores)| ClassReport { class, scores })
            .collect()
    });
    Ok(EvalReport {
        scores: evaluator.scores().expect("there is a video: one has labels"),
        protocol: Protocol::Labels,
        split: truth.split,
        videos: truth.videos.len(),
        missing,
        per_class,
    })
}

/// The table form, with one decimal as papers print it.
impl fmt::Display for EvalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EvalReport {
            protocol,
            split,
            videos,
            ..
        } = self;
        writeln!(
            f,
            "protocol {}, split {split}, {videos} videos, percent",
            protocol.as_str()
        )?;
        writeln!(f, "           A     V    AV  Type@AV  Event@AV")?;
        for (name, level) in [("segment", &self.scores.segment), ("event", &self.scores.event)] {
            let Level {
                audio,
                visual,
                audio_visual,
                type_av,
                event_av,
            } = level;
            writeln!(
                f,
                "{name:<7} {audio:>5.1} {visual:>5.1} {audio_visual:>5.1} {type_av:>8.1} {event_av:>9.1}"
            )?;
        }
        let Some(classes) = &self.per_class else {
            return Ok(());
        };
        let width = classes
            .iter()
            .map(|class| class.class.chars().count())
            .max()
            .unwrap_or(0)
            .max(5);
        writeln!(
            f,
            "\nsegment-level F-score of each class, counts summed over the videos"
        )?;
        writeln!(f, "{:<width$}     A     V    AV  Event@AV", "class")?;
        for ClassReport { class, scores } in classes {
            let cell = |score: Option<f64>| score.map_or_else(|| "-".to_owned(), |f| format!("{f:.1}"));
            let ClassFScores {
                audio,
                visual,
                audio_visual,
                event_av,
            } = *scores;
            writeln!(
                f,
                "{class:<width$} {:>5} {:>5} {:>5} {:>9}",
                cell(audio),
                cell(visual),
                cell(audio_visual),
                cell(event_av)
            )?;
        }
        Ok(())
    }
}
