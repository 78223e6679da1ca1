//! Section `[denoise]` of the file of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::denoising::{DenoisingRule, RuleParameters};
use vaplan_dataflows::pld::Pld;
use vaplan_schemas::Modality;

use crate::choice::nearest;

/// Schedule of denoising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Train, denoise by the best epoch, then train again: with new weights, or from the best epoch on ([`Denoise::restart`]).
    Once,
    /// Denoise within one training: after the warm-up epoch, and after every further `every` epochs.
    Every,
    /// Do not denoise.
    Off,
}

/// Settings of PLD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Denoise {
    /// Schedule of denoising.
    pub schedule: Schedule,
    /// For schedule `every`: number of epochs between two denoisings, at least 1.
    pub every: u64,
    /// For schedule `every`: the first epoch after which the labels are denoised, at least 1.
    pub warmup: u64,
    /// Modalities whose labels may flip.
    pub modalities: Vec<Modality>,
    /// For schedule `once`: whether the second training begins with new weights. Otherwise it goes on from the best weights of
    /// the first training.
    #[serde(skip_serializing_if = "is_true")]
    pub restart: bool,
    /// Whether the rule is chosen on split val. `None`: it is chosen if the section names neither a rule nor a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrate: Option<bool>,
    /// Name of the denoising rule. `None`: the default rule, if none is chosen on val.
    pub rule: Option<String>,
    /// All other keys of the section: parameters of the rule.
    #[serde(flatten)]
    pub parameters: BTreeMap<String, ParameterValue>,
}

/// Whether a setting has the value that programs before this setting had. The text that identifies a stage then has no
/// such key.
fn is_true(value: &bool) -> bool {
    *value
}

/// Epochs of a training after which the labels are denoised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    /// Number of epochs between two denoisings.
    epochs: u64,
    /// First epoch after which the labels are denoised.
    warmup: u64,
}

impl Every {
    /// Returns whether the labels are denoised after epoch `epoch`, counted from 1, of a training of `of` epochs.
    pub fn due(self, epoch: u64, of: u64) -> bool {
        // Nothing is due after the last epoch, because no epoch would learn the denoised labels.
        epoch >= self.warmup && (epoch - self.warmup).is_multiple_of(self.epochs) && epoch < of
    }

    /// Returns whether the labels were denoised after any of the first `done` epochs.
    pub fn was_due(self, done: u64, of: u64) -> bool {
        (1..=done).any(|epoch| self.due(epoch, of))
    }
}

impl Denoise {
    /// Returns the epochs that denoise. `None` if the schedule is not `every`.
    pub fn every(&self) -> Option<Every> {
        (self.schedule == Schedule::Every).then_some(Every {
            epochs: self.every,
            warmup: self.warmup,
        })
    }
}

/// The value of a key of `[denoise]` that is a parameter of the rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParameterValue {
    /// A number.
    Number(f64),
    /// Another value, which [`Denoise::rule`] refuses by its key.
    Other(toml::Value),
}

impl Denoise {
    /// Keys that are not parameters of the rule.
    const KEYS: [&str; 7] = [
        "schedule",
        "every",
        "warmup",
        "modalities",
        "restart",
        "calibrate",
        "rule",
    ];

    /// Whether the rule is chosen on split val, as `vaplan denoise` chooses it.
    pub fn calibrates(&self) -> bool {
        let named = self.rule.is_some() || !self.parameters.is_empty();
        self.calibrate.unwrap_or(!named)
    }

    fn name(&self) -> &str {
        self.rule.as_deref().unwrap_or(Pld::NAME)
    }

    /// The denoising rule, with the defaults of parameters that the section does not name.
    ///
    /// # Errors
    /// Returns a message for an unknown rule, an unknown key, and a value that is no number or outside its range.
    pub fn rule(&self) -> Result<DenoisingRule, String> {
        let defaults = DenoisingRule::new(self.name(), &RuleParameters::new());
        let defaults = defaults.map_err(|error| error.to_string())?.parameters();
        let mut given = RuleParameters::new();
        for (key, value) in &self.parameters {
            if !defaults.contains_key(key) {
                let parameters: Vec<&str> = defaults.keys().map(String::as_str).collect();
                let known = Self::KEYS.into_iter().chain(parameters.iter().copied());
                return Err(format!(
                    "unknown key `{key}` (nearest: `{}`); the parameters of rule `{}` are {}",
                    nearest(key, known).expect("there are keys"),
                    self.name(),
                    parameters.join(", ")
                ));
            }
            match value {
                ParameterValue::Number(number) => given.insert(key.clone(), *number),
                ParameterValue::Other(other) => return Err(format!("{key} is {other}, expected a number")),
            };
        }
        DenoisingRule::new(self.name(), &given).map_err(|error| error.to_string())
    }

    /// Names the rule and every parameter of it. Sections that mean the same are then equal. Only a rule that is chosen on val has
    /// key `calibrate` then, so that a section that names its rule is the same as in programs before this key.
    pub(in crate::run) fn complete(&mut self) {
        self.calibrate = self.calibrates().then_some(true);
        if let Ok(rule) = self.rule() {
            self.rule = Some(rule.name().to_owned());
            self.parameters = values(rule);
        }
    }
}

/// All parameters of a rule, as values of a section.
fn values(rule: DenoisingRule) -> BTreeMap<String, ParameterValue> {
    let parameters = rule.parameters().into_iter();
    parameters
        .map(|(name, value)| (name, ParameterValue::Number(value)))
        .collect()
}

impl Default for Denoise {
    fn default() -> Denoise {
        Denoise {
            schedule: Schedule::Once,
            every: 5,
            warmup: 5,
            modalities: vec![Modality::Visual],
            restart: false,
            calibrate: None,
            rule: None,
            parameters: BTreeMap::new(),
        }
    }
}
