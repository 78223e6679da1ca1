//! `vaplan run`: the whole graph, described by one file.
//!
//! ```text
//! media ─ encode ─┐
//! features ───────┴─ label ── store version ── resident graph ═ labels ─ train ─ predictions ─ PLD ═╗
//!                                                ▲     ║                                            ║
//!                                                ║     ╚═ an epoch: a store version                 ║
//!                                                ╚══════════════════════════════════════════════════╝
//! ```
//!
//! The features are read by a dataflow of their own, that of `label`. It commits a store version, from which a run that
//! was killed continues. Training, PLD and the rules of the labels are one second dataflow with a feedback edge. In
//! this dataflow each epoch is one step of time.
//!
//! | module | purpose |
//! |---|---|
//! | [`config`] | reads the file of a run |
//! | [`Todo`] | compares the file with the store, and lists the stages that are not done |
//! | [`ledger`] | records finished stages, with a hash of everything that each stage depends on |
//! | [`learner`] | runs the stages as steps of the graph |
//! | [`graph`] | the resident graph of a run, and its output |
//! | [`commit`] | commits a step as one store version |
//! | [`score`], [`table`] | make the final table |
//! | `error` | the error of a run |
//! | `foreign` | finds out what another command changed since the last run |
//! | `encode` | encodes media into features, if the program is built with feature `encode` |

pub mod commit;
pub mod config;
#[cfg(feature = "encode")]
pub mod encode;
mod error;
mod foreign;
pub mod graph;
pub mod learner;
pub mod ledger;
pub mod score;
pub mod table;
mod todo;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_schemas::rows::{EpochRow, Split};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::Epochs;
use vaplan_schemas::{StoreError, StoreVersion};

use self::commit::Writer;
use self::config::{Config, Schedule};
pub use self::error::RunError;
use self::graph::Graph;
use self::learner::{LearnerProgress, OnLearnerProgress, RuleChoice, RunLearner, StepReport};
use self::ledger::{PLD, PLG, RunStage, StageKind};
pub use self::todo::Todo;
use self::todo::{label_request, latest};
use crate::calibrate::CalibrateError;
use crate::calibrate::gate::DenoisingGain;
use crate::calibrate::sample::CalibrationSample;
use crate::engine::Listener;
use crate::engine::flow::Alone;
use crate::engine::resident::whole;
use crate::eval::EvalError;
use crate::label;
use crate::parser::train::MODEL;
use crate::parser::training::BEST;
use crate::parser::validate::Truths;
use crate::parser::{Dataset, FeaturePaths, ModelSource, TrainError, write_model};
use crate::world::evidence::last_epoch;
use crate::world::{Both, World};

/// Folder in a store with the checkpoints of its run. Each stage that trains has a folder of its name.
const CHECKPOINTS: &str = "_vaplan/run";

/// A run, as a caller requests it.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The file.
    pub config: PathBuf,
    /// Number of timely workers.
    pub workers: usize,
    /// Number of threads of ONNX Runtime. They are used only if media are encoded.
    pub threads: NonZeroUsize,
    /// Device to compute on.
    pub device: tch::Device,
    /// Whether the run takes back what another command changed of the labels since the last run.
    pub force: bool,
    /// After how much work an early version is committed while media are encoded. `None`: never.
    #[cfg(feature = "encode")]
    pub commit_every: Option<crate::label::early::CommitEvery>,
    /// Command line of the run, for the `versions` table.
    pub command: String,
}

/// Progress of a run.
#[derive(Debug)]
pub enum RunProgress<'a> {
    /// A stage begins, or an earlier run has finished it.
    Stage {
        /// Name of the stage.
        name: &'a str,
        /// Whether an earlier run has finished the stage.
        done: bool,
    },
    /// Another process writes to the store, and the run waits for it. The text names that process.
    Waiting(&'a str),
    /// An epoch was committed.
    Epoch {
        /// The row of the epoch in table `epochs`.
        row: &'a EpochRow,
        /// Whether the epoch is the best one so far of its training.
        better: bool,
    },
    /// A denoising rule was chosen on split val. Its gain tells whether the labels are denoised.
    Calibrated(&'a DenoisingGain),
    /// The labels were denoised by an epoch.
    Denoised {
        /// Number of the epoch in the store.
        epoch: u64,
        /// Number of labels that were set.
        set: u64,
        /// Number of labels that were unset.
        unset: u64,
    },
}

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Number of store versions that the run committed.
    pub versions: u64,
    /// The final table.
    pub table: table::ScoreTable,
    /// Rejected rows and notes of the labelling in this run.
    pub rejected: Vec<vaplan_schemas::rows::RejectRow>,
}

/// Callbacks that receive the progress of a run.
pub struct RunListener<'a> {
    /// Called on the caller's thread.
    pub progress: &'a mut dyn FnMut(RunProgress<'_>),
    /// Called with the progress of encoding, on any thread.
    #[cfg(feature = "encode")]
    pub encode: crate::encode::EncodeListener,
    /// Called with the progress of labelling, on any thread.
    pub label: Listener,
    /// Called with the progress of the training thread, on that thread.
    pub step: OnLearnerProgress,
}

/// Does the work that the file of a run describes, and leaves out the stages that are done.
///
/// A run that was killed at any moment and is started again continues at its stage, shard and epoch. Its tables equal
/// those of a run that was not killed.
///
/// # Errors
/// Returns [`RunError`] if the run cannot continue. The versions that it committed stay in the store.
pub fn run(request: &RunRequest, listener: RunListener<'_>) -> Result<Summary, RunError> {
    let RunListener {
        progress,
        #[cfg(feature = "encode")]
            encode: encoding,
        label: listener,
        step,
    } = listener;
    let (config, text) = Config::read(&request.config)?;
    #[cfg_attr(not(feature = "encode"), expect(unused_mut, reason = "media fill it"))]
    let mut asked = label_request(&config, request)?;
    // Hold the encoded media until the end, because they hold the lock of their folder: another process could otherwise
    // change the features while the run reads them.
    #[cfg(feature = "encode")]
    let encoded = encode::media(&config, request, &asked, &encoding)?;
    #[cfg(feature = "encode")]
    if let Some(encoded) = &encoded {
        encoded.fill(&mut asked);
    }
    let Todo {
        config,
        text,
        mut plan,
        seen,
        label,
        paths,
        stages,
        mut ledger,
        labels,
        denoised,
        for_good,
        foreign,
    } = Todo::of(config, text, asked)?;
    if !foreign.is_empty() && !request.force {
        return Err(RunError::Foreign {
            store: config.store,
            changes: foreign.join("; "),
        });
    }
    let before = latest(&config.store)?.map_or(0, |snapshot| snapshot.version().version);
    let mut rejected = Vec::new();
    progress(RunProgress::Stage {
        name: "label",
        done: !labels,
    });
    if labels {
        if for_good {
            ledger.active = None;
        }
        let state = plan.denoised.clone().unwrap_or_default();
        plan.world.run = commit::remembered(&text, &ledger, &plan.world, &state);
        let summary = label::run_plan(plan, &label, &mut Alone, &listener)?;
        rejected = summary.done.map(|done| done.rejected).unwrap_or_default();
    } else {
        plan.seen.remember();
    }
    seen.remember();
    let store = Store::open(&config.store)?;
    let snapshot = store.at_version(None)?;
    let mut writer = Writer::new(&store, &snapshot, (text.clone(), request.command.clone()), ledger)?;
    let mut open: Vec<RunStage> = Vec::new();
    for stage in &stages {
        let done = writer.ledger.done(stage).is_some();
        if done {
            writer.score_again(stage, config.train.task)?;
        }
        if stage.name != PLG {
            progress(RunProgress::Stage {
                name: &stage.name,
                done,
            });
        }
        open.extend((!done).then(|| stage.clone()));
    }
    let learnt: VecDeque<RunStage> = open
        .iter()
        .filter(|stage| stage.kind != StageKind::Score)
        .cloned()
        .collect();
    if open.is_empty() {
        write_models(&config, &stages, &paths, &snapshot)?;
        return Ok(Summary {
            versions: writer.version - before,
            table: table::ScoreTable::of(&stages, &writer.ledger, &config.store.join(CHECKPOINTS)),
            rejected,
        });
    }
    let pld = config.denoising().map_err(RunError::Stopped)?;
    let context = RunContext {
        config: &config,
        request,
        paths: &paths,
        listener: &listener,
        keeps: denoised.1.is_some() && writer.denoised() == denoised,
        for_good,
        pld,
    };
    match learnt.is_empty() {
        true => context.score(&mut writer, &open)?,
        false => context.learn(&mut writer, &snapshot, (&open, learnt), step, progress)?,
    }
    writer.remember()?;
    let wanted = writer.wanted(&stages, pld);
    if wanted != writer.denoised() {
        // A baseline was trained after all other stages, and learnt the labels of PLG. Label once more, so that the
        // last version has the denoised labels that the file asks for.
        let mut plan = label::plan::open(&label)?;
        plan.world.run = commit::remembered(&text, &writer.ledger, &plan.world, &wanted);
        plan.denoised = Some(wanted);
        label::run_plan(plan, &label, &mut Alone, &listener)?;
    }
    write_models(&config, &stages, &paths, &snapshot)?;
    Ok(Summary {
        versions: store.at_version(None)?.version().version - before,
        table: table::ScoreTable::of(&stages, &writer.ledger, &config.store.join(CHECKPOINTS)),
        rejected,
    })
}

/// Writes the folder of the trained model of each training that has a best epoch.
fn write_models(
    config: &Config,
    stages: &[RunStage],
    features: &FeaturePaths,
    snapshot: &Snapshot,
) -> Result<(), RunError> {
    let segment_seconds = World::read(snapshot)?.segment_seconds;
    for stage in stages {
        let folder = config.store.join(CHECKPOINTS).join(&stage.name);
        let checkpoint = &folder.join(BEST);
        if let StageKind::Train { settings, .. } = &stage.kind
            && checkpoint.exists()
        {
            let source = ModelSource {
                checkpoint,
                settings,
                features,
                segment_seconds,
            };
            write_model(&folder.join(MODEL), &source)?;
        }
    }
    Ok(())
}

/// State that the stages of a run share.
struct RunContext<'a> {
    config: &'a Config,
    request: &'a RunRequest,
    paths: &'a FeaturePaths,
    listener: &'a Listener,
    keeps: bool,
    for_good: bool,
    pld: Both<Option<DenoisingRule>>,
}

impl RunContext<'_> {
    /// Scores the labels of the latest version for the stages that only score.
    fn score(&self, writer: &mut Writer<'_>, open: &[RunStage]) -> Result<(), RunError> {
        for stage in open.iter().filter(|stage| stage.kind == StageKind::Score) {
            writer.scored(stage, self.config.train.task)?;
        }
        Ok(())
    }

    /// Trains and denoises, one step of the graph after the other, and commits each step.
    fn learn(
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
            Graph::start(&part, first, keeps, self.request.workers, Box::new(learner))?;
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
            folder: self.config.store.join(CHECKPOINTS),
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
