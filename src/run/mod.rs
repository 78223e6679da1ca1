//! `vaplan run`: the whole graph, from one file.
//!
//! ```text
//! media ─ encode ─┐
//! features ───────┴─ label ── store version ── resident graph ═ labels ─ train ─ predictions ─ PLD ═╗
//!                                                ▲     ║                                            ║
//!                                                ║     ╚═ an epoch: a store version                 ║
//!                                                ╚══════════════════════════════════════════════════╝
//! ```
//!
//! Features are read by a dataflow of their own (that of `label`), whose store version is where a killed run goes on
//! from; training, PLD and the label logic are one dataflow with a feedback edge, in which an epoch is a step of the time.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | what is asked: one TOML file |
//! | [`Todo`] | what there is to do |
//! | [`ledger`] | what is done, by the hash of what it depends on |
//! | [`learner`] | the stages of a run as steps of the graph |
//! | [`graph`] | the graph, and what it says |
//! | [`commit`] | a step to a store version |
//! | [`score`], [`table`] | the final table |
//! | `encode` | media to features, where the program can |

pub mod commit;
pub mod config;
#[cfg(feature = "encode")]
pub mod encode;
pub mod graph;
pub mod learner;
pub mod ledger;
pub mod score;
pub mod table;
mod todo;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use vaplan_dataflows::pld::Pld;
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
use crate::engine::resident::whole;
use crate::error::LabelError;
use crate::eval::EvalError;
use crate::label;
use crate::parser::validate::Truths;
use crate::parser::{Dataset, FeaturePaths, TrainError};
use crate::world::Both;
use crate::world::kept::last_epoch;

/// What is asked of a run.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The file.
    pub config: PathBuf,
    /// Timely workers.
    pub workers: usize,
    /// Threads of ONNX Runtime, if media are encoded.
    pub threads: NonZeroUsize,
    /// Where to compute.
    pub device: tch::Device,
    /// What was asked, as a command line, for the `versions` table.
    pub command: String,
}

/// What a run tells.
#[derive(Debug)]
pub enum RunProgress<'a> {
    /// A stage is begun, or was done before.
    Stage {
        /// Its name.
        name: &'a str,
        /// It was done before.
        done: bool,
    },
    /// Another process writes to the store.
    Waiting(&'a str),
    /// An epoch is in the store.
    Epoch {
        /// As there.
        row: &'a EpochRow,
        /// It is the best so far of its training.
        better: bool,
    },
    /// Labels are denoised by an epoch: cells set and unset.
    Denoised {
        /// Epoch.
        epoch: u64,
        /// Cells that were set.
        set: u64,
        /// Cells that were unset.
        unset: u64,
    },
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Versions made.
    pub versions: u64,
    /// The final table.
    pub table: table::ScoreTable,
    /// Rows that labelling left out, of this run.
    pub rejected: Vec<vaplan_schemas::rows::RejectRow>,
}

/// What keeps a run from being done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A file that cannot be used.
    #[error("`{path}`: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// Media cannot be encoded.
    #[cfg(feature = "encode")]
    #[error(transparent)]
    Encode(#[from] crate::encode::EncodeError),
    /// Labels cannot be made.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The parser cannot be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// What there is cannot be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Someone else wrote meanwhile.
    #[error(
        "version {found} was made meanwhile by `{command}`, expected none after {expected}: run again, it goes on"
    )]
    Changed {
        /// Last version of this run.
        expected: u64,
        /// Last version there is.
        found: u64,
        /// What made it.
        command: String,
    },
    /// The dataflow ended early.
    #[error("the run stopped early: {0}")]
    Stopped(String),
}

/// RunListener what a run does; [`OnLearnerProgress`] what its training thread does, from that thread.
pub struct RunListener<'a> {
    /// On the caller's thread.
    pub progress: &'a mut dyn FnMut(RunProgress<'_>),
    /// Of encoding, from any thread.
    #[cfg(feature = "encode")]
    pub encode: crate::encode::EncodeListener,
    /// Of labelling, from any thread.
    pub label: Listener,
    /// Of the training thread.
    pub step: OnLearnerProgress,
}

/// Does what a file asks; what is done already is not done again.
///
/// Killed at any moment and run again, it goes on at the stage, shard and epoch where it was, to the same tables.
///
/// # Errors
/// [`RunError`]; the last store version is then what was done.
pub fn run(request: &RunRequest, told: RunListener<'_>) -> Result<Summary, RunError> {
    let RunListener {
        progress,
        #[cfg(feature = "encode")]
            encode: encoding,
        label: listener,
        step,
    } = told;
    let (config, text) = Config::read(&request.config)?;
    #[cfg_attr(not(feature = "encode"), expect(unused_mut, reason = "media fill it"))]
    let mut asked = label_request(&config, request);
    // Held until the end: no one else encodes into the store meanwhile.
    #[cfg(feature = "encode")]
    let encoded = encode::media(&config, request, &encoding)?;
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
    } = Todo::of(config, text, asked)?;
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
        plan.world.run = commit::remembered(&text, &ledger);
        let summary = label::run_plan(plan, &label, &listener)?;
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
        return Ok(Summary {
            versions: writer.version - before,
            table: table::ScoreTable::of(&stages, &writer.ledger),
            rejected,
        });
    }
    let pld = config.pld().map_err(RunError::Stopped)?;
    let begun = Begun {
        config: &config,
        request,
        paths: &paths,
        listener: &listener,
        keeps: denoised.1.is_some() && writer.denoised() == denoised,
        for_good,
        pld,
    };
    match learnt.is_empty() {
        true => begun.score(&mut writer, &open)?,
        false => begun.learn(&mut writer, &snapshot, (&open, learnt), step, progress)?,
    }
    writer.remember()?;
    let wanted = writer.wanted(&stages, pld);
    if wanted != writer.denoised() {
        // A baseline learnt the labels of PLG after all else was done.
        let mut plan = label::plan::open(&label)?;
        plan.world.run = commit::remembered(&text, &writer.ledger);
        plan.denoised = Some(wanted);
        label::run_plan(plan, &label, &listener)?;
    }
    Ok(Summary {
        versions: store.at_version(None)?.version().version - before,
        table: table::ScoreTable::of(&stages, &writer.ledger),
        rejected,
    })
}

/// What the stages of a run share.
struct Begun<'a> {
    config: &'a Config,
    request: &'a RunRequest,
    paths: &'a FeaturePaths,
    listener: &'a Listener,
    keeps: bool,
    for_good: bool,
    pld: Both<Option<Pld>>,
}

impl Begun<'_> {
    /// Scores labels as they are.
    fn score(&self, writer: &mut Writer<'_>, open: &[RunStage]) -> Result<(), RunError> {
        for stage in open.iter().filter(|stage| stage.kind == StageKind::Score) {
            writer.scored(stage, self.config.train.task)?;
        }
        Ok(())
    }

    /// Trains and denoises, epoch by epoch.
    fn learn(
        &self,
        writer: &mut Writer<'_>,
        snapshot: &Snapshot,
        (open, learnt): (&[RunStage], VecDeque<RunStage>),
        step: OnLearnerProgress,
        progress: &mut dyn FnMut(RunProgress<'_>),
    ) -> Result<(), RunError> {
        // One of each a step: the learner waits for its commit.
        let (reports, heard) = crossbeam::channel::bounded(1);
        let (commits, committed) = crossbeam::channel::bounded(1);
        let part = whole(writer.store, snapshot, self.request.workers, self.listener)?;
        let (learner, keeps) = self.learner(writer, snapshot, &part, learnt, (reports, committed), step)?;
        let pld = self.pld;
        let (mut graph, stepped) = Graph::start(&part, pld, keeps, self.request.workers, Box::new(learner))?;
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
                // Fails only where the learner has ended.
                let _ = commits.send(version);
            }
            self.score_one(writer, open, PLD)
        };
        let done = steps();
        // The learner waits for commits: where none are to come, it must know before the graph waits for its end.
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
        part: &crate::engine::part::Part,
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
            folder: self.config.store.join("_vaplan/run"),
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
        if let StageKind::Train { every, settings } = &first.kind {
            let mut training = learner.begin(&first)?;
            if !keeps && every.is_some_and(|every| every.was_due(training.done(), settings.epochs)) {
                // The labels it had denoised are not there any more.
                training.forget()?;
                training = learner.begin(&first)?;
            }
            let next = (first.key.clone(), training.done() + 1);
            if every.is_some() && keeps {
                let active = &writer.denoised().1;
                let by_next = learner.numbers.get(&next).zip(active.as_ref());
                // From the start, it learns the labels as they were.
                keeps = training.resumed().is_some()
                    || by_next.is_some_and(|(number, active)| active.epochs.contains(number));
                // Its commit is there, its checkpoint is not: it is learnt again, from the labels that it was learnt from.
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

/// The version that an epoch was committed with.
fn made_epoch(store: &Store, epoch: Option<&u64>) -> Result<Option<u64>, StoreError> {
    let Some(epoch) = epoch else { return Ok(None) };
    let versions = store.versions()?;
    let of = versions.iter().find(|version| version.epoch == Some(*epoch));
    Ok(of.map(|version| version.version))
}
