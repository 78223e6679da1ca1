//! The denoising rule `margin`: the margin of the score and the logit of the parser add up.
//!
//! ```text
//! (score − threshold) / scale + ln(P / (1 − P)) > bias ─▶ 1, else 0
//! ```
//!
//! PLG asks the score alone, and the rules [`pld`](mod@crate::pld) and [`bounds`](mod@crate::bounds) flip a label that hardly passed
//! its threshold as reluctantly as one that passed it by far. The errors of the score and those of the parser have different
//! causes, so that their sum errs less than either. Source: our own rule (grade D); docs/method.md, "PLD".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bits::Bits;
use crate::flips::{Flips, PredictedTrack};
use crate::pld::{CLAMP, forward_loss};
use crate::prediction::Probability;
use crate::score::Score;

/// The parameters of one modality.
///
/// ```
/// use vaplan_dataflows::margin::ScoreMargin;
/// let margin = ScoreMargin::new(0.001, 0.5).unwrap();
/// assert_eq!((margin.scale(), margin.bias()), (0.001, 0.5));
/// let refused = ScoreMargin::new(0.0, 0.5).unwrap_err();
/// assert_eq!(refused.to_string(), "scale is 0, expected a finite number above 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScoreMargin {
    scale: Score,
    bias: Score,
}

/// A parameter that is outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MarginError {
    /// The scale is not a finite number above 0.
    #[error("scale is {0}, expected a finite number above 0")]
    Scale(f64),
    /// The bias is not a finite number.
    #[error("bias is {0}, expected a finite number")]
    Bias(f64),
}

impl ScoreMargin {
    /// Name of the rule.
    pub const NAME: &'static str = "margin";

    /// Makes the parameters. `scale` has the unit of a score: a score that is `scale` above its threshold counts as much as one unit
    /// of the parser's logit. `bias` is a logit.
    ///
    /// # Errors
    /// Returns [`MarginError`] if `scale` is not finite and above 0, or `bias` is not finite.
    pub fn new(scale: f64, bias: f64) -> Result<ScoreMargin, MarginError> {
        let finite = |value: f64| Score::new(value).filter(|_| value.is_finite());
        Ok(ScoreMargin {
            scale: finite(scale)
                .filter(|_| scale > 0.0)
                .ok_or(MarginError::Scale(scale))?,
            bias: finite(bias).ok_or(MarginError::Bias(bias))?,
        })
    }

    /// Makes the rule from the values of [`ScoreMargin::parameters`].
    ///
    /// # Errors
    /// Returns the errors of [`ScoreMargin::new`].
    ///
    /// # Panics
    /// Panics if a parameter is missing.
    pub(crate) fn from_parameters(values: &BTreeMap<String, f64>) -> Result<ScoreMargin, MarginError> {
        ScoreMargin::new(values["scale"], values["bias"])
    }

    /// The values of the parameters by name.
    pub(crate) fn parameters(self) -> BTreeMap<String, f64> {
        [("scale", self.scale()), ("bias", self.bias())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// The difference of a score and its threshold that counts as much as one unit of the parser's logit.
    pub fn scale(self) -> f64 {
        self.scale.get()
    }

    /// The sum that a set label exceeds.
    pub fn bias(self) -> f64 {
        self.bias.get()
    }

    /// Returns the label of one segment; `None` if the prediction is not a probability.
    fn label(self, margin: Score, probability: Probability) -> Option<bool> {
        let p = probability.get()?.clamp(CLAMP, 1.0 - CLAMP);
        Some(margin.get() / self.scale() + (p / (1.0 - p)).ln() > self.bias())
    }
}

impl Default for ScoreMargin {
    /// The defaults: scale 0.0005, bias 0 (grade D). They suit the scores of rule `softmax` with the 25 classes of LLP; other scores
    /// need another scale (docs/results.md).
    fn default() -> ScoreMargin {
        ScoreMargin::new(0.0005, 0.0).expect("valid")
    }
}

/// Decides which labels of a track to flip. A prediction that is not a probability flips no label. The rule has no base.
///
/// # Shapes
/// Labels, margins and probabilities of the track: `[T]`, one class.
///
/// # Panics
/// Panics if the track has no margins.
///
/// ```
/// use vaplan_dataflows::flips::PredictedTrack;
/// use vaplan_dataflows::margin::{ScoreMargin, flips};
/// use vaplan_dataflows::{Probability, Score};
/// // ln(0.2 / 0.8) = -1.4: the parser contradicts both set labels, and only the first score has so large a margin.
/// let margins = [0.02, 0.01, -0.001].map(|margin| Score::new(margin).unwrap());
/// let probabilities = [0.2, 0.2, 0.9].map(Probability::new);
/// let labels = [true, true, false].into_iter().collect();
/// let track = PredictedTrack { labels: &labels, margins: Some(&margins), probabilities: &probabilities };
/// let rule = ScoreMargin::new(0.01, 0.0).unwrap();
/// assert_eq!(format!("{:?}", flips(track, rule).flipped), "011");
/// ```
pub fn flips(track: PredictedTrack<'_>, rule: ScoreMargin) -> Flips {
    let margins = track.margins.expect("rule margin reads margins");
    assert_eq!(
        margins.len(),
        track.probabilities.len(),
        "margins and probabilities"
    );
    let pairs = || track.probabilities.iter().zip(track.labels.iter());
    let losses: Vec<Option<f64>> = pairs().map(|(own, label)| forward_loss(*own, label)).collect();
    let flipped: Bits = pairs()
        .zip(margins)
        .map(|((own, label), margin)| rule.label(*margin, *own).is_some_and(|decided| decided != label))
        .collect();
    Flips {
        flipped,
        invalid: losses.iter().position(Option::is_none),
        losses,
        base: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flipped(labels: &[bool], margins: &[f64], probabilities: &[f32], rule: ScoreMargin) -> String {
        let labels = labels.iter().copied().collect();
        let margins: Vec<Score> = margins
            .iter()
            .map(|margin| Score::new(*margin).unwrap())
            .collect();
        let probabilities: Vec<Probability> = probabilities.iter().copied().map(Probability::new).collect();
        let track = PredictedTrack {
            labels: &labels,
            margins: Some(&margins),
            probabilities: &probabilities,
        };
        format!("{:?}", flips(track, rule).flipped)
    }

    #[test]
    fn a_large_scale_asks_the_parser_alone_and_a_small_one_the_score_alone() {
        let labels = [true, true, false, false];
        let (margins, probabilities) = ([0.1, 0.1, -0.1, -0.1], [0.9, 0.2, 0.2, 0.9]);
        let of = |scale| {
            flipped(
                &labels,
                &margins,
                &probabilities,
                ScoreMargin::new(scale, 0.0).unwrap(),
            )
        };
        assert_eq!(of(1e9), "0101");
        assert_eq!(of(1e-9), "0000");
    }

    #[test]
    fn a_higher_bias_sets_fewer_labels() {
        let of = |bias| {
            let rule = ScoreMargin::new(1.0, bias).unwrap();
            flipped(&[true, true, true], &[0.0; 3], &[0.3, 0.6, 0.9], rule)
        };
        assert_eq!(
            [of(-1.0), of(0.0), of(1.0), of(3.0)],
            ["000", "100", "110", "111"]
        );
    }

    #[test]
    fn a_probability_of_0_or_1_is_clamped_and_a_value_that_is_no_probability_flips_nothing() {
        let rule = ScoreMargin::new(1.0, 0.0).unwrap();
        // ln(1e-7) is -16.1.
        assert_eq!(flipped(&[true, true], &[16.0, 17.0], &[0.0, 0.0], rule), "10");
        assert_eq!(flipped(&[true, false], &[0.0, 0.0], &[f32::NAN, 1.5], rule), "00");
    }

    #[test]
    fn parameters_outside_their_range_are_refused() {
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(ScoreMargin::new(bad, 0.0).is_err());
        }
        assert!(ScoreMargin::new(1.0, f64::NAN).is_err());
    }
}
