//! How a network is trained: a TOML file over the defaults, flags over both.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::Split;

use super::error::TrainError;
use super::{AdamConfig, HanConfig, LossConfig, OptimizerName, TargetName};
use crate::eval::{Protocol, Task};

/// What supervises the network: the steps of the paper's ablation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Supervision {
    /// Weak labels only: HAN as published (smoothed targets, no richness).
    #[serde(rename = "weak")]
    #[value(name = "weak")]
    Weak,
    /// Pseudo labels as targets of each modality; no richness.
    #[serde(rename = "pseudo")]
    #[value(name = "pseudo")]
    Pseudo,
    /// Pseudo labels and the richness-aware loss.
    #[serde(rename = "pseudo+richness")]
    #[value(name = "pseudo+richness")]
    Richness,
}

impl Supervision {
    /// All three, the paper's order.
    pub const ALL: [Supervision; 3] = [Supervision::Weak, Supervision::Pseudo, Supervision::Richness];

    /// As flags and tables write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Supervision::Weak => "weak",
            Supervision::Pseudo => "pseudo",
            Supervision::Richness => "pseudo+richness",
        }
    }

    /// Its loss, with λ where there is richness.
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

/// How the learning rate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// Times `step_factor` every `step_epochs` (grade C, HAN: 0.1 every 10).
    Step,
    /// Up over `warmup_epochs`, then down to 0 by a cosine (grade C, VALOR).
    Cosine,
    /// As it is.
    Constant,
}

/// How predictions become 0s and 1s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// The segment's and the video's probability are at least 0.5 (grade C, HAN).
    Fused,
    /// The segment's and the modality's probability are at least 0.5 (grade C, MA, JoMoLD, LSLD).
    Own,
}

impl Gate {
    /// Both.
    pub const ALL: [Gate; 2] = [Gate::Fused, Gate::Own];

    /// As `eval` names it.
    pub const fn protocol(self) -> Protocol {
        match self {
            Gate::Fused => Protocol::Fused,
            Gate::Own => Protocol::Own,
        }
    }

    /// As tables write it.
    pub const fn as_str(self) -> &'static str {
        self.protocol().as_str()
    }
}

/// How a network is trained; the defaults are HAN's (METHOD.md, "Training defaults").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Passes over the videos.
    pub epochs: u64,
    /// Videos of a step.
    pub batch: usize,
    /// Names the random numbers: initial weights, order, dropout.
    pub seed: u64,
    /// What is asked of the network; `ave`: labels of both modalities are those that both have.
    pub task: Task,
    /// What the network learns from.
    pub supervision: Supervision,
    /// Targets of the basic loss; none: those of `supervision`.
    pub targets: Option<TargetName>,
    /// λ; none: that of `supervision`.
    pub richness: Option<f64>,
    /// μ, weight of the segment term.
    pub segment: f64,
    /// Adam or AdamW.
    pub optimizer: OptimizerName,
    /// Learning rate at its highest.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// How the rate goes.
    pub schedule: ScheduleName,
    /// Epochs between two steps of schedule `step`.
    pub step_epochs: u64,
    /// What each of them multiplies the rate with.
    pub step_factor: f64,
    /// Epochs until schedule `cosine` is at its highest.
    pub warmup_epochs: u64,
    /// Largest norm of all gradients together; none: any.
    pub clip: Option<f64>,
    /// H.
    pub hidden: i64,
    /// Width within a layer.
    pub feedforward: i64,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: i64,
    /// Dropout.
    pub dropout: f64,
    /// Split that the best epoch is chosen on.
    pub best_split: Split,
    /// Protocol that it is chosen by.
    pub best_gate: Gate,
    /// Metric that it is chosen by, `<level>.<score>`; none: segment Type@AV, or segment accuracy of task `ave`.
    pub best_metric: Option<String>,
    /// Splits whose predictions every epoch puts into the store.
    pub predictions: Vec<Split>,
    /// Splits whose predictions are in the store for the best epoch, when the training is done.
    pub best_predictions: Vec<Split>,
}

impl Default for TrainSettings {
    fn default() -> TrainSettings {
        let network = HanConfig::default();
        TrainSettings {
            epochs: 40,
            batch: 16,
            seed: 1,
            task: Task::Avvp,
            supervision: Supervision::Richness,
            targets: None,
            richness: None,
            segment: 0.0,
            optimizer: OptimizerName::Adam,
            learning_rate: 3e-4,
            weight_decay: 0.0,
            schedule: ScheduleName::Step,
            step_epochs: 10,
            step_factor: 0.1,
            warmup_epochs: 5,
            clip: None,
            hidden: network.hidden,
            feedforward: network.feedforward,
            layers: network.layers,
            heads: network.heads,
            dropout: network.dropout,
            best_split: Split::Val,
            best_gate: Gate::Fused,
            best_metric: None,
            predictions: vec![Split::Val],
            best_predictions: Split::ALL.to_vec(),
        }
    }
}

/// Scores a best epoch can be chosen by.
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

/// Task `ave` has this one, too.
pub const ACCURACY: &str = "segment.accuracy";

impl TrainSettings {
    /// Reads a TOML file over the defaults.
    ///
    /// # Errors
    /// [`TrainError::Settings`] naming the file, the key and what was expected.
    pub fn read(path: &Path) -> Result<TrainSettings, TrainError> {
        let bad = |problem: String| TrainError::Settings(format!("settings `{}`: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        toml::from_str(&text).map_err(|error| bad(error.to_string().trim().to_owned()))
    }

    /// # Errors
    /// [`TrainError::Settings`] for a number out of its range, with the range.
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
        ];
        if let Some((name, value)) = least
            .iter()
            .find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err(TrainError::Settings(format!(
                "{name} is {value}, expected a number from 0"
            )));
        }
        if let Some(clip) = self.clip.filter(|clip| !(clip.is_finite() && *clip > 0.0)) {
            return Err(TrainError::Settings(format!(
                "clip is {clip}, expected a number above 0"
            )));
        }
        // The widths are the features' to say.
        self.network(1, 1, None, 1).check()?;
        let mut metrics = METRICS.to_vec();
        if self.task == Task::Ave {
            metrics.push(ACCURACY);
        }
        let metric = self.best_metric();
        if !metrics.contains(&metric) {
            let likeness = |name: &&&str| (strsim::jaro_winkler(name, metric) * 1e6) as u64;
            let nearest = metrics.iter().max_by_key(likeness).expect("there are ten");
            return Err(TrainError::Settings(format!(
                "best_metric is `{metric}`, expected one of {} (nearest: `{nearest}`)",
                metrics.join(", ")
            )));
        }
        Ok(())
    }

    /// Metric that the best epoch is chosen by, `<level>.<score>`.
    pub fn best_metric(&self) -> &str {
        let of_task = match self.task {
            Task::Avvp => "segment.type_av",
            Task::Ave => ACCURACY,
        };
        self.best_metric.as_deref().unwrap_or(of_task)
    }

    /// The same as the `epochs` table names it: `<split>.<gate>.<level>.<score>`.
    pub fn best_name(&self) -> String {
        let (split, gate, metric) = (self.best_split, self.best_gate.as_str(), self.best_metric());
        format!("{split}.{gate}.{metric}")
    }

    /// Splits whose predictions the best epoch gets when all are done: the others have them since that epoch.
    pub fn left_to_best(&self) -> impl Iterator<Item = Split> {
        let left = |split: &Split| self.best_predictions.contains(split) && !self.predictions.contains(split);
        Split::ALL.into_iter().filter(left)
    }

    /// The loss.
    pub fn loss(&self) -> LossConfig {
        let loss = self.supervision.loss();
        LossConfig {
            targets: self.targets.unwrap_or(loss.targets),
            richness: self.richness.unwrap_or(loss.richness),
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

    /// Sizes of the network for features of these widths.
    pub fn network(&self, audio: i64, visual: i64, clips: Option<i64>, classes: i64) -> HanConfig {
        HanConfig {
            audio,
            visual,
            clips,
            classes,
            hidden: self.hidden,
            feedforward: self.feedforward,
            layers: self.layers,
            heads: self.heads,
            dropout: self.dropout,
        }
    }

    /// The learning rate of a step: epoch from 1, step of the epoch from 0, of `steps`.
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
mod tests {
    use super::*;

    #[test]
    fn schedules_go_as_they_say() {
        let mut settings = TrainSettings::default();
        let rate = |settings: &TrainSettings, epoch, step| settings.rate(epoch, step, 4);
        assert_eq!(rate(&settings, 10, 3), 3e-4);
        assert!((rate(&settings, 11, 0) - 3e-5).abs() < 1e-12);
        assert!((rate(&settings, 40, 0) - 3e-7).abs() < 1e-12);
        settings.schedule = ScheduleName::Cosine;
        assert!(
            (rate(&settings, 1, 0) - 3e-4 / 20.0).abs() < 1e-12,
            "a quarter of the first of five"
        );
        assert_eq!(rate(&settings, 5, 3), 3e-4);
        assert!(rate(&settings, 40, 3).abs() < 1e-12);
        let half = 3e-4 * 0.5 * (1.0 + (std::f64::consts::PI * 0.5_f64).cos());
        assert!((rate(&settings, 23, 1) - half).abs() < 1e-12);
    }

    #[test]
    fn each_supervision_is_its_line_of_the_ablation() {
        let loss = |supervision: Supervision| supervision.loss();
        assert_eq!(loss(Supervision::Weak).targets, TargetName::Smoothed);
        assert_eq!(loss(Supervision::Weak).richness, 0.0);
        assert_eq!(loss(Supervision::Pseudo).targets, TargetName::Pseudo);
        assert_eq!(loss(Supervision::Pseudo).richness, 0.0);
        assert_eq!(loss(Supervision::Richness).richness, 0.5);
    }

    #[test]
    fn a_number_out_of_range_and_an_unknown_key_are_refused_with_what_would_do() {
        let settings = TrainSettings {
            best_metric: Some("segment.typeav".to_owned()),
            ..TrainSettings::default()
        };
        let refused = settings.check().unwrap_err().to_string();
        assert!(refused.contains("(nearest: `segment.type_av`)"), "{refused}");
        let accuracy = |task| TrainSettings {
            task,
            best_metric: Some(ACCURACY.to_owned()),
            ..TrainSettings::default()
        };
        assert!(accuracy(Task::Avvp).check().is_err(), "only localization has it");
        assert!(accuracy(Task::Ave).check().is_ok());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, "epoch = 3\n").unwrap();
        let refused = TrainSettings::read(&path).unwrap_err().to_string();
        assert!(
            refused.contains("unknown field `epoch`, expected one of `epochs`"),
            "{refused}"
        );
        std::fs::write(
            &path,
            "epochs = 3\nsupervision = \"pseudo+richness\"\nclip = 1.0\n",
        )
        .unwrap();
        let read = TrainSettings::read(&path).unwrap();
        assert_eq!((read.epochs, read.clip, read.batch), (3, Some(1.0), 16));
    }
}
