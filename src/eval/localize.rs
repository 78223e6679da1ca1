//! Segment accuracy of task AVE: the one event that is both audible and visible in a segment, or background.
//!
//! METHOD.md, "AVE task": a segment has the label that both modalities have; a segment without such a label is background.

use std::fmt;

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::Split;

use super::error::EvalError;
use super::matrix::BitMatrix;
use super::report::{PredictedLabels, Protocol};
use super::truth::DenseTruth;
use crate::choice::Choice;

/// Task that labels are scored for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Audio-visual video parsing: which events are audible and which are visible. Scored by F-scores.
    #[default]
    Avvp,
    /// Audio-visual event localization: the one event that is both audible and visible, or background. Scored by segment
    /// accuracy.
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

/// Segment accuracy of a split, task AVE.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Localization {
    /// Segments whose class or background is correct, in percent.
    pub accuracy: f64,
    /// How probabilities became 0s and 1s.
    pub protocol: Protocol,
    /// Split that was scored.
    #[serde(serialize_with = "super::report::split_name")]
    pub split: Split,
    /// Segments that were scored.
    pub segments: usize,
    /// Videos that were scored.
    pub videos: usize,
    /// Videos that lack labels of a modality. Every segment of these videos is scored as background.
    pub missing: usize,
}

/// Compares the class that is both audible and visible with the true class, segment by segment.
///
/// If several classes are both audible and visible in a segment, the first in class order counts (METHOD.md, grade D). AVE
/// annotates one class per video, and callers reduce predictions to the most probable class before.
///
/// # Shapes
/// `predictions` has one entry per video of `truth`, in the same order. The matrices of an entry are `[C, T]`.
///
/// # Errors
/// [`EvalError::NoPredictions`] if no video has labels.
///
/// # Panics
/// If the numbers of predictions and videos differ.
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

/// First class that both modalities have in `segment`. `None` is background.
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
        // Visible from segment 3 on: 3 and 4 are correct, 2 and 5 are wrongly background, 0, 1 and 6 to 9 are rightly background.
        visual.set_range(1, 3, 10);
        // The other class is both audible and visible in segment 9, where nothing happens: wrong.
        audio.set(0, 9);
        visual.set(0, 9);
        let predicted = PredictedLabels {
            audio: Some(audio),
            visual: Some(visual),
        };
        // The second video has no labels: background throughout, correct in 6 of 10 segments.
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
