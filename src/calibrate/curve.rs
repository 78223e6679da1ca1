//! The metric over one threshold for all classes of a modality, for a plot.

use vaplan_schemas::Modality;

use super::pld::level;
use super::sample::CalibrationVideo;
use super::sweep::{BestCutoff, threshold};
use super::{CalibrationGoal, CalibrationReport};
use crate::world::settings::LabelSettings;

/// Number of thresholds that a curve tries, at most.
const POINTS: usize = 80;

/// The metric over the threshold of one modality.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CalibrationCurve {
    /// The modality whose threshold varies; the other modality has its present thresholds.
    pub modality: Modality,
    /// Thresholds, ascending, and the metric in percent.
    pub points: Vec<(f64, f64)>,
    /// The present threshold, if all classes have the same.
    pub now: Option<f64>,
    /// The chosen threshold, if all classes have the same.
    pub chosen: Option<f64>,
}

/// The curve of each modality of `how`. The thresholds lie between neighbouring quantiles of the scores.
pub(super) fn curves(
    videos: &[&CalibrationVideo],
    now: &LabelSettings,
    how: &CalibrationGoal,
    report: &CalibrationReport,
) -> Vec<CalibrationCurve> {
    let curve = |&modality: &Modality| {
        let own = now.of(modality);
        let scores = videos.iter().flat_map(|video| &video.tracks[modality.index()]);
        let mut scores: Vec<f64> = scores.flat_map(|(_, scores)| scores.iter().copied()).collect();
        scores.sort_unstable_by(f64::total_cmp);
        scores.dedup();
        let step = scores.len().div_ceil(POINTS).max(1);
        let pairs = scores.windows(2).step_by(step);
        let tried = pairs.filter_map(|pair| {
            let gap = BestCutoff {
                lower: pair[0],
                upper: pair[1],
                value: 0,
            };
            threshold(own.rule, own.thresholds.len(), &gap)
        });
        let point = |threshold: f64| {
            let mut settings = now.clone();
            let varied = match modality {
                Modality::Audio => &mut settings.audio,
                Modality::Visual => &mut settings.visual,
            };
            varied.thresholds.fill(threshold);
            (
                threshold,
                how.metric.of(&level(videos, &settings, &[None, None]), modality),
            )
        };
        CalibrationCurve {
            modality,
            points: tried.map(point).collect(),
            now: same(&own.thresholds),
            chosen: same(&report.choice.settings.of(modality).thresholds),
        }
    };
    how.modalities.iter().map(curve).collect()
}

fn same(thresholds: &[f64]) -> Option<f64> {
    let (first, others) = thresholds.split_first()?;
    others.iter().all(|other| other == first).then_some(*first)
}
