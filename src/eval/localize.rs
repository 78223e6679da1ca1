//! Segment accuracy of task AVE: the one event that is both audible and visible in a segment, or background.
//!
//! docs/method.md, "AVE task": a segment has the class that both modalities have. A segment without such a class is
//! background.

use std::fmt;

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::Split;

use super::error::EvalError;
use super::matrix::BitMatrix;
use super::report::{PredictedLabels, Protocol};
use super::truth::DenseTruth;
use crate::choice::Choice;

/// The task whose score is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Audio-visual video parsing: which events are audible and which are visible. The scores are F-scores.
    #[default]
    Avvp,
    /// Audio-visual event localization: the one event that is both audible and visible, or background. The score is
    /// the accuracy over segments.
    Ave,
}

impl Choice for Task {
    const WHAT: &'static str = "task";
    const ALL: &'static [(Task, &'static str, &'static str)] = &[
        (
            Task::Avvp,
            "avvp",
            "Audio-visual video parsing: F-scores of the events of each modality",
        ),
        (
            Task::Ave,
            "ave",
            "Audio-visual event localization: accuracy of the one event that is audible and visible, or background",
        ),
    ];
}

/// Segment accuracy of a split for task AVE.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Localization {
    /// Share of the segments whose class or background is correct, in percent.
    pub accuracy: f64,
    /// How probabilities were turned into 0 and 1.
    pub protocol: Protocol,
    /// Split that was scored.
    #[serde(serialize_with = "super::report::split_name")]
    pub split: Split,
    /// Number of scored segments.
    pub segments: usize,
    /// Number of scored videos.
    pub videos: usize,
    /// Number of videos that lack labels of a modality. Every segment of these videos is scored as background.
    pub missing: usize,
}

/// Compares the class that is both audible and visible with the true class, segment by segment.
///
/// If several classes are both audible and visible in a segment, the first in class order counts (docs/method.md, grade
/// D). AVE annotates one class per video; callers therefore reduce predictions to the most probable class before the
/// call.
///
/// # Shapes
/// `predictions` has one entry per video of `truth`, in the same order. The matrices of an entry are `[C, T]`.
///
/// # Errors
/// Returns [`EvalError::NoPredictions`] if no video has labels.
///
/// # Panics
/// Panics if the numbers of predictions and videos differ.
pub fn localize(
    truth: &DenseTruth,
    predictions: &[PredictedLabels],
    protocol: Protocol,
) -> Result<Localization, EvalError> {
    assert_eq!(predictions.len(), truth.videos.len(), "one prediction per video");
    let lengths = || predictions.iter().filter_map(PredictedLabels::segments);
    let longest = lengths().max().ok_or(EvalError::NoPredictions {
        split: truth.split,
        videos: truth.videos.len(),
    })?;
    let classes = truth.classes.len();
    let (mut right, mut segments, mut missing) = (0_usize, 0_usize, 0);
    for (video, prediction) in truth.videos.iter().zip(predictions) {
        let length = prediction.segments().unwrap_or(longest);
        let parse = video.parse(classes, length);
        let predicted = prediction.audio.as_ref().zip(prediction.visual.as_ref());
        missing += usize::from(predicted.is_none());
        for segment in 0..length {
            let said = predicted.and_then(|(audio, visual)| event(audio, visual, segment));
            right += usize::from(said == event(&parse.audio, &parse.visual, segment));
        }
        segments += length;
    }
    Ok(Localization {
        accuracy: 100.0 * right as f64 / segments.max(1) as f64,
        protocol,
        split: truth.split,
        segments,
        videos: truth.videos.len(),
        missing,
    })
}

/// The first class that both modalities have in `segment`. `None` means background.
fn event(audio: &BitMatrix, visual: &BitMatrix, segment: usize) -> Option<usize> {
    (0..audio.classes()).find(|&class| audio.get(class, segment) && visual.get(class, segment))
}

impl fmt::Display for Localization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Localization {
            accuracy,
            protocol,
            split,
            segments,
            videos,
            ..
        } = self;
        let protocol = protocol.as_str();
        writeln!(
            f,
            "task ave, protocol {protocol}, split {split}, {videos} videos, {segments} segments, percent"
        )?;
        writeln!(f, "segment accuracy {accuracy:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::truth::{TruthEvent, TruthVideo};
    use vaplan_schemas::{ClassId, Modality};

    fn truth() -> DenseTruth {
        let events = Modality::ALL.map(|modality| TruthEvent {
            modality,
            class: ClassId(1),
            onset: 2,
            offset: 6,
        });
        let video = |name: &str| TruthVideo {
            name: name.into(),
            events: events.to_vec(),
        };
        DenseTruth {
            classes: ["Bark", "Bell"].map(Into::into).to_vec(),
            split: Split::Test,
            videos: vec![video("A"), video("B")],
        }
    }

    #[test]
    fn a_segment_is_right_with_the_class_of_both_modalities_or_as_background() {
        let (mut audio, mut visual) = (BitMatrix::new(2, 10), BitMatrix::new(2, 10));
        audio.set_range(1, 0, 5);
        // The class is visible from segment 3 on. Segments 3 and 4 are correct. Segments 2 and 5 are background,
        // which is wrong. Segments 0, 1 and 6 to 9 are background, which is correct.
        visual.set_range(1, 3, 10);
        // The other class is both audible and visible in segment 9. The truth has no event there: wrong.
        audio.set(0, 9);
        visual.set(0, 9);
        let predicted = PredictedLabels {
            audio: Some(audio),
            visual: Some(visual),
        };
        // The second video has no labels: all segments are background, which is correct in 6 of 10 segments.
        let report = localize(
            &truth(),
            &[predicted, PredictedLabels::default()],
            Protocol::Labels,
        )
        .unwrap();
        assert_eq!((report.accuracy, report.segments, report.missing), (65.0, 20, 1));
        let nothing = [PredictedLabels::default(), PredictedLabels::default()];
        assert!(localize(&truth(), &nothing, Protocol::Labels).is_err());
    }
}
