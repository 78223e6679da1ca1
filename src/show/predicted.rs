//! The timeline of a video that is in no store, made from the probabilities of a trained model.

use std::sync::Arc;

use vaplan_schemas::Modality;

use super::timeline::{Timeline, TimelineTrack, both};

/// What a model predicted of one video.
#[derive(Clone, Copy, Debug)]
pub struct PredictedRows<'a> {
    /// Name of the video.
    pub video: &'a Arc<str>,
    /// Number T of segments.
    pub segments: usize,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// Names of all classes, in order.
    pub classes: &'a [Arc<str>],
    /// Labels of audio and visual, `[T, C]` each; empty for a modality that the video lacks.
    pub labels: [&'a [u8]; 2],
    /// Probabilities of audio and visual, as `labels`.
    pub probabilities: [&'a [f32]; 2],
    /// The probability from which on a segment is labelled, by the protocol.
    pub threshold: f64,
}

impl Timeline {
    /// Makes a timeline with the classes that are labelled in at least one segment. Each modality that the video has shows
    /// all of these classes.
    pub fn of_predictions(rows: &PredictedRows<'_>) -> Timeline {
        let count = rows.classes.len();
        let column = |modality: Modality, class: usize| {
            let cells = rows.labels[modality.index()];
            cells
                .iter()
                .skip(class)
                .step_by(count.max(1))
                .map(|cell| *cell != 0)
        };
        let shown = |class: &usize| {
            let mut modalities = Modality::ALL.into_iter();
            modalities.any(|modality| column(modality, *class).any(|label| label))
        };
        let shown: Vec<usize> = (0..count).filter(shown).collect();
        let mut tracks = Vec::new();
        for modality in Modality::ALL {
            let probabilities = rows.probabilities[modality.index()];
            if rows.labels[modality.index()].is_empty() {
                continue;
            }
            tracks.extend(shown.iter().map(|&class| {
                TimelineTrack {
                    lane: modality.into(),
                    class: rows.classes[class].clone(),
                    labels: column(modality, class).collect(),
                    truth: None,
                    scores: Some(
                        probabilities
                            .iter()
                            .skip(class)
                            .step_by(count)
                            .map(|value| f64::from(*value))
                            .collect(),
                    ),
                    score_threshold: Some(rows.threshold),
                    flips: Vec::new(),
                }
            }));
        }
        tracks.extend(both(&tracks));
        Timeline {
            video: rows.video.clone(),
            split: None,
            segments: rows.segments,
            segment_seconds: rows.segment_seconds,
            weak_labels: shown.iter().map(|class| rows.classes[*class].clone()).collect(),
            guessed: false,
            imported: false,
            tracks,
        }
    }
}
