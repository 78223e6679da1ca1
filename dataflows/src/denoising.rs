//! The registry of denoising rules: how the predictions of an epoch change the labels of a track.
//!
//! A new rule needs one module with its decision, and one line in each `match` of this file. Records, tables, settings,
//! the configuration of `run` and the command line carry the name and the numeric parameters of a rule, so they do not
//! change.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounds::{self, BoundsError, ProbabilityBounds};
use crate::flips::{Flips, PredictedTrack};
use crate::margin::{self, MarginError, ScoreMargin};
use crate::pld::{self, Pld, PldError};

/// Parameters of a rule by name, such as `alpha` of rule `pld`.
pub type RuleParameters = BTreeMap<String, f64>;

/// Names of all rules, in the order of help texts.
pub const RULES: [&str; 3] = [Pld::NAME, ProbabilityBounds::NAME, ScoreMargin::NAME];

/// The rule by which predictions change labels, with its parameters.
///
/// ```
/// use vaplan_dataflows::denoising::{DenoisingRule, RuleParameters};
/// let rule = DenoisingRule::new("pld", &RuleParameters::from([("alpha".to_owned(), 4.0)])).unwrap();
/// assert_eq!(rule, DenoisingRule::pld(5, 4.0, 0.5).unwrap());
/// assert_eq!(rule.to_string(), "pld alpha=4 guard=0.5 k=5");
/// let refused = DenoisingRule::new("vote", &RuleParameters::new()).unwrap_err();
/// assert!(refused.to_string().starts_with("the denoising rule is `vote`, expected one of: pld, bounds, margin"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DenoisingRule {
    /// Pseudo label denoising of VAPLAN.
    Pld(Pld),
    /// One bound of the probability for each direction of a flip.
    Bounds(ProbabilityBounds),
    /// The margin of the score and the logit of the parser add up.
    Margin(ScoreMargin),
}

/// A rule or parameter that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DenoisingRuleError {
    /// The name is not in [`RULES`].
    #[error("the denoising rule is `{0}`, expected one of: {list} (how to denoise nothing: `relabel --denoise none`, or `schedule = \"off\"` in a run)", list = RULES.join(", "))]
    Rule(String),
    /// The rule has no such parameter.
    #[error("`{parameter}` is not a parameter of the denoising rule `{rule}`, expected one of: {}", .expected.join(", "))]
    Parameter {
        /// Name of the rule.
        rule: &'static str,
        /// Name that was given.
        parameter: String,
        /// Names that the rule has.
        expected: Vec<String>,
    },
    /// A parameter of rule `pld` is outside its range.
    #[error(transparent)]
    Pld(#[from] PldError),
    /// A parameter of rule `bounds` is outside its range.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// A parameter of rule `margin` is outside its range.
    #[error(transparent)]
    Margin(#[from] MarginError),
}

impl DenoisingRule {
    /// Makes the rule of this name. Parameters that are not given have their defaults.
    ///
    /// # Errors
    /// Returns [`DenoisingRuleError`] for an unknown name, an unknown parameter, or a value outside its range.
    pub fn new(name: &str, parameters: &RuleParameters) -> Result<DenoisingRule, DenoisingRuleError> {
        let default = match name {
            Pld::NAME => DenoisingRule::Pld(Pld::default()),
            ProbabilityBounds::NAME => DenoisingRule::Bounds(ProbabilityBounds::default()),
            ScoreMargin::NAME => DenoisingRule::Margin(ScoreMargin::default()),
            _ => return Err(DenoisingRuleError::Rule(name.to_owned())),
        };
        default.with(parameters)
    }

    /// Makes rule `pld` with these parameters.
    ///
    /// # Errors
    /// Returns [`DenoisingRuleError::Pld`] if a parameter is outside its range (see [`Pld::new`]).
    pub fn pld(k: u32, alpha: f64, guard: f64) -> Result<DenoisingRule, DenoisingRuleError> {
        Ok(DenoisingRule::Pld(Pld::new(k, alpha, guard)?))
    }

    /// Makes rule `bounds` with these parameters.
    ///
    /// # Errors
    /// Returns [`DenoisingRuleError::Bounds`] if a bound is outside 0 to 1.
    pub fn bounds(clear: f64, set: f64) -> Result<DenoisingRule, DenoisingRuleError> {
        Ok(DenoisingRule::Bounds(ProbabilityBounds::new(clear, set)?))
    }

    /// Makes rule `margin` with these parameters.
    ///
    /// # Errors
    /// Returns [`DenoisingRuleError::Margin`] if a parameter is outside its range (see [`ScoreMargin::new`]).
    pub fn margin(scale: f64, bias: f64) -> Result<DenoisingRule, DenoisingRuleError> {
        Ok(DenoisingRule::Margin(ScoreMargin::new(scale, bias)?))
    }

    /// Returns the same rule with some parameters changed.
    ///
    /// # Errors
    /// Returns [`DenoisingRuleError`] for an unknown parameter, or a value outside its range.
    pub fn with(self, changes: &RuleParameters) -> Result<DenoisingRule, DenoisingRuleError> {
        let mut all = self.parameters();
        if let Some(unknown) = changes.keys().find(|name| !all.contains_key(*name)) {
            return Err(DenoisingRuleError::Parameter {
                rule: self.name(),
                parameter: unknown.clone(),
                expected: all.into_keys().collect(),
            });
        }
        all.extend(changes.iter().map(|(name, value)| (name.clone(), *value)));
        Ok(match self {
            DenoisingRule::Pld(_) => DenoisingRule::Pld(Pld::from_parameters(&all)?),
            DenoisingRule::Bounds(_) => DenoisingRule::Bounds(ProbabilityBounds::from_parameters(&all)?),
            DenoisingRule::Margin(_) => DenoisingRule::Margin(ScoreMargin::from_parameters(&all)?),
        })
    }

    /// The name of the rule, as settings, the configuration and the command line write it.
    pub fn name(&self) -> &'static str {
        match self {
            DenoisingRule::Pld(_) => Pld::NAME,
            DenoisingRule::Bounds(_) => ProbabilityBounds::NAME,
            DenoisingRule::Margin(_) => ScoreMargin::NAME,
        }
    }

    /// The values of all parameters.
    pub fn parameters(&self) -> RuleParameters {
        match self {
            DenoisingRule::Pld(pld) => pld.parameters(),
            DenoisingRule::Bounds(bounds) => bounds.parameters(),
            DenoisingRule::Margin(margin) => margin.parameters(),
        }
    }

    /// α and K of a rule that flips a label if its loss is above α times the mean of the K smallest losses of the track;
    /// `None` for any other rule. The tables have both beside the loss of a flip.
    pub fn limit(&self) -> Option<(f64, u32)> {
        match self {
            DenoisingRule::Pld(pld) => Some((pld.alpha(), pld.k())),
            DenoisingRule::Bounds(_) | DenoisingRule::Margin(_) => None,
        }
    }

    /// Whether the rule reads the margins of the scores, beside labels and probabilities.
    pub fn reads_margins(&self) -> bool {
        matches!(self, DenoisingRule::Margin(_))
    }

    /// Decides which labels of a track to flip.
    ///
    /// # Panics
    /// Panics if the rule [reads margins](DenoisingRule::reads_margins) and the track has none.
    pub fn flips(&self, track: PredictedTrack<'_>) -> Flips {
        match self {
            DenoisingRule::Pld(settings) => pld::flips(track.labels, track.probabilities, *settings),
            _ => self.flips_and_losses(track),
        }
    }

    /// Like [`DenoisingRule::flips`], and always returns the losses and the base.
    ///
    /// # Panics
    /// Panics as [`DenoisingRule::flips`].
    pub fn flips_and_losses(&self, track: PredictedTrack<'_>) -> Flips {
        match self {
            DenoisingRule::Pld(settings) => {
                pld::flips_and_losses(track.labels, track.probabilities, *settings)
            }
            DenoisingRule::Bounds(bounds) => bounds::flips(track.labels, track.probabilities, *bounds),
            DenoisingRule::Margin(margin) => margin::flips(track, *margin),
        }
    }
}

impl Default for DenoisingRule {
    /// Rule `pld` with its defaults.
    fn default() -> DenoisingRule {
        DenoisingRule::Pld(Pld::default())
    }
}

impl fmt::Display for DenoisingRule {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())?;
        for (name, value) in self.parameters() {
            write!(to, " {name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_made_again_from_its_name_and_parameters() {
        let other = DenoisingRule::pld(3, 5.5, 0.75).unwrap();
        assert_eq!(DenoisingRule::new(other.name(), &other.parameters()), Ok(other));
        for name in RULES {
            let rule = DenoisingRule::new(name, &RuleParameters::new()).unwrap();
            assert_eq!(DenoisingRule::new(name, &rule.parameters()), Ok(rule));
            assert_eq!(rule.name(), name);
        }
    }

    #[test]
    fn unknown_and_impossible_parameters_are_refused_with_what_is_expected() {
        let refused = |name: &str, value: f64| {
            let given = RuleParameters::from([(name.to_owned(), value)]);
            DenoisingRule::new("pld", &given).unwrap_err().to_string()
        };
        assert_eq!(
            refused("beta", 1.0),
            "`beta` is not a parameter of the denoising rule `pld`, expected one of: alpha, guard, k"
        );
        assert_eq!(
            refused("k", 0.0),
            "k is 0, expected a whole number from 1 to 2147483647"
        );
        assert_eq!(
            refused("k", 2.5),
            "k is 2.5, expected a whole number from 1 to 2147483647"
        );
        assert_eq!(
            refused("alpha", -1.0),
            "alpha is -1, expected a finite number above 0"
        );
    }
}
