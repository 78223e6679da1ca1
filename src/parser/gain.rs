//! Predictions of a network in training as those of the videos on which a denoising rule is chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::{Prediction, Probability, VideoId};
use vaplan_schemas::ClassId;

use super::probabilities::VideoProbabilities;
use crate::calibrate::sample::{CalibrationSample, CalibrationVideo};

impl CalibrationSample {
    /// The videos of the sample, with these predictions in place of their own. A video without one keeps its own.
    pub fn with_predictions(&self, predicted: &[VideoProbabilities]) -> Vec<CalibrationVideo> {
        let own = |own: &VideoProbabilities| {
            let both = own
                .segments
                .each_ref()
                .map(|probabilities| Some(Arc::new(prediction(probabilities, own.classes))));
            (VideoId::of(&own.video), both)
        };
        let wanted: std::collections::BTreeSet<VideoId> = self.videos.iter().map(|video| video.id).collect();
        let of_sample = |own: &&VideoProbabilities| wanted.contains(&VideoId::of(&own.video));
        let by_video: BTreeMap<VideoId, _> = predicted.iter().filter(of_sample).map(own).collect();
        let mut videos = self.videos.clone();
        for video in &mut videos {
            if let Some(both) = by_video.get(&video.id) {
                video.predictions = both.clone();
            }
        }
        videos
    }
}

/// The prediction of `[T, C]` probabilities.
fn prediction(probabilities: &[f32], classes: usize) -> Prediction {
    let segments = probabilities.len() / classes;
    let by_class = (0..classes).flat_map(|class| {
        (0..segments).map(move |segment| Probability::new(probabilities[segment * classes + class]))
    });
    let named = (0..classes as u32).map(ClassId).collect();
    Prediction::new(1, segments as u32, named, by_class.collect())
}
