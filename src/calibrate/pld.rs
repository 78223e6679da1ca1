//! Chooses K, α and guard of PLD by a grid search.

use vaplan_dataflows::DenoisingRule;
use vaplan_schemas::Modality;

use super::CalibrationMetric;
use super::sample::CalibrationVideo;
use crate::eval::{Evaluator, Level};
use crate::world::Both;
use crate::world::settings::LabelSettings;

/// The values of the grid. docs/method.md has K = 5, α = 10 and guard = 0.5 (grade D).
const K: [u32; 6] = [1, 2, 3, 5, 7, 10];
const ALPHA: [f64; 10] = [1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0];
const GUARD: [f64; 8] = [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];

/// The best K, α and guard for the modalities to denoise. All of them get the same values. `None` if no values of the
/// grid improve the metric.
///
/// If several values are equally good, the defaults of docs/method.md win, and then the first values of the grid. For
/// several modalities, the function maximises the sum of their metrics.
pub fn best(
    videos: &[&CalibrationVideo],
    settings: &LabelSettings,
    modalities: &[Modality],
    metric: CalibrationMetric,
) -> Both<Option<DenoisingRule>> {
    let mut chosen: Both<Option<DenoisingRule>> = [None, None];
    let value = |pld: &Both<Option<DenoisingRule>>| -> f64 {
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
            tried[modality.index()] = Some(pld);
        }
        let value = value(&tried);
        if value > best {
            (best, chosen) = (value, tried);
        }
    }
    chosen
}

fn grid() -> impl Iterator<Item = DenoisingRule> {
    let all = K.into_iter().flat_map(|k| {
        let with =
            move |alpha| GUARD.map(|guard| DenoisingRule::pld(k, alpha, guard).expect("the grid is valid"));
        ALPHA.into_iter().flat_map(with)
    });
    std::iter::once(DenoisingRule::default()).chain(all)
}

/// Segment-level scores of the labels that these settings and PLD give.
pub fn level(
    videos: &[&CalibrationVideo],
    settings: &LabelSettings,
    pld: &Both<Option<DenoisingRule>>,
) -> Level {
    let mut evaluator = Evaluator::new(settings.audio.thresholds.len());
    for video in videos {
        evaluator.add(&video.labels(settings, pld), &video.truth);
    }
    evaluator.scores().map_or(NOTHING, |scores| scores.segment)
}

/// The scores of an empty list of videos.
const NOTHING: Level = Level {
    audio: 0.0,
    visual: 0.0,
    audio_visual: 0.0,
    type_av: 0.0,
    event_av: 0.0,
};
