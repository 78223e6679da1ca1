//! The scores of a split, as JSON or as a table.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use vaplan_schemas::rows::Split;

use super::error::EvalError;
use super::matrix::BitMatrix;
use super::metric::{ClassFScores, EvalScores, Evaluator, Level, VideoParse};
use super::truth::DenseTruth;

/// How predictions became 0s and 1s before they were scored: published numbers differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// They were 0s and 1s: labels are scored as they are.
    Labels,
    /// The segment's and the video's probability are at least 0.5 (HAN).
    Fused,
    /// The segment's and the modality's probability are at least 0.5 (MA, JoMoLD, LSLD).
    Own,
}

impl Protocol {
    /// As JSON and tables write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Labels => "labels",
            Protocol::Fused => "fused",
            Protocol::Own => "own",
        }
    }
}

/// Labels of one video, `[C, T]` each, of one T; none: there are none, which counts as nothing predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PredictedLabels {
    /// What is said to be heard.
    pub audio: Option<BitMatrix>,
    /// What is said to be seen.
    pub visual: Option<BitMatrix>,
}

impl PredictedLabels {
    /// T, where it is known.
    pub fn segments(&self) -> Option<usize> {
        self.audio
            .as_ref()
            .or(self.visual.as_ref())
            .map(BitMatrix::segments)
    }
}

/// Videos without labels; they were scored as if nothing had been predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Videos without audio labels, in the order of the truth.
    pub audio: Vec<Arc<str>>,
    /// Videos without visual labels, in the order of the truth.
    pub visual: Vec<Arc<str>>,
}

impl Missing {
    /// Every video has both.
    pub fn is_empty(&self) -> bool {
        self.audio.is_empty() && self.visual.is_empty()
    }
}

/// Scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassReport {
    /// Name.
    pub class: Arc<str>,
    /// Its scores.
    #[serde(flatten)]
    pub scores: ClassFScores,
}

/// Scores of a split, and what they are of.
///
/// As JSON: `segment` and `event` with the keys of [`Level`], unrounded; `protocol`, `split`, `videos`; `missing`
/// with the names of videos without labels; `per_class` where asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// Scores.
    #[serde(flatten)]
    pub scores: EvalScores,
    /// How predictions became 0s and 1s.
    pub protocol: Protocol,
    /// Split scored.
    #[serde(serialize_with = "split_name")]
    pub split: Split,
    /// Videos scored.
    pub videos: usize,
    /// Videos without labels.
    pub missing: Missing,
    /// Scores of each class, in the order of the classes; none: not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_class: Option<Vec<ClassReport>>,
}

pub(super) fn split_name<S: Serializer>(split: &Split, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(split.as_str())
}

/// Scores `predictions`, one per video of `truth` and in its order.
///
/// T of a video is that of its labels; a video without any has as many segments as the longest that has some (its
/// score depends on T only through events that begin past the end).
///
/// # Errors
/// [`EvalError::NoPredictions`] when no video has labels.
///
/// # Panics
/// When there are not as many predictions as videos, or a matrix has another shape than it should.
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

/// The table form: one decimal, as papers print it.
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
