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
//! | [`cluster`] | the processes of a cluster other than process 0 |
//! | [`Todo`] | compares the file with the store, and lists the stages that are not done |
//! | [`ledger`] | records finished stages, with a hash of everything that each stage depends on |
//! | [`learner`] | runs the stages as steps of the graph |
//! | [`graph`] | the resident graph of a run, and its output |
//! | [`commit`] | commits a step as one store version |
//! | [`score`], [`table`] | make the final table |
//! | `foreign` | finds out what another command changed since the last run |
//! | `encode` | encodes media into features, if the program is built with feature `encode` |

pub mod cluster;
pub mod commit;
pub mod config;
#[cfg(feature = "encode")]
pub mod encode;
mod foreign;
pub mod graph;
pub mod learner;
pub mod ledger;
pub mod score;
pub mod table;
mod todo;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_schemas::rows::EpochRow;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::Epochs;
use vaplan_schemas::{StoreError, StoreVersion};

use self::commit::Writer;
use self::config::Config;
use self::graph::Graph;
use self::learner::{LearnerProgress, OnLearnerProgress, RunLearner, StepReport};
use self::ledger::{PLD, PLG, RunStage, StageKind};
pub use self::todo::Todo;
use self::todo::{label_request, latest};
use crate::engine::Listener;
use crate::engine::cluster::resident::GraphProcesses;
use crate::engine::cluster::settings::ClusterSettings;
use crate::engine::resident::whole;
use crate::error::{LabelError, chain};
use crate::eval::EvalError;
use crate::label;
use crate::parser::train::MODEL;
use crate::parser::training::BEST;
use crate::parser::validate::Truths;
use crate::parser::{Dataset, FeaturePaths, ModelSource, TrainError, write_model};
use crate::world::evidence::last_epoch;
use crate::world::{Both, World};

/// Folder of the checkpoints of a store's run, in `_vaplan` or in the scratch folder. Each stage that trains has a folder of its
/// name.
fn checkpoints(store: &Path) -> Result<PathBuf, StoreError> {
    Ok(Store::own_dir_at(store)?.join("run"))
}

/// A run, as a caller requests it.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The file.
    pub config: PathBuf,
    /// Number of timely workers.
    pub workers: usize,
    /// How this process takes part in a cluster. `None`: this process works alone.
    pub cluster: Option<ClusterSettings>,
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
    /// The latest version.
    pub version: u64,
    /// The final table.
    pub table: table::ScoreTable,
    /// Rejected rows and notes of the labelling in this run.
    pub rejected: Vec<vaplan_schemas::rows::RejectRow>,
}

/// Error of a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A file cannot be used.
    #[error("`{path}`: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected instead.
        problem: String,
    },
    /// Media cannot be encoded.
    #[cfg(feature = "encode")]
    #[error(transparent)]
    Encode(#[from] crate::encode::EncodeError),
    /// The labels cannot be made.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The parser cannot be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The labels or predictions cannot be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process committed a version during the run. The run stops, because its graph holds the labels of the
    /// version before.
    #[error(
        "version {found} was made meanwhile by `{command}`, expected none after {expected}: run again, it goes on"
    )]
    Changed {
        /// Last version that this run read or committed.
        expected: u64,
        /// Latest version of the store.
        found: u64,
        /// Command line that made the latest version.
        command: String,
    },
    /// Another command changed the labels since the last run, and the run would take the change back.
    #[error(
        "another command changed the labels of store `{store}` since the last run, and this run would take the change \
         back: {changes}. Write these values into the file of the run to keep them, or add `--force` to take them back"
    )]
    Foreign {
        /// Store of the run.
        store: PathBuf,
        /// What differs from the file.
        changes: String,
    },
    /// The dataflow ended early.
    #[error("the run stopped early: {0}")]
    Stopped(String),
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
    let (_, text) = Config::read(&request.config)?;
    let asked = cluster::asked(request, &text);
    let processes = GraphProcesses::join(request.cluster.as_ref(), request.workers, asked)?;
    let done = run_in(request, &processes, listener);
    processes.end(match &done {
        Ok(summary) => Ok(summary.version),
        Err(error) => Err(chain(error)),
    });
    done
}

/// Like [`run`], for one process or process 0 of several.
fn run_in(
    request: &RunRequest,
    processes: &GraphProcesses,
    listener: RunListener<'_>,
) -> Result<Summary, RunError> {
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
        let summary = processes.label(label::PlannedLabelling {
            plan,
            request: &label,
            listener: &listener,
        })?;
        rejected = summary.done.map(|done| done.rejected).unwrap_or_default();
    }
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
            version: writer.version,
            table: table::ScoreTable::of(&stages, &writer.ledger, &checkpoints(&config.store)?),
            rejected,
        });
    }
    let pld = config.denoising().map_err(RunError::Stopped)?;
    let context = RunContext {
        config: &config,
        request,
        processes,
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
        processes.label(label::PlannedLabelling {
            plan,
            request: &label,
            listener: &listener,
        })?;
    }
    write_models(&config, &stages, &paths, &snapshot)?;
    let version = store.at_version(None)?.version().version;
    Ok(Summary {
        versions: version - before,
        version,
        table: table::ScoreTable::of(&stages, &writer.ledger, &checkpoints(&config.store)?),
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
        let folder = checkpoints(&config.store)?.join(&stage.name);
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
    /// The processes that have workers of the graph.
    processes: &'a GraphProcesses,
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
        let (mut graph, stepped) =
            Graph::start(&part, pld, keeps, self.processes.graph(true)?, Box::new(learner))?;
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
        let mut reading = |_| ();
        let dataset = Dataset::read(snapshot, self.paths, &mut reading)?;
        let best = &writer.ledger.stages;
        let epochs = snapshot.read::<Epochs>()?;
        on_progress(LearnerProgress::Read);
        let mut learner = RunLearner {
            truths: Truths::read(snapshot)?,
            store: writer.store.clone(),
            world: part.world().clone(),
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
                    learner.dataset = Dataset::read(&before, self.paths, &mut reading)?;
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
