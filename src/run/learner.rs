//! The parser in the loop: one stage of a run after the other, a step of the graph each epoch.
//!
//! ```text
//! step: labels ── data set ─┬─ an epoch of a training ─────────────┬─ report ─▶ whoever commits
//!                           ├─ its best epoch's predictions        │
//!                           └─ predictions that denoise ───────────┴─ predictions ─▶ the graph
//! ```
//!
//! A checkpoint is written when the commit of its epoch is known to be there, so that what is killed between the two is
//! done again with the same numbers, and found done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};
use vaplan_dataflows::train::{LabelChanges, Learner, Learnt, Predicted};
use vaplan_dataflows::{LabelRecord, VideoId};
use vaplan_schemas::contain::contain;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::{ClassId, Modality};

use super::ledger::{Kind, Line, Stage};
use super::{RunError, score};
use crate::error::chain;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::trainer::Step;
use crate::parser::training::{Brief, Course, Learned};
use crate::parser::validate::Truths;
use crate::parser::{Dataset, record};
use crate::world::kept;
use crate::world::{Active, World};

/// What a step was.
pub enum Report {
    /// An epoch is learnt.
    Epoch {
        /// Key of the training.
        key: String,
        /// What it gave.
        learned: Box<Learned>,
        /// PLD goes by its predictions from now on.
        denoises: bool,
    },
    /// A training is done.
    Trained {
        /// Which.
        stage: Stage,
        /// Its best epoch.
        epoch: u64,
        /// Predictions of that epoch.
        predicted: Vec<VideoProbabilities>,
        /// Their scores.
        lines: Vec<Line>,
    },
    /// Labels are denoised.
    Denoised {
        /// Which stage it is.
        stage: Stage,
        /// Epoch of the predictions.
        epoch: u64,
    },
    /// It cannot go on.
    Failed(RunError),
}

/// Told what is being done, from the learner's thread.
pub type OnStep = Box<dyn FnMut(Doing<'_>) + Send>;

/// What is being done.
#[derive(Clone, Copy, Debug)]
pub enum Doing<'a> {
    /// Features are read.
    Read,
    /// A stage is begun, or taken up: epochs done of all, and videos of an epoch.
    Stage {
        /// Its name.
        name: &'a str,
        /// Epochs done.
        done: u64,
        /// Epochs in all.
        epochs: u64,
        /// Videos of an epoch.
        videos: u64,
    },
    /// A step of a training is made.
    Step(Step),
}

/// A parser in the loop.
pub struct Pupil {
    /// What is learnt from; its labels are those of the step before.
    pub dataset: Dataset,
    /// Dense truth, where there is some.
    pub truths: Truths,
    /// Where predictions of a training before are.
    pub store: Store,
    /// Classes.
    pub world: World,
    /// Classes of the weak label of each video.
    pub weak: BTreeMap<VideoId, Arc<[ClassId]>>,
    /// What is to be done, in order.
    pub stages: VecDeque<Stage>,
    /// Best epochs of the trainings that are done, by name.
    pub best: BTreeMap<String, u64>,
    /// Folder of the checkpoints.
    pub folder: PathBuf,
    /// Where to compute.
    pub device: tch::Device,
    /// Threads of libtorch.
    pub threads: usize,
    /// Last epoch of the store.
    pub last: u64,
    /// Numbers in the store of epochs, by training and its epoch.
    pub numbers: BTreeMap<(String, u64), u64>,
    /// Versions at which the trainings that have epochs there began.
    pub began: BTreeMap<String, u64>,
    /// Its last version.
    pub version: u64,
    /// The first epoch was committed before: it is done again with the labels that the data set has, and the labels of the
    /// first step are those that came of it.
    pub again: bool,
    /// The training under way.
    pub course: Option<Course>,
    /// Where reports go.
    pub reports: Sender<Report>,
    /// Versions of the commits, one a report.
    pub commits: Receiver<u64>,
    /// Told what is being done.
    pub told: OnStep,
}

impl Learner for Pupil {
    fn epoch(&mut self, step: u64, labels: LabelChanges) -> Result<Learnt, String> {
        let learnt = contain(|| self.step(step, labels));
        let learnt =
            learnt.unwrap_or_else(|panic| Err(RunError::Stopped(format!("training panicked: {panic}"))));
        learnt.map_err(|error| {
            let said = chain(&error);
            // Fails only where nobody waits any more.
            let _ = self.reports.send(Report::Failed(error));
            said
        })
    }
}

impl Pupil {
    fn step(&mut self, step: u64, labels: LabelChanges) -> Result<Learnt, RunError> {
        if step == 0 {
            crate::parser::set_threads(self.threads);
        } else {
            let gone = |_| RunError::Stopped("nobody commits what is learnt".to_owned());
            self.version = self.commits.recv().map_err(gone)?;
            if let Some(course) = &self.course {
                course.save(&self.dataset)?;
            }
        }
        let before = std::mem::take(&mut self.again);
        if !before {
            self.relabel(&labels)?;
        }
        let stage = self.stages.front().cloned().expect("there is something to learn");
        let (report, predictions) = match &stage.kind {
            Kind::Train { .. } => self.train(stage)?,
            Kind::Denoise { by } => self.denoise(by, stage)?,
            Kind::Score => unreachable!("what is only scored is no step"),
        };
        if before {
            self.relabel(&labels)?;
        }
        let more = !self.stages.is_empty();
        let _ = self.reports.send(report);
        Ok(Learnt { predictions, more })
    }

    /// Takes labels that came and went.
    fn relabel(&mut self, labels: &LabelChanges) -> Result<(), RunError> {
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

    /// An epoch, or what is left to do after the last.
    fn train(&mut self, stage: Stage) -> Result<(Report, Option<Vec<Predicted>>), RunError> {
        let Kind::Train { settings, every } = &stage.kind else {
            unreachable!("it is a training")
        };
        let mut course = match self.course.take() {
            Some(course) => course,
            None => self.begin(&stage)?,
        };
        let next = course.done() + 1;
        if next > settings.epochs {
            return self.finish(&course, stage).map(|report| (report, None));
        }
        let denoises = every.is_some_and(|every| every.due(next, settings.epochs));
        let also = match denoises {
            true => &settings.best_predictions[..],
            false => &[],
        };
        let told = &mut self.told;
        let mut learned = course.epoch(&self.dataset, &self.truths, also, |step| {
            told(Doing::Step(step));
            ControlFlow::Continue(())
        })?;
        let number = self
            .numbers
            .entry((stage.key.clone(), next))
            .or_insert(self.last + 1);
        learned.row.epoch = *number;
        self.last = self.last.max(*number);
        self.course = Some(course);
        let predictions = denoises.then(|| self.predictions(learned.row.epoch, &learned.predicted));
        let report = Report::Epoch {
            key: stage.key,
            learned: Box::new(learned),
            denoises,
        };
        Ok((report, predictions))
    }

    /// Begins a training, or takes up what an earlier run left of it.
    pub fn begin(&mut self, stage: &Stage) -> Result<Course, RunError> {
        let Kind::Train { settings, .. } = &stage.kind else {
            unreachable!("it is a training")
        };
        let brief = Brief {
            settings: (**settings).clone(),
            device: self.device,
            folder: self.folder.join(&stage.name),
            run: stage.key.clone(),
            // Killed before its first checkpoint, it may have an epoch.
            labels: self.began.get(&stage.key).copied().unwrap_or(self.version),
            learnt: stage.key.clone(),
        };
        let course = Course::open(brief, &self.dataset)?;
        (self.told)(Doing::Stage {
            name: &stage.name,
            done: course.done(),
            epochs: settings.epochs,
            videos: course.learnt() as u64,
        });
        Ok(course)
    }

    fn finish(&mut self, course: &Course, stage: Stage) -> Result<Report, RunError> {
        let (best, _) = course.best().expect("a training has at least one epoch");
        let epoch = self.numbers[&(stage.key.clone(), best)];
        let settings = &course.brief().settings;
        let (mut predicted, mut lines) = (Vec::new(), Vec::new());
        for split in Split::ALL {
            let own = course.by_best(&self.dataset, [split])?;
            if let Some(truth) = self.truths.of(split).filter(|_| !own.is_empty()) {
                lines.extend(score::parser(truth, &own, settings.task)?);
            }
            if settings.best_predictions.contains(&split) {
                predicted.extend(own);
            }
        }
        self.best.insert(stage.name.clone(), epoch);
        self.stages.pop_front();
        Ok(Report::Trained {
            stage,
            epoch,
            predicted,
            lines,
        })
    }

    /// Predictions of the best epoch of a training, for PLD.
    fn denoise(&mut self, by: &str, stage: Stage) -> Result<(Report, Option<Vec<Predicted>>), RunError> {
        let epoch = *self.best.get(by).expect("the training is a stage before");
        let predicted = record::read(&self.store.at_version(None)?, epoch)?;
        let predictions = self.predictions(epoch, &predicted);
        self.stages.pop_front();
        let report = Report::Denoised { stage, epoch };
        Ok((report, Some(predictions)))
    }

    /// As the graph takes them: what a version says whose active epoch is this one.
    fn predictions(&self, epoch: u64, predicted: &[VideoProbabilities]) -> Vec<Predicted> {
        let mut world = self.world.clone();
        world.active = Some(active(&world, epoch));
        let tracks = predicted.iter().flat_map(|video| video.rows(epoch).0).collect();
        let weak = |name: &str| self.weak.get(&VideoId::of(name)).cloned();
        kept::latest(tracks, &world, &weak)
    }
}

/// Of an epoch alone.
pub fn active(world: &World, epoch: u64) -> Active {
    Active {
        epochs: BTreeSet::from([epoch]),
        classes: world.classes.clone(),
    }
}
