//! The denoising rule `bounds`: one bound of the probability for each direction of a flip.
//!
//! ```text
//! label 1, P < clear ─▶ 0
//! label 0, P > set   ─▶ 1
//! ```
//!
//! Rule `pld` treats both directions alike. The errors of thresholds do not: a threshold that is too low sets labels that
//! are wrong, and misses few. Source: our own rule (grade D).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bits::Bits;
use crate::flips::Flips;
use crate::pld::forward_loss;
use crate::prediction::Probability;
use crate::score::Score;

/// The bounds of one modality.
///
/// ```
/// use vaplan_dataflows::bounds::ProbabilityBounds;
/// let bounds = ProbabilityBounds::new(0.2, 0.8).unwrap();
/// assert_eq!((bounds.clear(), bounds.set()), (0.2, 0.8));
/// let refused = ProbabilityBounds::new(0.2, 1.5).unwrap_err();
/// assert_eq!(refused.to_string(), "set is 1.5, expected a probability from 0 to 1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProbabilityBounds {
    clear: Score,
    set: Score,
}

/// A bound that is not a probability.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{bound} is {value}, expected a probability from 0 to 1")]
pub struct BoundsError {
    /// Name of the bound.
    pub bound: &'static str,
    /// The value.
    pub value: f64,
}

impl ProbabilityBounds {
    /// Name of the rule.
    pub const NAME: &'static str = "bounds";

    /// Makes the bounds. With `clear` 0 no set label is cleared, and with `set` 1 no label is set.
    ///
    /// # Errors
    /// Returns [`BoundsError`] for a bound outside 0 to 1.
    pub fn new(clear: f64, set: f64) -> Result<ProbabilityBounds, BoundsError> {
        let bound = |bound, value: f64| {
            let inside = Score::new(value).filter(|_| (0.0..=1.0).contains(&value));
            inside.ok_or(BoundsError { bound, value })
        };
        Ok(ProbabilityBounds {
            clear: bound("clear", clear)?,
            set: bound("set", set)?,
        })
    }

    /// Makes the bounds from the values of [`ProbabilityBounds::parameters`].
    ///
    /// # Errors
    /// Returns the errors of [`ProbabilityBounds::new`].
    ///
    /// # Panics
    /// Panics if a parameter is missing.
    pub(crate) fn from_parameters(values: &BTreeMap<String, f64>) -> Result<ProbabilityBounds, BoundsError> {
        ProbabilityBounds::new(values["clear"], values["set"])
    }

    /// The values of the parameters by name.
    pub(crate) fn parameters(self) -> BTreeMap<String, f64> {
        [("clear", self.clear()), ("set", self.set())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// A set label whose probability is below this bound is cleared.
    pub fn clear(self) -> f64 {
        self.clear.get()
    }

    /// A label that is not set and whose probability is above this bound is set.
    pub fn set(self) -> f64 {
        self.set.get()
    }
}

impl Default for ProbabilityBounds {
    /// The defaults: clear below 0.2, set above 0.8 (grade D; docs/results.md).
    fn default() -> ProbabilityBounds {
        ProbabilityBounds::new(0.2, 0.8).expect("valid")
    }
}

/// Decides which labels of a track to flip. A prediction that is not a probability flips no label. The rule has no base.
///
/// # Shapes
/// `labels` and `probabilities`: `[T]`, one class.
///
/// ```
/// use vaplan_dataflows::Probability;
/// use vaplan_dataflows::bounds::{ProbabilityBounds, flips};
/// let bounds = ProbabilityBounds::new(0.25, 0.5).unwrap();
/// let probabilities = [0.2, 0.25, 0.5, 0.6].map(Probability::new);
/// let labels = [true, true, false, false].into_iter().collect();
/// assert_eq!(format!("{:?}", flips(&labels, &probabilities, bounds).flipped), "1001");
/// ```
pub fn flips(labels: &Bits, probabilities: &[Probability], bounds: ProbabilityBounds) -> Flips {
    let contradicted = |probability: Probability, label: bool| {
        probability.get().is_some_and(|probability| match label {
            true => probability < bounds.clear(),
            false => probability > bounds.set(),
        })
    };
    let pairs = || probabilities.iter().zip(labels.iter());
    let losses: Vec<Option<f64>> = pairs().map(|(own, label)| forward_loss(*own, label)).collect();
    Flips {
        flipped: pairs().map(|(own, label)| contradicted(*own, label)).collect(),
        invalid: losses.iter().position(Option::is_none),
        losses,
        base: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_its_bound_and_the_outermost_bounds_flip_nothing() {
        let labels: Bits = [true, true, false, false].into_iter().collect();
        let probabilities = [0.0, 0.4, 0.6, 1.0].map(Probability::new);
        let flipped = |clear, set| {
            let bounds = ProbabilityBounds::new(clear, set).unwrap();
            format!("{:?}", flips(&labels, &probabilities, bounds).flipped)
        };
        assert_eq!(flipped(0.0, 1.0), "0000");
        assert_eq!(flipped(0.5, 1.0), "1100");
        assert_eq!(flipped(0.0, 0.5), "0011");
        assert_eq!(flipped(0.1, 0.9), "1001");
    }

    #[test]
    fn a_value_that_is_no_probability_flips_nothing_and_has_no_loss() {
        let labels: Bits = [true, false].into_iter().collect();
        let probabilities = [f32::NAN, 1.5].map(Probability::new);
        let found = flips(&labels, &probabilities, ProbabilityBounds::default());
        assert_eq!(found.flipped.ones(), 0);
        assert_eq!(found.losses, [None, None]);
    }
}
