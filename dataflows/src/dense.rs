//! PLG and PLD on the dense matrices of one video and modality, for callers that have arrays and no store.
//!
//! ```text
//! cosines [T, C] ── rule ─ scores ── plg, class by class ── ∧ weak label ─▶ labels [T, C]
//! probabilities, labels, margins [T, C] ── denoising rule, class by class ── ∧ weak label ─▶ labels, losses, flips [T, C]
//! ```
//!
//! The decisions are those of [`plg`] and [`DenoisingRule::flips`], which the graph calls, too.

use crate::bits::Bits;
use crate::decide::plg;
use crate::denoising::DenoisingRule;
use crate::flips::PredictedTrack;
use crate::prediction::Probability;
use crate::rule::Rule;
use crate::score::Score;

/// Sets the PLG labels of one video and modality.
///
/// # Shapes
/// All matrices are row-major.
/// - `cosines`: `[T, C]`, finite
/// - `weak`: `[C]`, whether the class is in the weak label
/// - `score_thresholds`: `[C]`, compared with the scores of `rule`; see [`Rule::score_threshold`]
/// - `labels`: `[T, C]`, overwritten
///
/// A score that is NaN sets no label. Such a score needs a cosine that is not finite.
///
/// ```
/// use vaplan_dataflows::dense::plg_labels;
/// use vaplan_dataflows::rule::Rule;
/// use vaplan_dataflows::Score;
/// let threshold = Score::new(0.5).unwrap();
/// let mut labels = [false; 4];
/// plg_labels(Rule::Logit { scale: 1.0 }, &[0.6, 0.9, 0.5, 0.9], &[true, false], &[threshold; 2], &mut labels);
/// assert_eq!(labels, [true, false, false, false]);
/// ```
///
/// # Panics
/// Panics if the lengths do not match.
pub fn plg_labels(
    rule: Rule,
    cosines: &[f64],
    weak: &[bool],
    score_thresholds: &[Score],
    labels: &mut [bool],
) {
    let classes = weak.len();
    assert_eq!(score_thresholds.len(), classes, "a threshold for each class");
    assert_eq!(cosines.len(), labels.len(), "cosines and labels");
    let mut scores = vec![0.0; classes];
    for (cosines, labels) in cosines
        .chunks_exact(classes)
        .zip(labels.chunks_exact_mut(classes))
    {
        rule.score(cosines, &mut scores);
        for (class, label) in labels.iter_mut().enumerate() {
            let score = Score::new(scores[class]).filter(|_| weak[class]);
            *label = score.is_some_and(|score| plg(&[score], score_thresholds[class]).get(0));
        }
    }
}

/// The matrices that [`denoised_labels`] reads, row-major.
#[derive(Clone, Copy, Debug)]
pub struct PredictedMatrices<'a> {
    /// Probabilities of the parser, `[T, C]`.
    pub probabilities: &'a [f32],
    /// PLG labels, `[T, C]`.
    pub labels: &'a [bool],
    /// Score minus threshold, `[T, C]`; needed if the rule [reads margins](DenoisingRule::reads_margins). NaN where there is no score:
    /// such a label does not flip.
    pub margins: Option<&'a [f64]>,
}

/// The matrices that [`denoised_labels`] writes.
#[derive(Debug)]
pub struct DenoisedMatrices<'a> {
    /// Labels after denoising, `[T, C]`.
    pub labels: &'a mut [bool],
    /// Loss of each label, `[T, C]`; NaN for a class outside the weak label, and for a prediction that is no probability.
    pub losses: &'a mut [f64],
    /// Whether the label was flipped, `[T, C]`.
    pub flips: &'a mut [bool],
}

/// Denoises the labels of one video and modality.
///
/// # Shapes
/// All matrices are row-major.
/// - `own`: matrices `[T, C]`
/// - `weak`: `[C]`, whether the class is in the weak label; labels of other classes stay as they are
/// - `out`: three matrices `[T, C]`, overwritten
///
/// ```
/// use vaplan_dataflows::dense::{DenoisedMatrices, PredictedMatrices, denoised_labels};
/// use vaplan_dataflows::DenoisingRule;
/// let rule = DenoisingRule::pld(2, 10.0, 0.5).unwrap();
/// let own = PredictedMatrices { probabilities: &[0.01, 0.02, 0.9], labels: &[false; 3], margins: None };
/// let (mut labels, mut losses, mut flips) = ([false; 3], [0.0; 3], [false; 3]);
/// let out = DenoisedMatrices { labels: &mut labels, losses: &mut losses, flips: &mut flips };
/// denoised_labels(rule, own, &[true], out);
/// assert_eq!(labels, [false, false, true]);
/// assert_eq!(flips, [false, false, true]);
/// ```
///
/// # Panics
/// Panics if the lengths do not match, or if the rule reads margins and there are none.
pub fn denoised_labels(
    rule: DenoisingRule,
    own: PredictedMatrices<'_>,
    weak: &[bool],
    out: DenoisedMatrices<'_>,
) {
    let classes = weak.len();
    let PredictedMatrices {
        probabilities,
        labels,
        margins,
    } = own;
    assert_eq!(probabilities.len(), labels.len(), "probabilities and labels");
    out.labels.copy_from_slice(labels);
    out.losses.fill(f64::NAN);
    out.flips.fill(false);
    for class in (0..classes).filter(|class| weak[*class]) {
        let cells = || (class..labels.len()).step_by(classes);
        let track: Bits = cells().map(|cell| labels[cell]).collect();
        let predicted: Vec<Probability> = cells()
            .map(|cell| Probability::new(probabilities[cell]))
            .collect();
        let unknown = |cell: usize| margins.is_some_and(|margins| margins[cell].is_nan());
        let nothing = Score::new(0.0).expect("a number");
        let margins: Option<Vec<Score>> = margins.map(|margins| {
            cells()
                .map(|cell| Score::new(margins[cell]).unwrap_or(nothing))
                .collect()
        });
        let found = rule.flips_and_losses(PredictedTrack {
            labels: &track,
            margins: margins.as_deref(),
            probabilities: &predicted,
        });
        for (segment, cell) in cells().enumerate() {
            let flipped = found.flipped.get(segment) && !unknown(cell);
            out.flips[cell] = flipped;
            out.labels[cell] = labels[cell] != flipped;
            out.losses[cell] = found.losses[segment].unwrap_or(f64::NAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_outside_the_weak_label_keep_their_labels_and_have_no_loss() {
        let rule = DenoisingRule::pld(1, 2.0, 0.5).unwrap();
        let (mut labels, mut losses, mut flips) = ([false; 6], [0.0; 6], [true; 6]);
        let out = DenoisedMatrices {
            labels: &mut labels,
            losses: &mut losses,
            flips: &mut flips,
        };
        let probabilities = [0.01, 0.01, 0.02, 0.01, 0.9, 0.9];
        let own = PredictedMatrices {
            probabilities: &probabilities,
            labels: &[false, true, false, true, false, true],
            margins: None,
        };
        denoised_labels(rule, own, &[true, false], out);
        assert_eq!(labels, [false, true, false, true, true, true]);
        assert_eq!(flips, [false, false, false, false, true, false]);
        assert!(losses[1].is_nan() && losses[4] > 2.0);
    }

    #[test]
    fn margins_of_the_class_decide_and_a_label_without_a_score_stays() {
        let rule = DenoisingRule::margin(1.0, 0.0).unwrap();
        let (mut labels, mut losses, mut flips) = ([false; 6], [0.0; 6], [false; 6]);
        let out = DenoisedMatrices {
            labels: &mut labels,
            losses: &mut losses,
            flips: &mut flips,
        };
        let own = PredictedMatrices {
            probabilities: &[0.3; 6],
            labels: &[true; 6],
            // ln(0.3 / 0.7) is -0.85.
            margins: Some(&[2.0, 0.5, 0.5, 2.0, f64::NAN, f64::NAN]),
        };
        denoised_labels(rule, own, &[true, true], out);
        assert_eq!(flips, [false, true, true, false, false, false]);
        assert_eq!(labels, flips.map(|flipped| !flipped));
    }

    #[test]
    fn softmax_is_over_all_classes_and_sets_only_weak_ones() {
        let rule = Rule::Softmax { scale: 1.0 };
        let thresholds = [Score::new(0.5).unwrap(); 2];
        let mut labels = [true; 4];
        plg_labels(
            rule,
            &[2.0, 0.0, 0.0, 2.0],
            &[true, false],
            &thresholds,
            &mut labels,
        );
        assert_eq!(labels, [true, false, false, false]);
    }
}
