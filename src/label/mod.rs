//! `vaplan label`: makes one store version of pseudo labels from feature shards and weak labels.
//!
//! `plan` opens and checks every input. [`engine`](crate::engine) reads, labels and commits. `cluster` lets several
//! processes share one run.

pub mod cluster;
pub(crate) mod plan;

use std::path::PathBuf;
use std::sync::Arc;

use vaplan_dataflows::outcome::Outcome;
use vaplan_schemas::rows::{RejectRow, Split, VersionRow};
use vaplan_schemas::store::{CommitInfo, Store, WriteLock};

use crate::engine::flow::{self, FlowInput};
use crate::engine::plan::Plan;
use crate::engine::score::ReadReport;
use crate::engine::workers::WorkerGroup;
use crate::engine::{LabelSummary, Listener, Progress, commit, stage};
use crate::error::LabelError;
use crate::ingest::features::ColumnNames;
use crate::world::World;
use crate::world::evidence::StoredEvidence;
use crate::world::settings::SettingsRequest;

/// A request to label feature shards into a store: the inputs, the settings and the store.
///
/// [`LabelRequest::new`] takes what every run needs and sets defaults for the rest. The program reads all paths when
/// the run begins.
#[derive(Clone, Debug)]
pub struct LabelRequest {
    /// The store to write; it is created if it is missing.
    pub store: PathBuf,
    /// The folder of annotations in LLP's format.
    pub annotations: PathBuf,
    /// A file with the names of the classes in order, one per line; `None`: see
    /// [`crate::ingest::annotations::Annotations::read`].
    pub classes: Option<PathBuf>,
    /// Visual features: a folder or a file.
    pub visual: PathBuf,
    /// A file of visual text embeddings.
    pub visual_text: PathBuf,
    /// Audio features: a folder or a file.
    pub audio: PathBuf,
    /// A file of audio text embeddings.
    pub audio_text: PathBuf,
    /// Input that was left out before there were features, for the `rejects` table.
    pub left_out: Vec<RejectRow>,
    /// The splits to label. The store then holds exactly these splits.
    pub splits: Vec<Split>,
    /// The length of a segment in seconds.
    pub segment_seconds: f64,
    /// The rule, scales and thresholds.
    pub settings: SettingsRequest,
    /// Whether the labels are committed also if most videos lose the labels of a modality, because their features are
    /// missing or cannot be used.
    pub allow_missing: bool,
    /// The names of the columns of feature shards.
    pub columns: ColumnNames,
    /// The number of timely workers.
    pub workers: usize,
    /// The command line, for the `versions` table.
    pub command: String,
}

impl LabelRequest {
    /// Makes a request for all splits with the method's default rule and thresholds, segments of 1 s, and one worker
    /// per core.
    ///
    /// - `annotations`: a folder in LLP's format
    /// - `visual`, `audio`: folders of `<id>.npy` files of shape `(T, D)`, folders of Parquet shards, or Parquet
    ///   files
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
            allow_missing: false,
            columns: ColumnNames::default(),
            workers: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            command: "vaplan::label".to_owned(),
        }
    }
}

/// Labels the request's inputs and commits the labels as one store version.
///
/// A second run of the same request does nothing. An interrupted run leaves the last version as it was. If the run is
/// started again, it repeats at most the shards that it was reading when it was interrupted.
///
/// # Errors
/// Returns [`LabelError`] if an input cannot be used at all, or if the store cannot be written. Bad rows and files
/// beside good ones are not an error: they are in the `rejects` table and counted in
/// [`LabelCounts`](crate::engine::LabelCounts).
pub fn run(request: &LabelRequest, listener: &Listener) -> Result<LabelSummary, LabelError> {
    run_plan(plan::open(request)?, request, listener)
}

/// Like [`run`], for a plan that was made from the request.
///
/// # Errors
/// Returns the same errors as [`run`].
pub(crate) fn run_plan(
    plan: Plan,
    request: &LabelRequest,
    listener: &Listener,
) -> Result<LabelSummary, LabelError> {
    let store = Store::create(&request.store)?;
    let lock = store.lock(&mut |holder| listener.tell(Progress::Waiting(holder.to_owned())))?;
    let ready = match begin(plan, store, lock)? {
        Preparation::Held(version) => return Ok(LabelSummary { version, done: None }),
        Preparation::Ready(ready) => ready,
    };
    let all = (0..ready.given.plan.shards.len()).collect();
    let (outcome, report) = flow::run(&ready.given(all), WorkerGroup::alone(request.workers), listener)?;
    ready.commit(request, outcome, report, listener)
}

/// The name of the folder of staged shards.
const STAGE: &str = "label";

/// A run that has opened and locked its store.
enum Preparation {
    /// The store already has the labels of this request, in this version.
    Held(VersionRow),
    /// All inputs of the dataflow are read.
    Ready(Box<PreparedLabelling>),
}

/// All inputs of the dataflow, and the store for its results.
struct PreparedLabelling {
    store: Store,
    lock: WriteLock,
    given: FlowInput,
}

fn begin(mut plan: Plan, store: Store, lock: WriteLock) -> Result<Preparation, LabelError> {
    tracing::debug!(videos = plan.videos.len(), shards = plan.shards.len(), "planned");
    let latest = store.latest()?;
    let before = latest.as_ref().map(World::read).transpose()?;
    let denoised = plan.denoised.take();
    if let (Some(latest), Some(before)) = (&latest, &before) {
        let same = |wanted: &(_, _)| (&before.denoising, &before.active) == (&wanted.0, &wanted.1);
        if latest.version().inputs == plan.inputs && denoised.as_ref().is_none_or(same) {
            return Ok(Preparation::Held(latest.version().clone()));
        }
    }
    // User labels and predictions stay valid until they are withdrawn, whatever is labelled again. So the new version
    // keeps them.
    let evidence = match (&latest, before) {
        (Some(latest), Some(before)) => {
            (plan.world.denoising, plan.world.active) = denoised.unwrap_or((before.denoising, before.active));
            plan.world.delivered = before.delivered;
            if plan.world.run.is_empty() {
                plan.world.run = before.run;
            }
            StoredEvidence::read(latest, &plan.world)?
        }
        _ => StoredEvidence::default(),
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
        evidence: Arc::new(evidence),
    };
    Ok(Preparation::Ready(Box::new(PreparedLabelling {
        store,
        lock,
        given,
    })))
}

impl PreparedLabelling {
    /// The inputs of a process that reads the shards at these positions.
    fn given(&self, shards: Vec<usize>) -> FlowInput {
        FlowInput {
            shards,
            ..self.given.clone()
        }
    }

    /// Commits the results of the dataflow.
    fn commit(
        self,
        request: &LabelRequest,
        outcome: Outcome,
        report: ReadReport,
        listener: &Listener,
    ) -> Result<LabelSummary, LabelError> {
        tracing::debug!(
            videos = outcome.videos.len(),
            changes = outcome.changes.len(),
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
        let asked = commit::CommitRequest {
            info: CommitInfo {
                command: request.command.clone(),
                epoch: None,
                settings: plan.world.settings_hash(),
                models: plan.world.models_hash(),
                inputs: plan.inputs.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                videos: plan.videos.len(),
            },
            allow_missing: request.allow_missing,
            also: &|_| Ok(()),
        };
        let mut unknown = plan.unknown.clone();
        unknown.add(report.unknown.clone());
        let previous = previous.as_deref();
        let summary = commit::commit(&self.store, &self.lock, plan, &asked, outcome, report, previous)?;
        tracing::debug!(version = summary.version.version, "committed");
        unknown.warn();
        stage.clear();
        Ok(summary)
    }
}
