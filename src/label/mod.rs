//! `vaplan label`: feature shards and weak labels in, one store version of pseudo labels out.
//!
//! `plan` opens and checks every input; [`engine`](crate::engine) reads, labels and commits; `cluster` lets several
//! processes share one run.

pub mod cluster;
pub(crate) mod plan;

use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectRow, Split, VersionRow};
use vaplan_schemas::store::{CommitInfo, Store, WriteLock};

use crate::engine::flow::{self, FlowInput};
use crate::engine::plan::Plan;
use crate::engine::workers::Team;
use crate::engine::{LabelSummary, Listener, Progress, commit, stage};
use crate::error::LabelError;
use crate::world::World;
use crate::world::kept::Kept;
use crate::world::settings::SettingsRequest;

/// Labels feature shards into a store: the inputs, the settings and where the labels go.
///
/// [`LabelRequest::new`] takes what every run needs and sets defaults for the rest. The program reads all paths when the
/// run begins.
#[derive(Clone, Debug)]
pub struct LabelRequest {
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

impl LabelRequest {
    /// A request for all splits with the method's default rule and thresholds, segments of 1 s, and one worker for each
    /// core.
    ///
    /// - `annotations`: a folder in LLP's format
    /// - `visual`, `audio`: folders of `<id>.npy` files of shape `(T, D)`, folders of Parquet shards, or Parquet files
    /// - `visual_text`, `audio_text`: text embeddings, npy of shape `(C, D)`, or Parquet
    pub fn new(
        store: impl Into<PathBuf>,
        annotations: impl Into<PathBuf>,
        (visual, visual_text): (impl Into<PathBuf>, impl Into<PathBuf>),
        (audio, audio_text): (impl Into<PathBuf>, impl Into<PathBuf>),
    ) -> LabelRequest {
        LabelRequest {
            store: store.into(),
            annotations: annotations.into(),
            classes: None,
            visual: visual.into(),
            visual_text: visual_text.into(),
            audio: audio.into(),
            audio_text: audio_text.into(),
            left_out: Vec::new(),
            splits: Split::ALL.to_vec(),
            segment_seconds: 1.0,
            settings: SettingsRequest::default(),
            workers: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            command: "vaplan::label".to_owned(),
        }
    }
}

/// Labels what is asked and commits it as one store version.
///
/// A second run of the same question does nothing. An interrupted run leaves the last version as it was; run again,
/// it redoes at most the shards that were in work.
///
/// # Errors
/// [`LabelError`]: an input that cannot be used at all, or a store that cannot be written. Rows and files that are
/// bad beside good ones are no error: they are in the `rejects` table and counted in [`LabelCounts`](crate::engine::LabelCounts).
pub fn run(request: &LabelRequest, listener: &Listener) -> Result<LabelSummary, LabelError> {
    run_plan(plan::open(request)?, request, listener)
}

/// As [`run`], of a plan that was made of the request.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_plan(
    plan: Plan,
    request: &LabelRequest,
    listener: &Listener,
) -> Result<LabelSummary, LabelError> {
    let store = Store::create(&request.store)?;
    let lock = store.lock(&mut |holder| listener.tell(Progress::Waiting(holder.to_owned())))?;
    let ready = match begin(plan, store, lock)? {
        Begun::Held(version) => return Ok(LabelSummary { version, done: None }),
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
    given: FlowInput,
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
    let given = FlowInput {
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
    fn given(&self, shards: Vec<usize>) -> FlowInput {
        FlowInput {
            shards,
            ..self.given.clone()
        }
    }

    /// Commits what the dataflow gave.
    fn commit(
        self,
        request: &LabelRequest,
        results: flow::Results,
        listener: &Listener,
    ) -> Result<LabelSummary, LabelError> {
        tracing::debug!(
            labels = results.labels.len(),
            changes = results.changes.len(),
            "labelled"
        );
        listener.check()?;
        listener.tell(Progress::Committing);
        let FlowInput {
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
