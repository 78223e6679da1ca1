//! The training thread of a run: each step of the resident graph trains an epoch, or does what follows the last one.
//!
//! ```text
//! step: label changes ── data set ─┬─ an epoch of a training ──────────┬─ report ──────▶ `commit`: a store version
//!                                  ├─ predictions of its best epoch    │
//!                                  └─ predictions that PLD reads ──────┴─ predictions ─▶ the graph
//! ```
//!
//! The thread promotes the checkpoint of an epoch when it learns the version of the epoch's commit. A run that is killed in
//! between repeats the epoch with the same numbers, and finds it in the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};
use vaplan_dataflows::train::{Learner, Learnt, Predicted, RecordChanges};
use vaplan_dataflows::{LabelRecord, VideoId};
use vaplan_schemas::contain::contain;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::{ClassId, Modality};

use super::ledger::{Line, RunStage, StageKind};
use super::{RunError, score};
use crate::calibrate::gate::{DenoisingGain, denoising_gain};
use crate::calibrate::sample::CalibrationSample;
use crate::error::chain;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::trainer::TrainStep;
use crate::parser::training::{BEST, Committed, TrainedEpoch, Training, TrainingDriver, TrainingSpec};
use crate::parser::validate::Truths;
use crate::parser::{Dataset, TrainSettings, record};
use crate::world::evidence;
use crate::world::settings::LabelSettings;
use crate::world::{Active, World};

/// Result of a step of the run.
pub enum StepReport {
    /// An epoch was trained.
    Epoch {
        /// Key of the training's stage.
        key: String,
        /// Row, predictions and parameters of the epoch.
        trained: Box<TrainedEpoch>,
        /// Whether PLD reads the epoch's predictions from the next step on.
        denoises: bool,
        /// Gain of the rule that was chosen by the epoch's predictions of split val, if one was to be chosen.
        gain: Option<DenoisingGain>,
    },
    /// A training is complete.
    Trained {
        /// The training's stage.
        stage: RunStage,
        /// Number of its best epoch in the store.
        epoch: u64,
        /// Predictions of that epoch.
        predicted: Vec<VideoProbabilities>,
        /// Scores of those predictions.
        lines: Vec<Line>,
        /// Gain of the last rule that the training chose.
        gain: Option<DenoisingGain>,
    },
    /// Labels are denoised.
    Denoised {
        /// The stage that denoised.
        stage: RunStage,
        /// Epoch whose predictions PLD reads.
        epoch: u64,
        /// Gain of the rule that was chosen on split val, if one was to be chosen. PLD reads nothing if it is no gain.
        gain: Option<DenoisingGain>,
    },
    /// The run cannot continue.
    Failed(RunError),
}

/// Callback with the progress of the training thread. It is called on that thread.
pub type OnLearnerProgress = Box<dyn FnMut(LearnerProgress<'_>) + Send>;

/// Progress of the training thread.
#[derive(Clone, Copy, Debug)]
pub enum LearnerProgress<'a> {
    /// Features are being read.
    Read,
    /// A stage begins or continues.
    Stage {
        /// Name of the stage.
        name: &'a str,
        /// Number of epochs done.
        done: u64,
        /// Number of epochs of the training.
        epochs: u64,
        /// Number of videos that an epoch learns from.
        videos: u64,
    },
    /// A step of an epoch is done.
    Step(TrainStep),
}

/// The videos of split val on which denoising rules are chosen, in the way of `vaplan denoise`.
pub struct RuleChoice {
    /// Scores and dense truth of the videos.
    pub sample: CalibrationSample,
    /// Rules and thresholds of the labels.
    pub settings: LabelSettings,
    /// Modalities that are denoised.
    pub modalities: Vec<Modality>,
    /// Gain of the last rule that was chosen.
    pub last: Option<DenoisingGain>,
}

impl RuleChoice {
    /// Chooses a rule by these predictions. Returns `None` if they have no video of val: the rule of the file then denoises.
    fn gain(&mut self, predicted: &[VideoProbabilities]) -> Option<DenoisingGain> {
        let mut videos = self.sample.with_predictions(predicted);
        videos.retain(|video| video.predictions.iter().any(Option::is_some));
        let gain = denoising_gain(&videos, &self.settings, &self.modalities);
        self.last = gain.or(self.last);
        gain
    }
}

/// The stages of a run that learn, one step of the graph after the other.
pub struct RunLearner {
    /// Videos with the labels of the step before, and their features.
    pub dataset: Dataset,
    /// Dense truth of the splits that have it.
    pub truths: Truths,
    /// Store that holds the predictions of earlier trainings.
    pub store: Store,
    /// Classes and settings of the labels.
    pub world: World,
    /// Chooses the denoising rule on split val. `None`: the file names the rule, or val has no dense truth.
    pub choice: Option<RuleChoice>,
    /// Classes of the weak label of each video.
    pub weak: BTreeMap<VideoId, Arc<[ClassId]>>,
    /// Stages to do, in order.
    pub stages: VecDeque<RunStage>,
    /// Best epochs of the trainings that are complete, by stage name.
    pub best: BTreeMap<String, u64>,
    /// Folder of the checkpoints.
    pub folder: PathBuf,
    /// Device to compute on.
    pub device: tch::Device,
    /// Last epoch of the store.
    pub last: u64,
    /// Numbers in the store of epochs, by key of the training's stage and epoch of the training.
    pub numbers: BTreeMap<(String, u64), u64>,
    /// Store versions at which the trainings began that have epochs in the store, by key of the stage.
    pub began: BTreeMap<String, u64>,
    /// Last store version.
    pub version: u64,
    /// Whether the first epoch is in the store already, without a checkpoint. The epoch is then repeated on the labels
    /// that `dataset` has; the labels of the first step are those that the epoch led to.
    pub again: bool,
    /// The training under way.
    pub training: Option<Training>,
    /// Channel for the reports, one per step.
    pub reports: Sender<StepReport>,
    /// Store versions of the commits, one per report.
    pub commits: Receiver<u64>,
    /// Called with the progress.
    pub on_progress: OnLearnerProgress,
}

impl Learner for RunLearner {
    fn epoch(&mut self, step: u64, labels: RecordChanges) -> Result<Learnt, String> {
        let learnt = contain(|| self.step(step, labels));
        let learnt =
            learnt.unwrap_or_else(|panic| Err(RunError::Stopped(format!("training panicked: {panic}"))));
        learnt.map_err(|error| {
            let message = chain(&error);
            // Sending fails only if the receiver has ended, and then nobody needs the report.
            let _ = self.reports.send(StepReport::Failed(error));
            message
        })
    }
}

impl RunLearner {
    fn step(&mut self, step: u64, labels: RecordChanges) -> Result<Learnt, RunError> {
        if step > 0 {
            let gone = |_| RunError::Stopped("the thread that commits epochs ended".to_owned());
            self.version = self.commits.recv().map_err(gone)?;
            if let Some(training) = &self.training {
                training.promote()?;
            }
        }
        let again = std::mem::take(&mut self.again);
        if !again {
            self.relabel(&labels)?;
        }
        let stage = self
            .stages
            .front()
            .cloned()
            .expect("the graph has a step only if a stage is left");
        let (report, predictions) = match &stage.kind {
            StageKind::Train { .. } => self.train(stage)?,
            StageKind::Denoise { by } => self.denoise(by, stage)?,
            StageKind::Score => unreachable!("stages that only score are not given to the learner"),
        };
        if again {
            self.relabel(&labels)?;
        }
        let more = !self.stages.is_empty();
        let _ = self.reports.send(report);
        Ok(Learnt { predictions, more })
    }

    /// Applies label changes to the data set.
    fn relabel(&mut self, labels: &RecordChanges) -> Result<(), RunError> {
        let mut now: BTreeMap<(VideoId, Modality), Option<&LabelRecord>> = BTreeMap::new();
        for ((key, record), diff) in labels {
            match diff > &0 {
                true => drop(now.insert(*key, Some(record))),
                false => drop(now.entry(*key).or_insert(None)),
            }
        }
        for at in 0..self.dataset.examples.len() {
            let video = VideoId::of(&self.dataset.examples[at].name);
            for modality in Modality::ALL {
                if let Some(record) = now.get(&(video, modality)) {
                    self.dataset.relabel(at, modality, *record)?;
                }
            }
        }
        Ok(())
    }

    /// Trains an epoch, or predicts with the best epoch after the last one.
    fn train(&mut self, stage: RunStage) -> Result<(StepReport, Option<Vec<Predicted>>), RunError> {
        let StageKind::Train { settings, every, .. } = &stage.kind else {
            unreachable!("the stage is a training")
        };
        let mut training = match self.training.take() {
            Some(training) => training,
            None => self.begin(&stage)?,
        };
        let next = training.done() + 1;
        let due = every.is_some_and(|every| every.due(next, settings.epochs));
        let mut driver = StageDriver {
            more_splits: match due {
                true => settings.best_predictions.clone(),
                false => Vec::new(),
            },
            on_progress: &mut self.on_progress,
            given: None,
        };
        training.advance(&self.dataset, &self.truths, &mut driver)?;
        match driver
            .given
            .expect("a stage that is left has an epoch or its best predictions to give")
        {
            AdvanceResult::Best(best, predicted) => {
                let report = self.complete(&training, stage, best, predicted)?;
                Ok((report, None))
            }
            AdvanceResult::Epoch(mut trained) => {
                let key = (stage.key.clone(), next);
                let number = *self.numbers.entry(key).or_insert(self.last + 1);
                trained.row.epoch = number;
                self.last = self.last.max(number);
                self.training = Some(training);
                let gain = match (due, &mut self.choice) {
                    (true, Some(choice)) => choice.gain(&trained.predicted),
                    _ => None,
                };
                let denoises = due && gain.as_ref().is_none_or(DenoisingGain::is_gain);
                let predictions = denoises.then(|| self.predictions(number, &trained.predicted));
                let report = StepReport::Epoch {
                    key: stage.key,
                    trained,
                    denoises,
                    gain,
                };
                Ok((report, predictions))
            }
        }
    }

    /// Begins a training, or continues one from the checkpoint of an earlier run.
    pub fn begin(&mut self, stage: &RunStage) -> Result<Training, RunError> {
        let StageKind::Train { settings, start, .. } = &stage.kind else {
            unreachable!("the stage is a training")
        };
        let spec = TrainingSpec {
            settings: (**settings).clone(),
            device: self.device,
            folder: self.folder.join(&stage.name),
            run: stage.key.clone(),
            // A training that was killed before its first checkpoint may have an epoch in the store. Its version keeps
            // the id of the training the same.
            labels: self.began.get(&stage.key).copied().unwrap_or(self.version),
            data: stage.key.clone(),
            start: start.map(|name| self.folder.join(name).join(BEST)),
        };
        let training = Training::open(spec, &self.dataset)?;
        (self.on_progress)(LearnerProgress::Stage {
            name: &stage.name,
            done: training.done(),
            epochs: settings.epochs,
            videos: training.videos() as u64,
        });
        Ok(training)
    }

    /// Scores the predictions of the best epoch and ends the stage.
    fn complete(
        &mut self,
        training: &Training,
        stage: RunStage,
        best: u64,
        by_split: Vec<(Split, Vec<VideoProbabilities>)>,
    ) -> Result<StepReport, RunError> {
        let epoch = self.numbers[&(stage.key.clone(), best)];
        let settings = &training.spec().settings;
        let (mut predicted, mut lines) = (Vec::new(), Vec::new());
        for (split, own) in by_split {
            if let Some(truth) = self.truths.of(split).filter(|_| !own.is_empty()) {
                lines.extend(score::parser(truth, &own, settings.task)?);
            }
            if settings.best_predictions.contains(&split) {
                predicted.extend(own);
            }
        }
        self.best.insert(stage.name.clone(), epoch);
        self.stages.pop_front();
        Ok(StepReport::Trained {
            stage,
            epoch,
            predicted,
            lines,
            gain: self.choice.as_ref().and_then(|choice| choice.last),
        })
    }

    /// Gives PLD the predictions of the best epoch of a training.
    fn denoise(
        &mut self,
        by: &str,
        stage: RunStage,
    ) -> Result<(StepReport, Option<Vec<Predicted>>), RunError> {
        let epoch = *self.best.get(by).expect("the training is an earlier stage");
        let predicted = record::read(&self.store.at_version(None)?, epoch)?;
        let gain = self.choice.as_mut().and_then(|choice| choice.gain(&predicted));
        let denoises = gain.as_ref().is_none_or(DenoisingGain::is_gain);
        let predictions = denoises.then(|| self.predictions(epoch, &predicted));
        self.stages.pop_front();
        let report = StepReport::Denoised { stage, epoch, gain };
        Ok((report, predictions))
    }

    /// Predictions as the graph reads them from a store version whose active epoch is `epoch`.
    fn predictions(&self, epoch: u64, predicted: &[VideoProbabilities]) -> Vec<Predicted> {
        let mut world = self.world.clone();
        world.active = Some(active(&world, epoch));
        let tracks = predicted.iter().flat_map(|video| video.rows(epoch).0).collect();
        let weak = |name: &str| self.weak.get(&VideoId::of(name)).cloned();
        evidence::latest(tracks, &world, &weak)
    }
}

/// Keeps the result of a training. The run commits the result after the step, together with the labels that the step
/// changes.
struct StageDriver<'a> {
    more_splits: Vec<Split>,
    on_progress: &'a mut OnLearnerProgress,
    given: Option<AdvanceResult>,
}

/// Result of one call of [`Training::advance`].
enum AdvanceResult {
    Epoch(Box<TrainedEpoch>),
    Best(u64, Vec<(Split, Vec<VideoProbabilities>)>),
}

impl TrainingDriver for StageDriver<'_> {
    type Error = RunError;

    fn more_splits(&self, _epoch: u64) -> Vec<Split> {
        self.more_splits.clone()
    }

    /// Returns every split, because the final table has the scores of every split.
    fn best_splits(&self, _settings: &TrainSettings) -> Vec<Split> {
        Split::ALL.to_vec()
    }

    fn on_step(&mut self, step: TrainStep) -> ControlFlow<()> {
        (self.on_progress)(LearnerProgress::Step(step));
        ControlFlow::Continue(())
    }

    fn commit_epoch(&mut self, _spec: &TrainingSpec, trained: TrainedEpoch) -> Result<Committed, RunError> {
        self.given = Some(AdvanceResult::Epoch(Box::new(trained)));
        Ok(Committed::Later)
    }

    fn commit_best(
        &mut self,
        _spec: &TrainingSpec,
        epoch: u64,
        predicted: Vec<(Split, Vec<VideoProbabilities>)>,
    ) -> Result<Committed, RunError> {
        self.given = Some(AdvanceResult::Best(epoch, predicted));
        Ok(Committed::Later)
    }
}

/// Returns active predictions that consist of one epoch.
pub fn active(world: &World, epoch: u64) -> Active {
    Active {
        epochs: BTreeSet::from([epoch]),
        classes: world.classes.clone(),
    }
}
