//! Chooses thresholds by repeated sweeps, until no sweep improves the metric.

use vaplan_schemas::{ClassId, Modality};

use super::CalibrationGoal;
use super::sample::CalibrationVideo;
use super::sweep::{BestCutoff, current, sweep, threshold};
use crate::world::settings::LabelSettings;

/// Maximal number of rounds of sweeps. Usually a few rounds are enough.
const ROUNDS: usize = 50;

/// The best thresholds that sweeps find. First, each requested modality gets one threshold for all of its classes.
/// Then, if `per_class` is set, each class gets its own threshold, one class after the other.
///
/// Each sweep is exact as long as all other thresholds stay. With metric `own`, the one threshold of a modality is
/// therefore optimal. In the other cases, modalities or classes share the mean of a video: sweeps go on until no
/// sweep improves the metric. Then no change of a single threshold improves it, unless the limit of 50 rounds was
/// reached before.
pub fn search(videos: &[&CalibrationVideo], start: &LabelSettings, how: &CalibrationGoal) -> LabelSettings {
    let mut settings = start.clone();
    for &modality in &how.modalities {
        let best = sweep(videos, &settings, modality, None, how.metric);
        take(&mut settings, modality, None, &best);
    }
    ascend(videos, &mut settings, how, &[None]);
    if how.per_class {
        let classes = settings.audio.thresholds.len() as u32;
        let each: Vec<_> = (0..classes).map(|class| Some(ClassId(class))).collect();
        ascend(videos, &mut settings, how, &each);
    }
    settings
}

/// Sweeps these classes in turn, until no sweep improves the metric.
fn ascend(
    videos: &[&CalibrationVideo],
    settings: &mut LabelSettings,
    how: &CalibrationGoal,
    classes: &[Option<ClassId>],
) {
    for _ in 0..ROUNDS {
        let mut gained = false;
        for &modality in &how.modalities {
            let mut now = current(videos, settings, modality, how.metric);
            for class in classes {
                let best = sweep(videos, settings, modality, *class, how.metric);
                if best.value > now && take(settings, modality, *class, &best) {
                    now = best.value;
                    gained = true;
                }
            }
        }
        if !gained {
            return;
        }
    }
}

/// Sets the threshold of a class (`None`: of all classes). Returns false if no number gives a threshold in the range
/// of `best`.
fn take(settings: &mut LabelSettings, modality: Modality, class: Option<ClassId>, best: &BestCutoff) -> bool {
    let own = match modality {
        Modality::Audio => &mut settings.audio,
        Modality::Visual => &mut settings.visual,
    };
    let Some(threshold) = threshold(own.rule, own.thresholds.len(), best) else {
        return false;
    };
    match class {
        Some(class) => own.thresholds[class.index()] = threshold,
        None => own.thresholds.fill(threshold),
    }
    true
}
