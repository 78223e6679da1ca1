//! The stages of a run that are not done: scores, trainings and denoising, one step of the graph after the other.

use std::collections::VecDeque;

use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::Epochs;
use vaplan_schemas::{StoreError, StoreVersion};

use super::commit::Writer;
use super::config::{Config, Schedule};
use super::graph::{self, Graph};
use super::learner::{LearnerProgress, OnLearnerProgress, RuleChoice, RunLearner, StepReport};
use super::ledger::{PLD, PLG, RunStage, StageKind};
use super::{RunError, RunProgress, RunRequest, checkpoints};
use crate::calibrate::CalibrateError;
use crate::calibrate::sample::CalibrationSample;
use crate::engine::Listener;
use crate::engine::cluster::resident::GraphProcesses;
use crate::engine::resident::whole;
use crate::eval::EvalError;
use crate::parser::validate::Truths;
use crate::parser::{Dataset, FeaturePaths, TrainError};
use crate::world::{Both, World};
use crate::world::evidence::last_epoch;

/// State that the stages of a run share.
pub(super) struct RunContext<'a> {
    pub(super) config: &'a Config,
    pub(super) request: &'a RunRequest,
    /// The processes that have workers of the graph.
    pub(super) processes: &'a GraphProcesses,
    pub(super) paths: &'a FeaturePaths,
    pub(super) listener: &'a Listener,
    pub(super) keeps: bool,
    pub(super) for_good: bool,
    pub(super) pld: Both<Option<DenoisingRule>>,
}

impl RunContext<'_> {
    /// Scores the labels of the latest version for the stages that only score.
    pub(super) fn score(&self, writer: &mut Writer<'_>, open: &[RunStage]) -> Result<(), RunError> {
        for stage in open.iter().filter(|stage| stage.kind == StageKind::Score) {
            writer.scored(stage, self.config.train.task)?;
        }
        Ok(())
    }

    /// Trains and denoises, one step of the graph after the other, and commits each step.
    pub(super) fn learn(
        &self,
        writer: &mut Writer<'_>,
        snapshot: &Snapshot,
        (open, learnt): (&[RunStage], VecDeque<RunStage>),
        step: OnLearnerProgress,
        progress: &mut dyn FnMut(RunProgress<'_>),
    ) -> Result<(), RunError> {
        // Each step sends one report and receives one commit: the learner waits for the commit of its last step before
        // the next step.
        let (reports, heard) = crossbeam::channel::bounded(1);
        let (commits, committed) = crossbeam::channel::bounded(1);
        let part = whole(writer.store, snapshot, self.request.workers, self.listener)?;
        let (learner, keeps) = self.learner(writer, snapshot, &part, learnt, (reports, committed), step)?;
        let pld = self.pld;
        // Active predictions keep the rule that was chosen for them.
        let first = if keeps { writer.denoised().0 } else { pld };
        let (mut graph, stepped) =
            Graph::start(&part, first, keeps, self.processes.graph(true)?, Box::new(learner))?;
        drop(part);
        let steps = || -> Result<(), RunError> {
            if !keeps {
                writer.reset(&graph, stepped, self.for_good)?;
            }
            self.score_one(writer, open, PLG)?;
            while graph.learning() {
                let gone = |_| RunError::Stopped("the training thread exited unexpectedly".to_owned());
                let report = heard.recv().map_err(gone)?;
                let version = writer.report(report, &mut graph, (pld, self.config.train.task), progress)?;
                // Sending fails only if the learner has ended, and then it needs no version.
                let _ = commits.send(version);
            }
            self.score_one(writer, open, PLD)
        };
        let done = steps();
        // Close the channel of commits before the graph waits for the end of the learner. After an error the learner
        // would otherwise wait forever for a commit.
        drop(commits);
        done?;
        graph.finish()
    }

    fn score_one(&self, writer: &mut Writer<'_>, open: &[RunStage], name: &str) -> Result<(), RunError> {
        let score = |stage: &&RunStage| stage.kind == StageKind::Score && stage.name == name;
        match open.iter().find(score) {
            Some(stage) => writer.scored(stage, self.config.train.task),
            None => Ok(()),
        }
    }

    /// The videos on which the denoising rule is chosen. `None`: the file names the rule, or val has no dense truth.
    fn choice(&self, snapshot: &Snapshot, world: &World) -> Result<Option<RuleChoice>, RunError> {
        let denoise = &self.config.denoise;
        if !denoise.calibrates() || denoise.schedule == Schedule::Off {
            return Ok(None);
        }
        let sample = match CalibrationSample::without_predictions(snapshot, world, Split::Val) {
            Ok(sample) => sample,
            Err(CalibrateError::Eval(EvalError::NoVideos { .. } | EvalError::NoTruth { .. })) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(RuleChoice {
            sample,
            settings: world.settings.clone(),
            modalities: denoise.modalities.clone(),
            last: None,
        }))
    }

    fn learner(
        &self,
        writer: &Writer<'_>,
        snapshot: &Snapshot,
        part: &crate::engine::part::TouchedRows,
        learnt: VecDeque<RunStage>,
        (reports, commits): (
            crossbeam::channel::Sender<StepReport>,
            crossbeam::channel::Receiver<u64>,
        ),
        mut on_progress: OnLearnerProgress,
    ) -> Result<(RunLearner, bool), RunError> {
        let read = |snapshot: &Snapshot| -> Result<Dataset, TrainError> {
            let mut dataset = Dataset::read(snapshot, self.paths, &mut |_| ())?;
            if self.config.train.soft_labels > 0.0 {
                dataset.read_margins(snapshot)?;
            }
            Ok(dataset)
        };
        let dataset = read(snapshot)?;
        let best = &writer.ledger.stages;
        let epochs = snapshot.read::<Epochs>()?;
        on_progress(LearnerProgress::Read);
        let mut learner = RunLearner {
            truths: Truths::read(snapshot)?,
            store: writer.store.clone(),
            world: part.world().clone(),
            choice: self.choice(snapshot, part.world())?,
            weak: graph::weak(part),
            best: best
                .iter()
                .filter_map(|(name, done)| Some((name.clone(), done.epoch?)))
                .collect(),
            stages: learnt,
            folder: checkpoints(&self.config.store)?,
            device: self.request.device,
            last: last_epoch(snapshot)?,
            began: (epochs.iter())
                .map(|row| (row.run.to_string(), row.labels))
                .collect(),
            numbers: (epochs.iter())
                .map(|row| ((row.run.to_string(), row.run_epoch), row.epoch))
                .collect(),
            version: snapshot.version().version,
            again: false,
            training: None,
            dataset,
            reports,
            commits,
            on_progress,
        };
        let mut keeps = self.keeps;
        let first = learner
            .stages
            .front()
            .cloned()
            .expect("there is something to learn");
        if let StageKind::Train { every, settings, .. } = &first.kind {
            let mut training = learner.begin(&first)?;
            if !keeps && every.is_some_and(|every| every.was_due(training.done(), settings.epochs)) {
                // The labels that the training learnt were denoised by its own earlier epochs, and these flips are not
                // in the store any more. Train from the start.
                training.forget()?;
                training = learner.begin(&first)?;
            }
            let next = (first.key.clone(), training.done() + 1);
            if every.is_some() && keeps {
                let active = &writer.denoised().1;
                let by_next = learner.numbers.get(&next).zip(active.as_ref());
                // A training that begins from the start learns the labels of PLG, so the active predictions are kept
                // only if the training continues, or if they are those of the epoch to be repeated.
                keeps = training.resumed().is_some()
                    || by_next.is_some_and(|(number, active)| active.epochs.contains(number));
                // The epoch was committed, but the process died before it promoted the checkpoint. Train the epoch
                // again on the labels that it was trained on: those of the version before its commit.
                if let Some(version) = made_epoch(writer.store, learner.numbers.get(&next))? {
                    let before = writer.store.at_version(Some(StoreVersion(version - 1)))?;
                    learner.dataset = read(&before)?;
                    learner.again = true;
                }
            }
            learner.training = Some(training);
        }
        Ok((learner, keeps))
    }
}

/// Returns the store version that committed an epoch.
fn made_epoch(store: &Store, epoch: Option<&u64>) -> Result<Option<u64>, StoreError> {
    let Some(epoch) = epoch else { return Ok(None) };
    let versions = store.versions()?;
    let of = versions.iter().find(|version| version.epoch == Some(*epoch));
    Ok(of.map(|version| version.version))
}
