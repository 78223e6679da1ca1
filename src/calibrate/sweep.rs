//! All thresholds of a modality, or of one class of it, in one pass over its scores.
//!
//! ```text
//! scores of all videos, descending ── one after another set ─▶ counts of its video and class ─▶ F of its video ─▶ mean
//! ```
//!
//! Only where the next score is another there is a threshold between the two: all others set the same cells as one of
//! these, so the best of them is the best there is. A cell that is set changes its own video only, so a step costs the
//! same however many videos there are. The mean is kept as a whole number of parts in 2⁶⁴: it does not drift.

use vaplan_dataflows::rule::Rule;
use vaplan_schemas::{ClassId, Modality};

use super::CalibrationMetric;
use super::sample::CalibrationVideo;
use crate::eval::metric::{ClassMean, ConfusionCounts};
use crate::world::at;
use crate::world::settings::LabelSettings;

/// The best cutoffs: from `lower`, up to and without `upper`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestCutoff {
    /// The largest score that is not set, or a number below all.
    pub lower: f64,
    /// The smallest that is, or infinity.
    pub upper: f64,
    /// Sum over the videos, as comparable to that of other sweeps of these videos by the same metric.
    pub value: i128,
}

/// A score and what setting its label does.
struct Cell {
    score: f64,
    video: u32,
    pair: u32,
    truth: bool,
    /// Is the label of the other modality set?
    other: bool,
    truth_of_both: bool,
}

/// Counts of one class in a video: of the modality that is swept, of both at once, and of the other.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    own: ConfusionCounts,
    both: ConfusionCounts,
    other: ConfusionCounts,
}

/// How much A or V of the swept modality, AV and Event@AV weigh; what the other modality alone adds is the same
/// whatever the threshold, and left out.
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

/// The best cutoff of a modality, or of one class of it, while all others stay; of equal ones the highest.
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
        // Below all scores: as far as the lowest is from 0, or a bit.
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

/// The value of thresholds as they are, as comparable to that of sweeps of this modality.
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

/// Counts of the classes that a video has, with no swept cell set; those go to `cells` with the place of their counts.
fn pairs_of(
    video: &CalibrationVideo,
    settings: &LabelSettings,
    modality: Modality,
    swept: &dyn Fn(ClassId) -> bool,
    mut cells: impl FnMut(usize, Cell),
) -> Vec<Pair> {
    let other = Modality::ALL[1 - at(modality)];
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
        let cutoffs = [modality, other].map(|of| settings.of(of).cutoff(class));
        let mut pair = Pair::default();
        for segment in 0..video.segments {
            let [true_own, true_other] = [modality, other].map(|of| truth(of).get(class.index(), segment));
            let set_other = others.is_some_and(|scores| scores[segment] > cutoffs[1]);
            let set_own = !is_swept && own.is_some_and(|scores| scores[segment] > cutoffs[0]);
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

/// A threshold whose cutoff is in the range of a sweep, in as few digits as do; none where no number is.
pub fn threshold(rule: Rule, classes: usize, best: &BestCutoff) -> Option<f64> {
    let fits = |threshold: &f64| (best.lower..best.upper).contains(&rule.cutoff(*threshold, classes));
    // A bit above the highest is as good as anywhere above it.
    let upper = match best.upper.is_finite() {
        true => best.upper,
        false => best.lower + best.lower.abs().max(1e-3) * 0.01,
    };
    let scale = 1.0 / rule.cutoff(1.0, classes);
    let middle = (best.lower + (upper - best.lower) / 2.0) * scale;
    let short = (2..17).map(|digits| format!("{middle:.digits$e}").parse().expect("it was a number"));
    let edge = best.lower * scale;
    short
        .chain([middle, edge, edge.next_up(), edge.next_down()])
        .find(fits)
}
