//! `vaplan label`: makes one store version of pseudo labels from feature shards and weak labels.
//!
//! `plan` opens and checks every input. [`fit`] chooses thresholds from the weak labels, and `import` makes inputs of the labels
//! of another program. [`engine`](crate::engine) reads, labels and commits. `cluster` lets several processes share one run.
//! `early` commits the videos that are encoded already while others are being encoded.

pub mod cluster;
#[cfg(feature = "encode")]
pub mod early;
pub mod fit;
mod import;
pub(crate) mod plan;

pub use self::import::import_labels;

use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectRow, Split, VersionRow};
use vaplan_schemas::store::{CommitInfo, Snapshot, Store, WriteLock};

use crate::engine::before::VersionBefore;
use crate::engine::cluster::resident::GroupWork;
use crate::engine::commit::VersionWriter;
use crate::engine::flow::{self, Alone, FlowInput};
use crate::engine::group::{LabellingGroup, StagedShare};
use crate::engine::passes::{Passes, bucketed_videos};
use crate::engine::plan::{DenoisingState, Plan};
use crate::engine::stage::Stage;
use crate::engine::{LabelSummary, Listener, Progress};
use crate::error::LabelError;
use crate::ingest::features::ColumnNames;
use crate::world::settings::SettingsRequest;
use crate::world::{Both, World};

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
    /// The folders of the labels of another program that the features of audio and visual were made of: see [`import_labels`].
    pub label_folders: Both<Option<PathBuf>>,
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
            label_folders: [None, None],
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
    run_plan(plan::open(request)?, request, &mut Alone, listener)
}

/// Like [`run`], for a plan that was made from the request, and for one process or process 0 of several.
///
/// # Errors
/// Returns the same errors as [`run`].
pub(crate) fn run_plan(
    plan: Plan,
    request: &LabelRequest,
    group: &mut impl LabellingGroup,
    listener: &Listener,
) -> Result<LabelSummary, LabelError> {
    let store = Store::create(&request.store)?;
    let lock = group.lock(&store, listener)?;
    let seen = plan.seen.clone();
    let ready = match begin(plan, store, lock)? {
        Preparation::Held(version) => {
            group.held(version.version);
            seen.remember();
            return Ok(LabelSummary {
                version: *version,
                done: None,
            });
        }
        Preparation::Ready(ready) => ready,
    };
    let before = ready.before.as_ref();
    let before = before.map(|(snapshot, _)| snapshot.version().version);
    let (store, plan, stage) = (&ready.store, &ready.plan, &ready.stage);
    let staged = group.stage_all(store, before, plan, stage, request.workers, listener)?;
    ready.commit(request, staged, group, listener)
}

/// A planned labelling, for the processes of a run.
pub(crate) struct PlannedLabelling<'a> {
    pub(crate) plan: Plan,
    pub(crate) request: &'a LabelRequest,
    pub(crate) listener: &'a Listener,
}

impl GroupWork<LabelSummary> for PlannedLabelling<'_> {
    fn run(self, group: &mut impl LabellingGroup) -> Result<LabelSummary, LabelError> {
        run_plan(self.plan, self.request, group, self.listener)
    }
}

/// The name of the folder of staged shards.
pub(crate) const STAGE: &str = "label";

/// A run that has opened and locked its store.
enum Preparation {
    /// The store already has the labels of this request, in this version.
    Held(Box<VersionRow>),
    /// The run can begin.
    Ready(Box<PreparedLabelling>),
}

/// The plan of a run, the version before, and the store for the results.
struct PreparedLabelling {
    store: Store,
    lock: WriteLock,
    plan: Arc<Plan>,
    stage: Stage,
    /// The version before and its classes.
    before: Option<(Snapshot, Vec<Arc<str>>)>,
}

fn begin(mut plan: Plan, store: Store, lock: WriteLock) -> Result<Preparation, LabelError> {
    tracing::debug!(videos = plan.videos.len(), shards = plan.shards.len(), "planned");
    let latest = store.latest()?;
    let before = latest.as_ref().map(World::read).transpose()?;
    let denoised = plan.denoised.take();
    if let (Some(latest), Some(before)) = (&latest, &before) {
        let same = |wanted: &(_, _)| (&before.denoising, &before.active) == (&wanted.0, &wanted.1);
        if latest.version().inputs == plan.inputs && denoised.as_ref().is_none_or(same) {
            return Ok(Preparation::Held(Box::new(latest.version().clone())));
        }
    }
    let before = match (latest, before) {
        (Some(latest), Some(before)) => {
            let classes = before.classes.clone();
            keep(&mut plan, before, denoised);
            Some((latest, classes))
        }
        _ => None,
    };
    Ok(Preparation::Ready(Box::new(PreparedLabelling {
        stage: Stage::open(&store.staging_dir(STAGE))?,
        plan: Arc::new(plan),
        store,
        lock,
        before,
    })))
}

/// Keeps what the new version takes over from the version before: user labels and predictions stay valid until they are
/// withdrawn, whatever is labelled again.
pub(crate) fn keep(plan: &mut Plan, before: World, denoised: Option<DenoisingState>) {
    (plan.world.denoising, plan.world.active) = denoised.unwrap_or((before.denoising, before.active));
    plan.world.delivered = before.delivered;
    if plan.world.run.is_empty() {
        plan.world.run = before.run;
    }
    if plan.world.fitted.is_none() {
        plan.world.fitted = before.fitted;
    }
}

impl PreparedLabelling {
    /// Divides the run into passes, after the shards of this process at these positions were staged.
    fn input(
        &self,
        shards: Vec<usize>,
        workers: usize,
        group: &impl LabellingGroup,
    ) -> Result<(FlowInput, u32), LabelError> {
        let (plan, stage) = (&self.plan, &self.stage);
        let buckets = self.store.next_buckets(bucketed_videos(plan.videos.len()))?;
        let share = group.share(workers, buckets);
        let before = match &self.before {
            Some((latest, classes)) => VersionBefore::open(latest, classes, plan, stage, buckets, share)?,
            None => VersionBefore::none(plan, stage, buckets, share),
        };
        let passes = Passes::new(plan, buckets, share.processes(), &before.videos_by_bucket()?);
        tracing::debug!(buckets, passes = passes.count(), "scored");
        let input = FlowInput {
            plan: plan.clone(),
            stage: stage.clone(),
            shards,
            passes,
            before: Arc::new(before),
            share,
        };
        Ok((input, buckets))
    }

    /// Labels all passes, and commits the result.
    fn commit(
        self,
        request: &LabelRequest,
        staged: StagedShare,
        group: &mut impl LabellingGroup,
        listener: &Listener,
    ) -> Result<LabelSummary, LabelError> {
        let StagedShare { shards, mut report } = staged;
        let (input, buckets) = self.input(shards, request.workers, group)?;
        listener.tell(Progress::Committing);
        let plan = &self.plan;
        let info = CommitInfo {
            command: request.command.clone(),
            epoch: None,
            settings: plan.world.settings_hash(),
            models: plan.world.models_hash(),
            inputs: plan.inputs.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            videos: bucketed_videos(plan.videos.len()),
            ..CommitInfo::default()
        };
        let before = input.before.clone();
        let mut writer = VersionWriter::begin(&self.store, &self.lock, info, plan, before.classes(), false)?;
        let team = group.workers(&input.passes, buckets, writer.version().0, request.workers)?;
        flow::label(input, team, group, &mut |pass| {
            listener.check()?;
            writer.write(pass)
        })?;
        tracing::debug!("labelled");
        group.gather(&mut writer, &mut report)?;
        let mut unknown = plan.unknown.clone();
        unknown.add(report.unknown.clone());
        let summary = writer.finish(report, request.allow_missing, |_| Ok(()))?;
        tracing::debug!(version = summary.version.version, "committed");
        unknown.warn();
        self.stage.clear();
        plan.seen.remember();
        let rejects = summary.done.as_ref().map_or(0, |done| done.rejects);
        group.committed(summary.version.version, rejects);
        Ok(summary)
    }
}
