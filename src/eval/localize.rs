//! Segment accuracy of AVE: which one event is seen and heard in a segment, or none.
//!
//! METHOD.md, "AVE task": labels are those that both modalities have; a segment without one is background.

use std::fmt;

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::Split;

use super::error::EvalError;
use super::matrix::BitMatrix;
use super::report::{Prediction, Protocol};
use super::truth::Truth;

/// What is asked about a video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Audio-visual video parsing: the events of each modality.
    #[default]
    Avvp,
    /// Audio-visual event localization: the one event that is seen and heard, or background.
    Ave,
}

/// Segment accuracy of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Localization {
    /// Percent of segments whose class, or background, is right.
    pub accuracy: f64,
    /// How predictions became 0s and 1s.
    pub protocol: Protocol,
    /// Split scored.
    #[serde(serialize_with = "super::report::split_name")]
    pub split: Split,
    /// Segments scored.
    pub segments: usize,
    /// Videos scored.
    pub videos: usize,
    /// Videos without labels of both modalities, which count as background throughout.
    pub missing: usize,
}

/// Compares, segment by segment, the class that is both audible and visible with the true one.
///
/// Where a segment has several, the first in the order of the classes counts (D): labels of AVE have one class a video, and
/// predictions are cut to the most probable one before.
///
/// # Errors
/// [`EvalError::NoPredictions`] when no video has labels.
///
/// # Panics
/// When there are not as many predictions as videos.
pub fn localize(
    truth: &Truth,
    predictions: &[Prediction],
    protocol: Protocol,
) -> Result<Localization, EvalError> {
    assert_eq!(predictions.len(), truth.videos.len(), "one prediction per video");
    let lengths = || predictions.iter().filter_map(Prediction::segments);
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

/// The first class of both modalities; none: background.
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

    fn truth() -> Truth {
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
        Truth {
            classes: ["Bark", "Bell"].map(Into::into).to_vec(),
            split: Split::Test,
            videos: vec![video("A"), video("B")],
        }
    }

    #[test]
    fn a_segment_is_right_with_the_class_of_both_modalities_or_as_background() {
        let (mut audio, mut visual) = (BitMatrix::new(2, 10), BitMatrix::new(2, 10));
        audio.set_range(1, 0, 5);
        // Seen from 3 on: 3 and 4 are right; 2 and 5 are background in error; 0, 1 and 6 to 9 are background rightly.
        visual.set_range(1, 3, 10);
        // The other class, both heard and seen, where nothing is: wrong.
        audio.set(0, 9);
        visual.set(0, 9);
        let predicted = Prediction {
            audio: Some(audio),
            visual: Some(visual),
        };
        // The second video has none: background throughout, right in 6 of 10.
        let report = localize(&truth(), &[predicted, Prediction::default()], Protocol::Labels).unwrap();
        assert_eq!((report.accuracy, report.segments, report.missing), (65.0, 20, 1));
        let nothing = [Prediction::default(), Prediction::default()];
        assert!(localize(&truth(), &nothing, Protocol::Labels).is_err());
    }
}
