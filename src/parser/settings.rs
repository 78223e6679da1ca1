//! The settings of a training: a TOML file overrides the defaults, and flags override both.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vaplan_schemas::rows::Split;

use super::error::TrainError;
use super::registry::NetworkSettings;
use super::tagged::with_network;
use super::{AdamConfig, LossConfig, OptimizerName, RichnessClasses, RichnessTerms, TargetName};
use crate::choice::nearest;
use crate::eval::{Protocol, Task};

/// The labels and the loss that the network is trained with: one line of the paper's ablation each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Supervision {
    /// Weak labels only: HAN as published (smoothed targets, no richness).
    #[serde(rename = "weak")]
    Weak,
    /// Pseudo labels as targets of each modality; no richness.
    #[serde(rename = "pseudo")]
    Pseudo,
    /// Pseudo labels and the richness-aware loss.
    #[serde(rename = "pseudo+richness")]
    Richness,
}

impl Supervision {
    /// All supervisions, in the paper's order.
    pub const ALL: [Supervision; 3] = [Supervision::Weak, Supervision::Pseudo, Supervision::Richness];

    /// The name in flags and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Supervision::Weak => "weak",
            Supervision::Pseudo => "pseudo",
            Supervision::Richness => "pseudo+richness",
        }
    }

    /// The loss of this supervision.
    pub fn loss(self) -> LossConfig {
        let all = LossConfig::default();
        match self {
            Supervision::Weak => LossConfig {
                targets: TargetName::Smoothed,
                richness: 0.0,
                ..all
            },
            Supervision::Pseudo => LossConfig { richness: 0.0, ..all },
            Supervision::Richness => all,
        }
    }
}

/// The change of the learning rate over the epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// The rate is multiplied by `step_factor` every `step_epochs` epochs (grade C, HAN: 0.1 every 10).
    Step,
    /// The rate rises over `warmup_epochs` epochs, then falls to 0 by a cosine (grade C, VALOR).
    Cosine,
    /// The rate stays the same.
    Constant,
}

/// The protocol that turns predictions into labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// A label is set if the probabilities of the segment and of the video are at least 0.5 (grade C, HAN).
    Fused,
    /// A label is set if the probabilities of the segment and of the modality are at least 0.5 (grade C, MA, JoMoLD,
    /// LSLD).
    Own,
    /// A label is set if the probability of the segment is at least 0.5 (grade D). For predictions from outside, which
    /// have no probabilities of whole videos.
    Segment,
}

impl Gate {
    /// The protocols that score every epoch of a training.
    pub const ALL: [Gate; 2] = [Gate::Fused, Gate::Own];

    /// The same protocol in `eval`.
    pub const fn protocol(self) -> Protocol {
        match self {
            Gate::Fused => Protocol::Fused,
            Gate::Own => Protocol::Own,
            Gate::Segment => Protocol::Segment,
        }
    }

    /// The name of the protocol in tables.
    pub const fn as_str(self) -> &'static str {
        self.protocol().as_str()
    }
}

/// The settings of a training. The defaults are HAN's (docs/method.md, "Training defaults").
///
/// In TOML and JSON, the network's name (key `network`) and its own settings stand beside the other keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Number of epochs; default 40.
    pub epochs: u64,
    /// Number of videos per step; default 16.
    pub batch: usize,
    /// Seed of the random numbers: initial weights, order of the videos, dropout; default 1.
    pub seed: u64,
    /// The task; default `avvp`. For `ave`, the labels of each modality are the labels that both modalities have.
    pub task: Task,
    /// The labels and the loss that the network is trained with; default `pseudo+richness`.
    pub supervision: Supervision,
    /// Targets of the basic loss; `None` (the default) means those of `supervision`.
    pub targets: Option<TargetName>,
    /// λ, the weight of the richness terms; `None` (the default) means that of `supervision`.
    pub richness: Option<f64>,
    /// The classes of the category richness; `None` (the default) means all classes, and for task `ave` those of the weak
    /// label: the mean over all classes was measured for `avvp` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub richness_classes: Option<RichnessClasses>,
    /// The terms of the richness-aware loss that count; `None` (the default) means both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub richness_terms: Option<RichnessTerms>,
    /// μ, the weight of the segment term; default 0, which turns the term off.
    pub segment: f64,
    /// Probability with which a training step sets a value of the features to 0; default 0.3. 0 turns it off.
    #[serde(skip_serializing_if = "is_zero")]
    pub feature_dropout: f64,
    /// Decay of the moving average of the weights, which makes the predictions; default 0.998. 0 turns it off: the
    /// weights of the last step predict.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight_average: f64,
    /// Slope of the soft targets of segments, sigmoid(slope · margin of the score); default 0, which means hard labels. See
    /// [`super::variants`], also for the next four settings.
    #[serde(skip_serializing_if = "is_zero")]
    pub soft_labels: f64,
    /// β of the class weights by effective numbers of videos; default 0, which weighs all classes alike.
    #[serde(skip_serializing_if = "is_zero")]
    pub class_balance: f64,
    /// α of mixup, from 0 to 1; default 0, which mixes nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub mixup: f64,
    /// Distance of the targets of segments at the border of an event from 0 and 1; default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub border_smoothing: f64,
    /// Share of the targets of a modality that a batch drops because the other modality has a smaller loss; default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub modality_comparison: f64,
    /// Adam or AdamW; default Adam.
    pub optimizer: OptimizerName,
    /// Highest learning rate; default 0.0003.
    pub learning_rate: f64,
    /// Weight decay; default 0.
    pub weight_decay: f64,
    /// Schedule of the learning rate; default `step`.
    pub schedule: ScheduleName,
    /// Epochs between two steps of schedule `step`; default 10.
    pub step_epochs: u64,
    /// Factor of each step of schedule `step`; default 0.1.
    pub step_factor: f64,
    /// Number of epochs until schedule `cosine` reaches the highest rate; default 5.
    pub warmup_epochs: u64,
    /// Largest common norm of all gradients; `None` (the default) means no limit.
    pub clip: Option<f64>,
    /// The network and its own settings; default HAN.
    #[serde(flatten, skip_deserializing)]
    pub network: NetworkSettings,
    /// The split that decides the best epoch; default `val`.
    pub best_split: Split,
    /// The protocol that decides the best epoch; default `fused`.
    pub best_gate: Gate,
    /// The metric that decides the best epoch, `<level>.<score>`. `None` (the default) means `segment.type_av`, or
    /// `segment.accuracy` for task `ave`.
    pub best_metric: Option<String>,
    /// The splits whose predictions the store gets from every epoch; default `val`.
    pub predictions: Vec<Split>,
    /// The splits whose predictions the store gets from the best epoch, when the training is complete; default all
    /// splits.
    pub best_predictions: Vec<Split>,
}

impl Default for TrainSettings {
    fn default() -> TrainSettings {
        TrainSettings {
            epochs: 40,
            batch: 16,
            seed: 1,
            task: Task::Avvp,
            supervision: Supervision::Richness,
            targets: None,
            richness: None,
            richness_classes: None,
            richness_terms: None,
            segment: 0.0,
            feature_dropout: 0.3,
            weight_average: 0.998,
            soft_labels: 0.0,
            class_balance: 0.0,
            mixup: 0.0,
            border_smoothing: 0.0,
            modality_comparison: 0.0,
            optimizer: OptimizerName::Adam,
            learning_rate: 3e-4,
            weight_decay: 0.0,
            schedule: ScheduleName::Step,
            step_epochs: 10,
            step_factor: 0.1,
            warmup_epochs: 5,
            clip: None,
            network: NetworkSettings::default(),
            best_split: Split::Val,
            best_gate: Gate::Fused,
            best_metric: None,
            predictions: vec![Split::Val],
            best_predictions: Split::ALL.to_vec(),
        }
    }
}

impl Serialize for TrainSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TrainSettings::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for TrainSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TrainSettings, D::Error> {
        let (settings, network) = with_network(deserializer, |own| TrainSettings::deserialize(own))?;
        Ok(TrainSettings { network, ..settings })
    }
}

/// Whether a setting is off. Programs before this setting wrote no such key, so the text that identifies a training
/// has no such key either.
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// The metrics that can decide the best epoch.
pub const METRICS: [&str; 10] = [
    "segment.audio",
    "segment.visual",
    "segment.audio_visual",
    "segment.type_av",
    "segment.event_av",
    "event.audio",
    "event.visual",
    "event.audio_visual",
    "event.type_av",
    "event.event_av",
];

/// A further metric, for task `ave` only.
pub const ACCURACY: &str = "segment.accuracy";

impl TrainSettings {
    /// Reads a TOML file over the defaults.
    ///
    /// # Errors
    /// Returns [`TrainError::Settings`] with the file, the key and what was expected.
    pub fn read(path: &Path) -> Result<TrainSettings, TrainError> {
        let bad = |problem: String| TrainError::Settings(format!("settings `{}`: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        toml::from_str(&text).map_err(|error| bad(error.to_string().trim().to_owned()))
    }

    /// Checks the ranges of all numbers, the network's settings and the name of the metric.
    ///
    /// # Errors
    /// Returns [`TrainError::Settings`] with the value and the allowed range or names, and [`TrainError::Network`] if
    /// a setting of the network is wrong.
    pub fn check(&self) -> Result<(), TrainError> {
        let whole = [
            ("epochs", self.epochs),
            ("batch", self.batch as u64),
            ("step_epochs", self.step_epochs),
        ];
        if let Some((name, value)) = whole.iter().find(|(_, value)| !(1..=1_000_000).contains(value)) {
            return Err(TrainError::Settings(format!(
                "{name} is {value}, expected 1 to 1000000"
            )));
        }
        let least = [
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
            ("step_factor", self.step_factor),
            ("richness", self.richness.unwrap_or(0.0)),
            ("segment", self.segment),
            ("soft_labels", self.soft_labels),
        ];
        if let Some((name, value)) = least
            .iter()
            .find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err(TrainError::Settings(format!(
                "{name} is {value}, expected a number from 0"
            )));
        }
        let shares = [
            ("feature_dropout", self.feature_dropout),
            ("weight_average", self.weight_average),
            ("class_balance", self.class_balance),
            ("modality_comparison", self.modality_comparison),
        ];
        if let Some((name, value)) = shares.iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return Err(TrainError::Settings(format!(
                "{name} is {value}, expected a number from 0 to below 1"
            )));
        }
        if !(0.0..=1.0).contains(&self.mixup) {
            return Err(TrainError::Settings(format!(
                "mixup is {}, expected a number from 0 to 1",
                self.mixup
            )));
        }
        if !(0.0..0.5).contains(&self.border_smoothing) {
            return Err(TrainError::Settings(format!(
                "border_smoothing is {}, expected a number from 0 to below 0.5",
                self.border_smoothing
            )));
        }
        if let Some(clip) = self.clip.filter(|clip| !(clip.is_finite() && *clip > 0.0)) {
            return Err(TrainError::Settings(format!(
                "clip is {clip}, expected a number above 0"
            )));
        }
        self.network.check()?;
        let mut metrics = METRICS.to_vec();
        if self.task == Task::Ave {
            metrics.push(ACCURACY);
        }
        let metric = self.best_metric();
        if !metrics.contains(&metric) {
            let nearest = nearest(metric, metrics.iter().copied()).expect("there are ten");
            return Err(TrainError::Settings(format!(
                "best_metric is `{metric}`, expected one of {} (nearest: `{nearest}`)",
                metrics.join(", ")
            )));
        }
        Ok(())
    }

    /// The metric that decides the best epoch, `<level>.<score>`.
    pub fn best_metric(&self) -> &str {
        let of_task = match self.task {
            Task::Avvp => "segment.type_av",
            Task::Ave => ACCURACY,
        };
        self.best_metric.as_deref().unwrap_or(of_task)
    }

    /// The same metric as table `epochs` names it: `<split>.<gate>.<level>.<score>`.
    pub fn best_name(&self) -> String {
        let (split, gate, metric) = (self.best_split, self.best_gate.as_str(), self.best_metric());
        format!("{split}.{gate}.{metric}")
    }

    /// The splits of `best_predictions` that are not in `predictions`. The store gets predictions of these splits
    /// from the best epoch only.
    pub fn left_to_best(&self) -> impl Iterator<Item = Split> {
        let left = |split: &Split| self.best_predictions.contains(split) && !self.predictions.contains(split);
        Split::ALL.into_iter().filter(left)
    }

    /// The loss of the training.
    pub fn loss(&self) -> LossConfig {
        let loss = self.supervision.loss();
        LossConfig {
            targets: self.targets.unwrap_or(loss.targets),
            richness: self.richness.unwrap_or(loss.richness),
            classes: self.richness_classes.unwrap_or(match self.task {
                Task::Avvp => loss.classes,
                Task::Ave => RichnessClasses::Weak,
            }),
            richness_terms: self.richness_terms.unwrap_or_default(),
            segment: self.segment,
        }
    }

    /// The optimizer's constants.
    pub fn adam(&self) -> AdamConfig {
        AdamConfig {
            name: self.optimizer,
            weight_decay: self.weight_decay,
            ..AdamConfig::default()
        }
    }

    /// The text whose hash identifies a training. Equal settings give equal text, also across versions of the
    /// program.
    ///
    /// Programs before the key `richness_classes` took the classes of the weak label. Their text has no such key, so the
    /// text of the same loss has none either, and a loss over all classes always has one.
    pub fn identity(&self) -> String {
        let loss = self.loss();
        let all = loss.richness > 0.0 && loss.classes == RichnessClasses::All;
        let named = TrainSettings {
            richness_classes: all.then_some(RichnessClasses::All),
            ..self.clone()
        };
        serde_json::to_string(&named).expect("settings are JSON")
    }

    /// The learning rate of a step. `epoch` counts from 1 and `step` from 0; an epoch has `steps` steps.
    pub fn rate(&self, epoch: u64, step: usize, steps: usize) -> f64 {
        match self.schedule {
            ScheduleName::Constant => self.learning_rate,
            ScheduleName::Step => {
                let times = (epoch - 1) / self.step_epochs;
                self.learning_rate * self.step_factor.powi(i32::try_from(times).unwrap_or(i32::MAX))
            }
            ScheduleName::Cosine => {
                let done = (epoch - 1) as f64 + (step as f64 + 1.0) / steps.max(1) as f64;
                let warmup = self.warmup_epochs.min(self.epochs) as f64;
                if done < warmup {
                    return self.learning_rate * done / warmup;
                }
                let rest = (self.epochs as f64 - warmup).max(f64::MIN_POSITIVE);
                let share = ((done - warmup) / rest).clamp(0.0, 1.0);
                self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests;
