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
//! | `error` | the error of a run |
//! | `foreign` | finds out what another command changed since the last run |
//! | `encode` | encodes media into features, if the program is built with feature `encode` |

pub mod cluster;
pub mod commit;
pub mod config;
mod context;
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
use std::path::{Path, PathBuf};

use vaplan_schemas::StoreError;
use vaplan_schemas::rows::EpochRow;
use vaplan_schemas::store::{Snapshot, Store};

use self::commit::Writer;
use self::config::Config;
use self::context::RunContext;
pub use self::error::RunError;
use self::learner::OnLearnerProgress;
use self::ledger::{PLG, RunStage, StageKind};
pub use self::todo::Todo;
use self::todo::{label_request, latest};
use crate::calibrate::gate::DenoisingGain;
use crate::engine::Listener;
use crate::engine::cluster::resident::GraphProcesses;
use crate::engine::cluster::settings::ClusterSettings;
use crate::error::chain;
use crate::label;
use crate::parser::train::MODEL;
use crate::parser::training::BEST;
use crate::parser::{FeaturePaths, ModelSource, write_model};
use crate::world::World;

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
    /// The latest version.
    pub version: u64,
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
        let summary = processes.label(label::PlannedLabelling {
            plan,
            request: &label,
            listener: &listener,
        })?;
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
