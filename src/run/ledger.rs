//! The ledger of a run: which stages are done, with a hash of everything that each stage depends on.
//!
//! The store keeps the ledger in row `run.state` of table `settings`. Every commit of the run writes it, so that stages
//! and tables always agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_schemas::rows::Split;

use super::config::{Config, Every, Schedule};
use super::learner::active;
use crate::calibrate::gate::DenoisingGain;
use crate::engine::plan::DenoisingState;
use crate::parser::{Supervision, TrainSettings};
use crate::world::hash::{feed, hash};
use crate::world::{Both, World};

/// Stage that scores the labels of PLG.
pub const PLG: &str = "plg";
/// Stage that scores the labels of PLD. With schedule `once`, it also denoises them.
pub const PLD: &str = "pld";
/// Stage that trains a parser on the labels of PLG.
pub const PLE: &str = "ple";
/// Stage that trains a parser on the labels of PLD.
pub const BOTH: &str = "ple+pld";

/// Finished stages of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Key of the stage whose predictions are active, and their epoch in the store. `None`: no predictions are active.
    pub active: Option<(String, u64)>,
    /// Denoising rule of the active predictions, if it was chosen on split val. `None`: the rule of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<DenoisingRule>,
    /// Finished stages, by name.
    pub stages: BTreeMap<String, FinishedStage>,
}

/// A finished stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinishedStage {
    /// Hash of everything that the stage depends on.
    pub key: String,
    /// Best epoch of a training, or epoch whose predictions denoised the labels. `None` for a stage that only scores.
    pub epoch: Option<u64>,
    /// Lines of the stage in the final table.
    pub lines: Vec<Line>,
    /// Gain of the last rule that the stage chose on split val. `None` for a stage that chose none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<DenoisingGain>,
}

/// Scores of one split with one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Split that is scored.
    pub split: Split,
    /// Protocol that turned predictions into 0s and 1s.
    pub protocol: String,
    /// F-scores in percent, in the order of [`METRICS`](crate::parser::settings::METRICS).
    pub scores: Vec<f64>,
    /// Accuracy in percent of segments. `None` unless the task is `ave`.
    pub accuracy: Option<f64>,
}

/// A stage of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStage {
    /// Name of the stage in the ledger.
    pub name: String,
    /// Work of the stage.
    pub kind: StageKind,
    /// Hash of everything that the stage depends on.
    pub key: String,
}

/// Work of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum StageKind {
    /// Scores the labels of the latest version.
    Score,
    /// Trains a parser.
    Train {
        /// Settings of the training.
        settings: Box<TrainSettings>,
        /// Epochs after which the labels are denoised. `None`: the labels stay.
        every: Option<Every>,
        /// Name of the stage whose best weights the training begins with. `None`: random weights.
        start: Option<&'static str>,
    },
    /// Denoises the labels by the best epoch of another stage.
    Denoise {
        /// Name of that stage.
        by: &'static str,
    },
}

impl Ledger {
    /// Returns the entry of a stage, if the stage is done with its current key.
    pub fn done(&self, stage: &RunStage) -> Option<&FinishedStage> {
        self.stages.get(&stage.name).filter(|done| done.key == stage.key)
    }
}

impl Ledger {
    /// Removes stages that the file no longer has, or that have another key now.
    pub fn keep(&mut self, stages: &[RunStage]) {
        self.stages.retain(|name, done| {
            let stage = stages.iter().find(|stage| stage.name == *name);
            stage.is_some_and(|stage| stage.key == done.key)
        });
    }

    /// Returns whether a baseline must be trained. A baseline learns the labels of PLG. Therefore the entry of stage
    /// [`PLD`] is removed if the labels are denoised once: they must be denoised again after the baseline.
    pub fn compares(&mut self, stages: &[RunStage]) -> bool {
        let baseline = |stage: &&RunStage| {
            let alone = matches!(stage.kind, StageKind::Train { every: None, .. });
            alone && stage.name != PLE && stage.name != BOTH
        };
        let open = stages
            .iter()
            .filter(baseline)
            .any(|stage| self.done(stage).is_none());
        let once = stages
            .iter()
            .any(|stage| matches!(stage.kind, StageKind::Denoise { .. }));
        if open && once {
            self.stages.remove(PLD);
        }
        open
    }

    /// Returns the denoising settings and active predictions that the labels must have after all `stages` are done.
    /// They are those of [`Ledger::active`] if its key is that of a stage that denoises: a finished stage
    /// [`StageKind::Denoise`], or a training with schedule `every`. Otherwise no predictions are active.
    pub fn denoised(
        &self,
        stages: &[RunStage],
        world: &World,
        pld: Both<Option<DenoisingRule>>,
    ) -> DenoisingState {
        let denoises = |stage: &RunStage| match &stage.kind {
            StageKind::Score => false,
            StageKind::Denoise { .. } => self.done(stage).is_some(),
            StageKind::Train { every, .. } => every.is_some(),
        };
        let asked = |key: &str| stages.iter().any(|stage| denoises(stage) && stage.key == key);
        match &self.active {
            Some((key, epoch)) if asked(key) => (with_rule(pld, self.chosen), Some(active(world, *epoch))),
            _ => Default::default(),
        }
    }
}

/// Denoises the same modalities by the chosen rule, if one was chosen.
pub fn with_rule(
    pld: Both<Option<DenoisingRule>>,
    chosen: Option<DenoisingRule>,
) -> Both<Option<DenoisingRule>> {
    pld.map(|own| own.map(|rule| chosen.unwrap_or(rule)))
}

/// Returns all stages of a run, in order. `labels` is a hash of everything that the labels depend on, `unmarked` the same hash
/// without user labels, and `features` a hash of the parser's features.
pub fn stages(config: &Config, (labels, unmarked): (&str, &str), features: &str) -> Vec<RunStage> {
    let key = |parts: &[&str]| hash(|sum| feed(sum, parts.iter().copied()));
    let text = |settings: &TrainSettings| serde_json::to_string(settings).expect("settings are JSON");
    let mut denoise = config.denoise.clone();
    if denoise.schedule == Schedule::Once {
        // Schedule `once` does not read these keys, so they must not change the keys of the stages.
        (denoise.every, denoise.warmup) = (0, 0);
    }
    // A parameter that the file does not name counts with its default, so that naming it changes no key.
    denoise.complete();
    let denoise = serde_json::to_string(&denoise).expect("settings are JSON");
    let train = |name: &str, settings: TrainSettings, on: &str, every: Option<Every>| RunStage {
        name: name.to_owned(),
        key: key(&[
            name,
            &text(&settings),
            on,
            features,
            every.map_or("", |_| &denoise),
        ]),
        kind: StageKind::Train {
            settings: Box::new(settings),
            every,
            start: None,
        },
    };
    let mut stages = vec![RunStage {
        name: PLG.to_owned(),
        kind: StageKind::Score,
        key: labels.to_owned(),
    }];
    stages.extend(config.baselines.iter().map(|&supervision| {
        let settings = TrainSettings {
            supervision,
            // `[train]` sets these keys for the parser that the baseline is compared with. A baseline uses the values
            // of its supervision.
            targets: None,
            richness: None,
            richness_classes: None,
            richness_terms: None,
            ..config.train.clone()
        };
        // A parser that learns weak labels does not learn user labels, so these must not repeat its training.
        let learnt = if supervision == Supervision::Weak {
            unmarked
        } else {
            labels
        };
        train(supervision.as_str(), settings, learnt, None)
    }));
    match config.denoise.schedule {
        Schedule::Off => stages.push(train(PLE, config.train.clone(), labels, None)),
        Schedule::Once => {
            let first = train(PLE, config.train.clone(), labels, None);
            let pld = key(&[PLD, &first.key, &denoise]);
            let mut again = train(BOTH, config.train.clone(), &pld, None);
            if let (StageKind::Train { start, .. }, false) = (&mut again.kind, config.denoise.restart) {
                *start = Some(PLE);
            }
            stages.extend([
                first,
                RunStage {
                    name: PLD.to_owned(),
                    kind: StageKind::Denoise { by: PLE },
                    key: pld,
                },
                again,
            ]);
        }
        Schedule::Every => {
            let training = train(BOTH, config.train.clone(), labels, config.denoise.every());
            let scored = RunStage {
                name: PLD.to_owned(),
                kind: StageKind::Score,
                key: key(&[PLD, &training.key]),
            };
            stages.extend([training, scored]);
        }
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::config::ParameterValue;

    fn changed(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config {
            baselines: vec![Supervision::Weak],
            ..Config::default()
        };
        let before = stages(&config, ("labels", "unmarked"), "features");
        change(&mut config);
        let after = stages(&config, ("labels", "unmarked"), "features");
        let other = after.into_iter().filter(|stage| !before.contains(stage));
        other.map(|stage| stage.name).collect()
    }

    #[test]
    fn a_stage_has_another_key_where_something_that_it_depends_on_is_another() {
        assert_eq!(changed(|_| ()), [""; 0]);
        assert_eq!(
            changed(|config| config.train.seed = 2),
            ["weak", "ple", "pld", "ple+pld"]
        );
        assert_eq!(
            changed(|config| config
                .denoise
                .parameters
                .extend([("alpha".to_owned(), ParameterValue::Number(5.0))])),
            ["pld", "ple+pld"]
        );
        assert_eq!(
            changed(|config| config.train.richness = Some(0.7)),
            ["ple", "pld", "ple+pld"],
            "a baseline is what its name says"
        );
        assert_eq!(
            changed(|config| config.denoise.parameters.clear()),
            [""; 0],
            "the defaults"
        );
        assert_eq!(
            changed(|config| config.denoise.calibrate = Some(false)),
            ["pld", "ple+pld"],
            "the default rule instead of the one that val chooses"
        );
        assert_eq!(
            changed(|config| config.denoise.calibrate = Some(true)),
            [""; 0],
            "the default"
        );
        assert_eq!(
            changed(|config| config.denoise.warmup = 2),
            [""; 0],
            "of `every` alone"
        );
        assert_eq!(
            changed(|config| config.baselines.push(Supervision::Pseudo)),
            ["pseudo"]
        );
        assert_eq!(
            changed(|config| config.denoise.schedule = Schedule::Every),
            ["ple+pld", "pld"]
        );
        let config = Config::default();
        let (one, other) = (
            stages(&config, ("labels", "unmarked"), "features"),
            stages(&config, ("others", "others unmarked"), "features"),
        );
        assert!(one.iter().zip(&other).all(|(one, other)| one.key != other.key));
        let marked = stages(&config, ("marked", "unmarked"), "features");
        let same = one
            .iter()
            .zip(&marked)
            .filter(|(one, other)| one.key == other.key);
        let same: Vec<&str> = same.map(|(one, _)| one.name.as_str()).collect();
        assert_eq!(
            same,
            ["weak"],
            "user labels do not repeat the training on weak labels"
        );
    }
}
