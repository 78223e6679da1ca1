//! Pseudo label denoising of one track, in f64.
//!
//! ```text
//! labels of PLG ──┬─ forward losses ─┬─ mean of the K smallest ─┬─ loss > α · base and |P − Ŷ| > guard ─▶ flips
//! probabilities ──┘                  └──────────────────────────┘
//! ```
//!
//! Source: docs/method.md, "PLD" (forward loss: grade P; base, strictness and guard: grade D).
//!
//! Losses compare the predictions with the labels that PLG sets now, never with labels that PLD flipped before (grade
//! D). The flips of an epoch therefore replace the flips of the epoch before. The labels depend on the latest
//! predictions only, so no history of flips is needed to compute them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bits::Bits;
use crate::flips::Flips;
use crate::prediction::Probability;
use crate::score::Score;

/// Probabilities are clamped to this distance from 0 and 1, so that no loss is infinite (docs/method.md, as PyTorch users
/// do).
pub(crate) const CLAMP: f64 = 1e-7;
/// Largest K: column `why.k` of the tables is a 32-bit number with a sign.
const MOST_K: u32 = i32::MAX as u32;

/// The settings K, α and guard of one modality.
///
/// ```
/// use vaplan_dataflows::pld::Pld;
/// assert_eq!(Pld::default(), Pld::new(5, 10.0, 0.5).unwrap());
/// let refused = Pld::new(0, 10.0, 0.5).unwrap_err();
/// assert_eq!(refused.to_string(), "k is 0, expected a whole number from 1 to 2147483647");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pld {
    k: u32,
    alpha: Score,
    guard: Score,
}

/// A setting that is outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PldError {
    /// K, the number of losses whose mean is the base, is not a whole number of at least 1.
    #[error("k is {0}, expected a whole number from 1 to {max}", max = MOST_K)]
    K(f64),
    /// α is not a finite number above 0.
    #[error("alpha is {0}, expected a finite number above 0")]
    Alpha(f64),
    /// The guard is not a distance between a probability and a label, from 0 to 1.
    #[error("guard is {0}, expected a number from 0 to 1")]
    Guard(f64),
}

impl Pld {
    /// Name of the rule.
    pub const NAME: &'static str = "pld";

    /// Makes the settings from the values of [`Pld::parameters`].
    ///
    /// # Errors
    /// Returns [`PldError`] as [`Pld::new`] does, and also if `k` is not a whole number.
    ///
    /// # Panics
    /// Panics if a parameter is missing.
    pub(crate) fn from_parameters(values: &BTreeMap<String, f64>) -> Result<Pld, PldError> {
        let k = values["k"];
        if k.fract() != 0.0 || !(1.0..=f64::from(MOST_K)).contains(&k) {
            return Err(PldError::K(k));
        }
        Pld::new(k as u32, values["alpha"], values["guard"])
    }

    /// The values of the parameters by name.
    pub(crate) fn parameters(self) -> BTreeMap<String, f64> {
        let named = [
            ("alpha", self.alpha()),
            ("guard", self.guard()),
            ("k", f64::from(self.k)),
        ];
        named.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Makes the settings. With a guard of 1, PLD flips no label.
    ///
    /// # Errors
    /// Returns [`PldError`] if `k` is 0, `alpha` is not finite and above 0, or `guard` is outside 0 to 1.
    pub fn new(k: u32, alpha: f64, guard: f64) -> Result<Pld, PldError> {
        if k == 0 || k > MOST_K {
            return Err(PldError::K(f64::from(k)));
        }
        let alpha = Score::new(alpha)
            .filter(|alpha| alpha.get().is_finite() && alpha.get() > 0.0)
            .ok_or(PldError::Alpha(alpha))?;
        let guard = Score::new(guard)
            .filter(|guard| (0.0..=1.0).contains(&guard.get()))
            .ok_or(PldError::Guard(guard))?;
        Ok(Pld { k, alpha, guard })
    }

    /// K: the base is the mean of the K smallest losses.
    pub fn k(self) -> u32 {
        self.k
    }

    /// α: PLD flips a label only if its loss is above α times the base.
    pub fn alpha(self) -> f64 {
        self.alpha.get()
    }

    /// Guard: PLD flips a label only if the prediction is farther than this from the label.
    pub fn guard(self) -> f64 {
        self.guard.get()
    }
}

impl Default for Pld {
    /// The defaults: K = 5, α = 10, guard = 0.5 (docs/method.md, grade D).
    fn default() -> Pld {
        Pld::new(5, 10.0, 0.5).expect("valid")
    }
}

/// Returns the forward loss BCE(P, Ŷ) of one label; `None` if the prediction is NaN or outside [0, 1].
///
/// ```
/// use vaplan_dataflows::pld::forward_loss;
/// use vaplan_dataflows::Probability;
/// assert_eq!(forward_loss(Probability::new(0.5), true), Some(std::f64::consts::LN_2));
/// assert_eq!(forward_loss(Probability::new(f32::NAN), true), None);
/// ```
pub fn forward_loss(probability: Probability, label: bool) -> Option<f64> {
    let p = probability.get()?.clamp(CLAMP, 1.0 - CLAMP);
    Some(if label { -p.ln() } else { -(1.0 - p).ln() })
}

/// Returns the base: the mean of the K smallest losses, or of all losses if there are fewer than K. Returns `None` if
/// there is no loss.
///
/// ```
/// use vaplan_dataflows::pld::base;
/// assert_eq!(base([3.0, 1.0, 2.0], 2), Some(1.5));
/// assert_eq!(base([3.0], 2), Some(3.0));
/// assert_eq!(base([], 2), None);
/// ```
pub fn base(losses: impl IntoIterator<Item = f64>, k: u32) -> Option<f64> {
    let mut losses: Vec<f64> = losses.into_iter().collect();
    losses.sort_by(f64::total_cmp);
    losses.truncate(k as usize);
    (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
}

/// Decides which labels of a track to flip.
///
/// A label flips if its loss is above α times the base and the prediction differs from the label by more than the guard
/// (both strictly). A prediction that is not a probability flips no label, and its loss is not part of the base.
///
/// # Shapes
/// `labels` and `probabilities`: `[T]`, one class.
pub fn flips(labels: &Bits, probabilities: &[Probability], settings: Pld) -> Flips {
    let (mut contradicted, mut invalid) = (false, None);
    for (segment, probability) in probabilities.iter().enumerate() {
        let label = if labels.get(segment) { 1.0 } else { 0.0 };
        match probability.get() {
            Some(probability) => contradicted |= (probability - label).abs() > settings.guard(),
            None => invalid = invalid.or(Some(segment)),
        }
    }
    // The predictions of most tracks contradict no label. Their losses decide nothing, and logarithms would take most of the
    // time of an epoch.
    if !contradicted {
        return Flips {
            flipped: Bits::zeros(labels.len()),
            losses: Vec::new(),
            base: None,
            invalid,
        };
    }
    flips_and_losses(labels, probabilities, settings)
}

/// Like [`flips`], and always returns the losses and the base.
pub fn flips_and_losses(labels: &Bits, probabilities: &[Probability], settings: Pld) -> Flips {
    let losses: Vec<Option<f64>> = probabilities
        .iter()
        .zip(labels.iter())
        .map(|(&probability, label)| forward_loss(probability, label))
        .collect();
    let invalid = losses.iter().position(Option::is_none);
    let base = base(losses.iter().copied().flatten(), settings.k());
    let abnormal = |loss: f64| base.is_some_and(|base| loss > settings.alpha() * base);
    let contradicted = |probability: Probability, label: bool| {
        let label = if label { 1.0 } else { 0.0 };
        probability
            .get()
            .is_some_and(|probability| (probability - label).abs() > settings.guard())
    };
    let flipped = losses
        .iter()
        .zip(probabilities)
        .zip(labels.iter())
        .map(|((loss, &probability), label)| loss.is_some_and(abnormal) && contradicted(probability, label))
        .collect();
    Flips {
        flipped,
        losses,
        base,
        invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(pattern: &str, probabilities: &[f32]) -> (Bits, Vec<Probability>) {
        let labels = pattern.chars().map(|bit| bit == '1').collect();
        (
            labels,
            probabilities.iter().copied().map(Probability::new).collect(),
        )
    }

    fn flipped(pattern: &str, probabilities: &[f32], settings: Pld) -> String {
        let (labels, probabilities) = track(pattern, probabilities);
        format!("{:?}", flips(&labels, &probabilities, settings).flipped)
    }

    #[test]
    fn a_label_that_the_rest_of_its_track_contradicts_flips_in_both_directions() {
        let settings = Pld::new(3, 10.0, 0.5).unwrap();
        assert_eq!(
            flipped("11101", &[0.97, 0.99, 0.98, 0.9, 0.96], settings),
            "00010"
        );
        assert_eq!(
            flipped("00100", &[0.03, 0.01, 0.02, 0.1, 0.04], settings),
            "00100"
        );
    }

    #[test]
    fn the_guard_keeps_what_the_prediction_does_not_contradict() {
        // The base is nearly 0, so ten times the base is nearly 0, too.
        let sure = [0.0, 0.0, 0.0, 0.25, 0.5, 0.75];
        let with = |guard| flipped("000000", &sure, Pld::new(3, 10.0, guard).unwrap());
        assert_eq!(with(0.0), "000111");
        assert_eq!(with(0.5), "000001", "0.5 is on the guard");
        assert_eq!(with(1.0), "000000");
    }

    #[test]
    fn a_loss_of_exactly_alpha_times_the_base_does_not_flip() {
        let settings = Pld::new(1, 1.0, 0.0).unwrap();
        assert_eq!(flipped("00", &[0.75, 0.75], settings), "00");
    }

    #[test]
    fn what_is_no_probability_never_flips_and_is_in_no_base() {
        let settings = Pld::new(2, 10.0, 0.5).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.1, 1.5] {
            let (labels, probabilities) = track("0000", &[bad, 0.01, 0.03, 0.9]);
            let found = flips(&labels, &probabilities, settings);
            assert_eq!(format!("{:?}", found.flipped), "0001", "{bad}");
            assert_eq!(found.losses[0], None);
            let base = found.base.unwrap();
            assert!((base - 0.020_254).abs() < 1e-5, "{base}");
        }
        let (labels, probabilities) = track("01", &[0.5, f32::NAN]);
        let found = flips(&labels, &probabilities, settings);
        assert_eq!(
            (found.base, found.invalid),
            (None, Some(1)),
            "no label is contradicted"
        );
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let refused = |k, alpha, guard| Pld::new(k, alpha, guard).unwrap_err().to_string();
        assert_eq!(
            refused(0, 10.0, 0.5),
            "k is 0, expected a whole number from 1 to 2147483647"
        );
        assert_eq!(
            refused(5, 0.0, 0.5),
            "alpha is 0, expected a finite number above 0"
        );
        assert_eq!(
            refused(5, f64::NAN, 0.5),
            "alpha is NaN, expected a finite number above 0"
        );
        assert_eq!(
            refused(5, 10.0, 1.5),
            "guard is 1.5, expected a number from 0 to 1"
        );
    }
}
