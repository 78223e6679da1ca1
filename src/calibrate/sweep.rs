//! Tries all thresholds of a modality, or of one class of the modality, in one pass over its scores.
//!
//! ```text
//! scores of all videos, descending ── set the next label ─▶ counts of its video and class ─▶ F of its video ─▶ mean
//! ```
//!
//! All thresholds between two neighbouring different scores set the same labels. One threshold per gap is therefore
//! enough, and the best of them is optimal. Setting a label changes the F-score of its own video only, so that the
//! cost of a step does not depend on the number of videos. The sum of the F-scores is an integer in units of 2⁻⁶⁴, so
//! that no rounding errors add up.

use vaplan_dataflows::rule::Rule;
use vaplan_schemas::{ClassId, Modality};

use super::CalibrationMetric;
use super::sample::CalibrationVideo;
use crate::eval::metric::{ClassMean, ConfusionCounts};
use crate::world::settings::LabelSettings;

/// The best range of score thresholds: `lower` is part of the range, `upper` is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestCutoff {
    /// The largest score whose label is not set. If all labels are set, a number below all scores.
    pub lower: f64,
    /// The smallest score whose label is set. If no label is set, infinity.
    pub upper: f64,
    /// Sum of the metric over the videos. It is comparable with other sweeps of the same videos, modality and metric.
    pub value: i128,
}

/// A score, and what the counts need when its label is set.
struct Cell {
    score: f64,
    video: u32,
    pair: u32,
    truth: bool,
    /// Whether the label of the other modality is set.
    other: bool,
    truth_of_both: bool,
}

/// Counts of one class in a video: for the swept modality, for both modalities at once, and for the other modality.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    own: ConfusionCounts,
    both: ConfusionCounts,
    other: ConfusionCounts,
}

/// Weights of three means: A or V of the swept modality, AV, and Event@AV. The part of the metric that depends only
/// on the other modality is left out, because it is the same for every threshold.
fn weights(metric: CalibrationMetric) -> [f64; 3] {
    match metric {
        CalibrationMetric::Own => [1.0, 0.0, 0.0],
        CalibrationMetric::AudioVisual => [0.0, 1.0, 0.0],
        CalibrationMetric::TypeAv => [1.0, 1.0, 0.0],
        CalibrationMetric::EventAv => [0.0, 0.0, 1.0],
    }
}

fn value(pairs: &[Pair], weights: [f64; 3]) -> i128 {
    let mut means = [ClassMean::default(); 3];
    for pair in pairs {
        means[0].add(pair.own);
        means[1].add(pair.both);
        means[2].add(pair.own + pair.other);
    }
    let value: f64 = means
        .iter()
        .zip(weights)
        .map(|(mean, weight)| weight * mean.value())
        .sum();
    (value * 2_f64.powi(64)) as i128
}

/// The best threshold of a modality (or of one class of the modality), while all other thresholds stay. The highest
/// threshold wins a tie.
pub fn sweep(
    videos: &[&CalibrationVideo],
    settings: &LabelSettings,
    modality: Modality,
    class: Option<ClassId>,
    metric: CalibrationMetric,
) -> BestCutoff {
    let weights = weights(metric);
    let mut cells = Vec::new();
    let mut pairs: Vec<Vec<Pair>> = Vec::with_capacity(videos.len());
    let swept = |own| class.is_none_or(|class| class == own);
    for (number, video) in videos.iter().enumerate() {
        let own = pairs_of(video, settings, modality, &swept, |pair, cell| {
            cells.push(Cell {
                video: number as u32,
                pair: pair as u32,
                ..cell
            });
        });
        pairs.push(own);
    }
    cells.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let mut total: i128 = pairs.iter().map(|pairs| value(pairs, weights)).sum();
    let highest = cells.first().map_or(0.0, |cell| cell.score);
    let mut best = BestCutoff {
        lower: highest,
        upper: f64::INFINITY,
        value: total,
    };
    for (nth, cell) in cells.iter().enumerate() {
        let own = &mut pairs[cell.video as usize];
        total -= value(own, weights);
        let pair = &mut own[cell.pair as usize];
        pair.own.set(cell.truth);
        if cell.other {
            pair.both.set(cell.truth_of_both);
        }
        total += value(own, weights);
        // Below the lowest score, choose a bound as far below it as the score is from 0, but at least 0.001 below.
        let next = cells.get(nth + 1).map(|next| next.score);
        let lower = next.unwrap_or(cell.score - cell.score.abs().max(1e-3));
        if lower < cell.score && total > best.value {
            best = BestCutoff {
                lower,
                upper: cell.score,
                value: total,
            };
        }
    }
    best
}

/// The value of the current thresholds. It is comparable with the sweeps of this modality.
pub fn current(
    videos: &[&CalibrationVideo],
    settings: &LabelSettings,
    modality: Modality,
    metric: CalibrationMetric,
) -> i128 {
    let pairs = |video: &&CalibrationVideo| pairs_of(video, settings, modality, &|_| false, |_, _| ());
    let value = |video| value(&pairs(video), weights(metric));
    videos.iter().map(value).sum()
}

/// Counts of the classes that occur in the scores or truth of a video, with all swept labels unset. Each swept label
/// goes to `cells` with the index of its counts.
fn pairs_of(
    video: &CalibrationVideo,
    settings: &LabelSettings,
    modality: Modality,
    swept: &dyn Fn(ClassId) -> bool,
    mut cells: impl FnMut(usize, Cell),
) -> Vec<Pair> {
    let other = Modality::ALL[1 - modality.index()];
    let truth = |of: Modality| match of {
        Modality::Audio => &video.truth.audio,
        Modality::Visual => &video.truth.visual,
    };
    let mut pairs = Vec::new();
    for class in (0..video.truth.audio.classes() as u32).map(ClassId) {
        let (own, others) = (video.scores(modality, class), video.scores(other, class));
        let happens = |of| truth(of).row(class.index()).iter().any(|word| *word != 0);
        if own.is_none() && others.is_none() && !happens(modality) && !happens(other) {
            continue;
        }
        let is_swept = swept(class);
        let thresholds = [modality, other].map(|of| settings.of(of).score_threshold(class));
        let mut pair = Pair::default();
        for segment in 0..video.segments {
            let [true_own, true_other] = [modality, other].map(|of| truth(of).get(class.index(), segment));
            let set_other = others.is_some_and(|scores| scores[segment] > thresholds[1]);
            let set_own = !is_swept && own.is_some_and(|scores| scores[segment] > thresholds[0]);
            pair.own.count(set_own, true_own);
            pair.other.count(set_other, true_other);
            pair.both.count(set_own && set_other, true_own && true_other);
            if let Some(scores) = own.filter(|_| is_swept) {
                cells(
                    pairs.len(),
                    Cell {
                        score: scores[segment],
                        video: 0,
                        pair: 0,
                        truth: true_own,
                        other: set_other,
                        truth_of_both: true_own && true_other,
                    },
                );
            }
        }
        pairs.push(pair);
    }
    pairs
}

/// A threshold as a user gives it, whose score threshold is in the range of a sweep, with as few digits as possible.
/// `None` if no tried number is in the range.
pub fn threshold(rule: Rule, classes: usize, best: &BestCutoff) -> Option<f64> {
    let fits =
        |threshold: &f64| (best.lower..best.upper).contains(&rule.score_threshold(*threshold, classes));
    // Above the highest score, all thresholds are equally good: use a range just above that score.
    let upper = match best.upper.is_finite() {
        true => best.upper,
        false => best.lower + best.lower.abs().max(1e-3) * 0.01,
    };
    let scale = 1.0 / rule.score_threshold(1.0, classes);
    let middle = (best.lower + (upper - best.lower) / 2.0) * scale;
    let short = (2..17).map(|digits| format!("{middle:.digits$e}").parse().expect("it was a number"));
    let edge = best.lower * scale;
    short
        .chain([middle, edge, edge.next_up(), edge.next_down()])
        .find(fits)
}
