//! `vaplan label`: feature shards and weak labels in, one store version of pseudo labels out.
//!
//! ```text
//! plan ─ what is asked, and its hash: is it in the store already?
//!   └─ flow ─ shards ── similarity ── stage ─┐                one timely dataflow
//!                                            ├─ labelling ─▶ results
//!             weak labels, cutoffs, previous ┘
//!        └─ commit ─ rows, bucket by bucket, one store version
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | rule, scale and thresholds: flags over file over defaults |
//! | [`plan`] | every input opened and checked, before any work |
//! | [`stage`] | scores of finished shards, kept until the commit: a killed run goes on where it was |
//! | [`job`] | shards to scored candidates; its reader threads are in `read` |
//! | [`flow`] | the dataflow |
//! | [`team`] | its workers: threads of one process, or of several |
//! | [`cluster`] | several processes that do one run |
//! | [`world`] | what labels are made by, of no single video; also read back from a store |
//! | [`kept`] | labels of persons and predictions that a store keeps |
//! | [`rows`], [`faults`] | what the tables say of one video |
//! | [`commit`] | results to one store version |

pub mod cluster;
pub mod commit;
pub mod error;
pub mod faults;
pub mod flow;
pub mod job;
pub mod kept;
pub mod plan;
mod read;
pub mod rows;
pub mod settings;
pub mod stage;
pub mod team;
pub mod world;

use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectRow, Severity, Split, VersionRow};
use vaplan_schemas::store::{CommitInfo, Store, WriteLock};

pub use error::LabelError;
use flow::Given;
use kept::Kept;
use plan::Plan;
use settings::SettingsRequest;
use team::Team;
use world::World;

/// What is asked of a labelling run.
#[derive(Clone, Debug)]
pub struct Request {
    /// Store to write; made where there is none.
    pub store: PathBuf,
    /// LLP-style folder.
    pub annotations: PathBuf,
    /// Names of the classes in order, one a line; none: see [`crate::ingest::annotations::Annotations::read`].
    pub classes: Option<PathBuf>,
    /// Visual features.
    pub visual: PathBuf,
    /// Visual text embeddings.
    pub visual_text: PathBuf,
    /// Audio features.
    pub audio: PathBuf,
    /// Audio text embeddings.
    pub audio_text: PathBuf,
    /// What was left out before there were features, for the `rejects` table.
    pub left_out: Vec<RejectRow>,
    /// Splits to label; the store then holds exactly these.
    pub splits: Vec<Split>,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// Rule, scales and thresholds.
    pub settings: SettingsRequest,
    /// Timely workers.
    pub workers: usize,
    /// What was asked, as a command line, for the `versions` table.
    pub command: String,
}

/// What a run tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another process writes to the store.
    Waiting(String),
    /// All inputs are found: shards in all, and those staged by a run before; in a cluster, those of this process.
    Planned {
        /// Shards of both modalities.
        shards: usize,
        /// Of these, staged already.
        staged: usize,
    },
    /// A shard is scored and staged.
    Shard {
        /// Segments it held.
        segments: u64,
    },
    /// Writing tables.
    Committing,
}

/// Told from any thread.
pub type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a run did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The version that holds the labels.
    pub version: VersionRow,
    /// None: the store held the answer to this very question already.
    pub done: Option<Done>,
}

/// Counts of a run that did something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Videos of the splits.
    pub videos: u64,
    /// Videos and modalities labelled.
    pub records: u64,
    /// Cells set in audio.
    pub audio: u64,
    /// Cells set in visual.
    pub visual: u64,
    /// Cells set in both.
    pub audio_visual: u64,
    /// Cells, set or not.
    pub cells: u64,
    /// Cells that differ from the version before.
    pub changes: u64,
    /// Rows left out.
    pub rejects: u64,
    /// Oddities that cost nothing.
    pub notes: u64,
    /// Rows of rejects and notes, for showing the first of them.
    pub rejected: Vec<RejectRow>,
}

/// Labels what is asked and commits it as one store version.
///
/// A second run of the same question does nothing. An interrupted run leaves the last version as it was; run again,
/// it redoes at most the shards that were in work.
///
/// # Errors
/// [`LabelError`]: an input that cannot be used at all, or a store that cannot be written. Rows and files that are
/// bad beside good ones are no error: they are in the `rejects` table and counted in [`Done`].
pub fn run(request: &Request, listener: &Listener) -> Result<Summary, LabelError> {
    run_plan(Plan::new(request)?, request, listener)
}

/// As [`run`], of a plan that was made of the request.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_plan(plan: Plan, request: &Request, listener: &Listener) -> Result<Summary, LabelError> {
    let store = Store::create(&request.store)?;
    let lock = store.lock(&mut |holder| listener(Progress::Waiting(holder.to_owned())))?;
    let ready = match begin(plan, store, lock)? {
        Begun::Held(version) => return Ok(Summary { version, done: None }),
        Begun::Ready(ready) => ready,
    };
    let all = (0..ready.given.plan.shards.len()).collect();
    let results = flow::run(&ready.given(all), Team::alone(request.workers), listener)?;
    ready.commit(request, results, listener)
}

/// Name of the folder of staged shards.
const STAGE: &str = "label";

/// A run that has its store.
enum Begun {
    /// The store held the answer already.
    Held(VersionRow),
    /// All that the dataflow starts from is read.
    Ready(Box<Ready>),
}

/// All that the dataflow starts from, and where its results go.
struct Ready {
    store: Store,
    lock: WriteLock,
    given: Given,
}

fn begin(mut plan: Plan, store: Store, lock: WriteLock) -> Result<Begun, LabelError> {
    tracing::debug!(videos = plan.videos.len(), shards = plan.shards.len(), "planned");
    let latest = store.latest()?;
    let before = latest.as_ref().map(World::read).transpose()?;
    let denoised = plan.denoised.take();
    if let (Some(latest), Some(before)) = (&latest, &before) {
        let same = |wanted: &(_, _)| (&before.denoising, &before.active) == (&wanted.0, &wanted.1);
        if latest.version().inputs == plan.inputs && denoised.as_ref().is_none_or(same) {
            return Ok(Begun::Held(latest.version().clone()));
        }
    }
    // What persons set and what was predicted holds until it is taken back, whatever is labelled anew.
    let kept = match (&latest, before) {
        (Some(latest), Some(before)) => {
            (plan.world.denoising, plan.world.active) = denoised.unwrap_or((before.denoising, before.active));
            plan.world.delivered = before.delivered;
            if plan.world.run.is_empty() {
                plan.world.run = before.run;
            }
            Kept::read(latest, &plan.world)?
        }
        _ => Kept::default(),
    };
    let given = Given {
        plan: Arc::new(plan),
        stage: stage::Stage::open(&store.staging_dir(STAGE))?,
        shards: Vec::new(),
        previous: latest
            .as_ref()
            .map(commit::Previous::read)
            .transpose()?
            .map(Arc::new),
        kept: Arc::new(kept),
    };
    Ok(Begun::Ready(Box::new(Ready { store, lock, given })))
}

impl Ready {
    /// For a process that reads the shards at these positions.
    fn given(&self, shards: Vec<usize>) -> Given {
        Given {
            shards,
            ..self.given.clone()
        }
    }

    /// Commits what the dataflow gave.
    fn commit(
        self,
        request: &Request,
        results: flow::Results,
        listener: &Listener,
    ) -> Result<Summary, LabelError> {
        tracing::debug!(
            labels = results.labels.len(),
            changes = results.changes.len(),
            "labelled"
        );
        listener(Progress::Committing);
        let Given {
            plan,
            stage,
            previous,
            ..
        } = &self.given;
        let asked = commit::Asked {
            info: CommitInfo {
                command: request.command.clone(),
                epoch: None,
                settings: plan.world.settings_hash(),
                models: plan.world.models_hash(),
                inputs: plan.inputs.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                videos: plan.videos.len(),
            },
            also: &|_| Ok(()),
        };
        let previous = previous.as_deref();
        let summary = commit::commit(&self.store, &self.lock, plan, &asked, results, previous)?;
        tracing::debug!(version = summary.version.version, "committed");
        stage.clear();
        Ok(summary)
    }
}

impl Done {
    fn count_rejects(&mut self, rows: Vec<RejectRow>) {
        self.rejects = rows.iter().filter(|row| row.severity == Severity::Reject).count() as u64;
        self.notes = rows.len() as u64 - self.rejects;
        self.rejected = rows;
    }
}
