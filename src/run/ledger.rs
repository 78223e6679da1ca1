//! What a store remembers of its run: which stages are done, by the hash of all that they depend on.
//!
//! It lies in table `settings`, `run.state`, and moves with every commit of the run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::pld::Pld;
use vaplan_schemas::rows::Split;

use super::config::{Config, Every, Schedule};
use super::learner::active;
use crate::engine::plan::Denoised;
use crate::parser::TrainSettings;
use crate::world::hash::{feed, hash};
use crate::world::{Both, World};

/// The labels of PLG, scored.
pub const PLG: &str = "plg";
/// The labels of PLD, scored.
pub const PLD: &str = "pld";
/// A parser trained on the labels of PLG.
pub const PLE: &str = "ple";
/// A parser trained on the labels of PLD.
pub const BOTH: &str = "ple+pld";

/// What a store remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Key of the stage whose predictions have a say in the labels, and their epoch; none: none have.
    pub active: Option<(String, u64)>,
    /// By name.
    pub stages: BTreeMap<String, FinishedStage>,
}

/// A stage that is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinishedStage {
    /// Hash of all that it depends on.
    pub key: String,
    /// Its best epoch, or that whose predictions denoised.
    pub epoch: Option<u64>,
    /// Its lines of the final table.
    pub lines: Vec<Line>,
}

/// Scores of a split by a protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Part of the data set.
    pub split: Split,
    /// How predictions became 0s and 1s.
    pub protocol: String,
    /// Percent, in the order of [`METRICS`](crate::parser::settings::METRICS).
    pub scores: Vec<f64>,
    /// Percent of segments, of task `ave`.
    pub accuracy: Option<f64>,
}

/// Something to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStage {
    /// Its name in the ledger.
    pub name: String,
    /// What is done.
    pub kind: StageKind,
    /// Hash of all that it depends on.
    pub key: String,
}

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum StageKind {
    /// The labels are scored as they are.
    Score,
    /// A parser is trained.
    Train {
        /// How.
        settings: Box<TrainSettings>,
        /// After which epochs labels are denoised; none: after none.
        every: Option<Every>,
    },
    /// Labels are denoised by the best epoch of a stage.
    Denoise {
        /// Name of the stage.
        by: &'static str,
    },
}

impl Ledger {
    /// What is there of a stage, if it is done as it is asked.
    pub fn done(&self, stage: &RunStage) -> Option<&FinishedStage> {
        self.stages.get(&stage.name).filter(|done| done.key == stage.key)
    }
}

impl Ledger {
    /// Forgets what is not asked any more, or was asked otherwise.
    pub fn keep(&mut self, stages: &[RunStage]) {
        self.stages.retain(|name, done| {
            let stage = stages.iter().find(|stage| stage.name == *name);
            stage.is_some_and(|stage| stage.key == done.key)
        });
    }

    /// Is a parser to be trained for comparison? It learns the labels of PLG, so where labels are denoised once, they are
    /// denoised again after it.
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

    /// What the labels are to be denoised by as far as all this is done: by the epoch that a stage which is asked came to.
    pub fn denoised(&self, stages: &[RunStage], world: &World, pld: Both<Option<Pld>>) -> Denoised {
        let denoises = |stage: &RunStage| match &stage.kind {
            StageKind::Score => false,
            StageKind::Denoise { .. } => self.done(stage).is_some(),
            StageKind::Train { every, .. } => every.is_some(),
        };
        let asked = |key: &str| stages.iter().any(|stage| denoises(stage) && stage.key == key);
        match &self.active {
            Some((key, epoch)) if asked(key) => (pld, Some(active(world, *epoch))),
            _ => Default::default(),
        }
    }
}

/// All stages of a run in order; `labels` and `features` are hashes of what labels depend on, and of the parser's features.
pub fn stages(config: &Config, labels: &str, features: &str) -> Vec<RunStage> {
    let key = |parts: &[&str]| hash(|sum| feed(sum, parts.iter().copied()));
    let text = |settings: &TrainSettings| serde_json::to_string(settings).expect("settings are JSON");
    let mut denoise = config.denoise.clone();
    if denoise.schedule == Schedule::Once {
        // Of no say.
        (denoise.every, denoise.warmup) = (0, 0);
    }
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
            // Those of [train] are what it is compared with.
            targets: None,
            richness: None,
            ..config.train.clone()
        };
        train(supervision.as_str(), settings, labels, None)
    }));
    match config.denoise.schedule {
        Schedule::Off => stages.push(train(PLE, config.train.clone(), labels, None)),
        Schedule::Once => {
            let first = train(PLE, config.train.clone(), labels, None);
            let pld = key(&[PLD, &first.key, &denoise]);
            let again = train(BOTH, config.train.clone(), &pld, None);
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
    use crate::parser::Supervision;

    fn changed(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config {
            baselines: vec![Supervision::Weak],
            ..Config::default()
        };
        let before = stages(&config, "labels", "features");
        change(&mut config);
        let after = stages(&config, "labels", "features");
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
        assert_eq!(changed(|config| config.denoise.alpha = 5.0), ["pld", "ple+pld"]);
        assert_eq!(
            changed(|config| config.train.richness = Some(0.7)),
            ["ple", "pld", "ple+pld"],
            "a baseline is what its name says"
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
            stages(&config, "labels", "features"),
            stages(&config, "others", "features"),
        );
        assert!(one.iter().zip(&other).all(|(one, other)| one.key != other.key));
    }
}
