//! K, α and guard of PLD, by a grid.

use vaplan_dataflows::Pld;
use vaplan_schemas::Modality;

use super::CalibrationMetric;
use super::sample::CalibrationVideo;
use crate::eval::{Evaluator, Level};
use crate::world::settings::LabelSettings;
use crate::world::{Both, at};

/// What is tried (METHOD.md has 5, 10 and 0.5, grade D).
const K: [u32; 6] = [1, 2, 3, 5, 7, 10];
const ALPHA: [f64; 10] = [1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0];
const GUARD: [f64; 8] = [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];

/// The best K, α and guard for the modalities that are denoised, the same for all; none: no flip gains.
///
/// Of equal ones the one that METHOD has, or the first of the grid. Of several modalities what is maximised is added up.
pub fn best(
    videos: &[&CalibrationVideo],
    settings: &LabelSettings,
    modalities: &[Modality],
    metric: CalibrationMetric,
) -> Both<Option<Pld>> {
    let mut chosen: Both<Option<Pld>> = [None, None];
    let value = |pld: &Both<Option<Pld>>| -> f64 {
        let level = level(videos, settings, pld);
        modalities
            .iter()
            .map(|modality| metric.of(&level, *modality))
            .sum()
    };
    let mut best = value(&chosen);
    for pld in grid() {
        let mut tried = [None, None];
        for modality in modalities {
            tried[at(*modality)] = Some(pld);
        }
        let value = value(&tried);
        if value > best {
            (best, chosen) = (value, tried);
        }
    }
    chosen
}

fn grid() -> impl Iterator<Item = Pld> {
    let all = K.into_iter().flat_map(|k| {
        let with = move |alpha| GUARD.map(|guard| Pld::new(k, alpha, guard).expect("the grid is valid"));
        ALPHA.into_iter().flat_map(with)
    });
    std::iter::once(Pld::default()).chain(all)
}

/// Segment-level scores of what thresholds and PLD say.
pub fn level(videos: &[&CalibrationVideo], settings: &LabelSettings, pld: &Both<Option<Pld>>) -> Level {
    let mut evaluator = Evaluator::new(settings.audio.thresholds.len());
    for video in videos {
        evaluator.add(&video.labels(settings, pld), &video.truth);
    }
    evaluator.scores().map_or(NOTHING, |scores| scores.segment)
}

/// Of no videos.
const NOTHING: Level = Level {
    audio: 0.0,
    visual: 0.0,
    audio_visual: 0.0,
    type_av: 0.0,
    event_av: 0.0,
};
