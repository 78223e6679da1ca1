//! Reads and scores the shards of a run, and the job that all workers and readers of the run share.
//!
//! ```text
//! reader thread ═ bounded channel ═▶ shards ── similarity ── complete shards ─▶ stage, or candidates
//! ```
//!
//! There is one of each per worker. A run of all videos stages its shards ([`stage_shards`]), so that no candidate stays
//! in memory. A change of some videos needs the candidates of few shards in memory ([`score`]).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vaplan_dataflows::similarity::{Scored, similarity};
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::workers::panic_point;
use vaplan_dataflows::{Candidate, VideoId, workers};
use vaplan_schemas::rows::RejectRow;

use super::plan::Plan;
#[cfg(feature = "encode")]
use super::plan::PlannedShard;
use super::read::read;
#[cfg(feature = "encode")]
use super::read::read_given;
use super::stage::{ShardHead, Stage, StagedShard};
use super::unknown::UnknownVideos;
use super::{Listener, Progress};
use crate::error::LabelError;

/// The state that all workers and readers of a run share.
pub(super) struct ScoringJob {
    pub(super) plan: Arc<Plan>,
    /// The stage for finished shards; `None` if their candidates stay in memory.
    stage: Option<Stage>,
    listener: Listener,
    /// Positions in the plan of the shards to read.
    pub(super) pending: Vec<usize>,
    pub(super) next: AtomicUsize,
    finished: AtomicUsize,
    cancelled: AtomicBool,
    error: Mutex<Option<LabelError>>,
    read: Mutex<ReadReport>,
    /// The candidates of finished shards, if there is no stage.
    candidates: Mutex<Vec<(VideoId, Candidate)>>,
    /// Called with the staging key of each finished shard.
    on_finished: Option<OnFinished>,
}

/// A function that is called with the staging key of a finished shard. Any worker may call it.
type OnFinished = Box<dyn Fn(&str) + Send + Sync>;

/// The output of reading and scoring besides the candidates. The order of the entries is not defined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadReport {
    /// Rejected rows and notes of reading and scoring.
    pub rejects: Vec<RejectRow>,
    /// Features in Parquet files that belong to no annotated video.
    pub unknown: UnknownVideos,
}

/// The role of a batch in its shard.
#[derive(Clone, Debug)]
pub(super) enum BatchTag {
    /// The batch has rows of the shard.
    Rows,
    /// The shard with this staging key is read to its end. The reader did not emit the rest of its rows.
    End(Arc<str>, LeftOut),
}

/// The rows of a shard that its reader did not emit.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Rejected rows and notes.
    pub rejects: Vec<RejectRow>,
    /// Features that belong to no annotated video.
    pub unknown: UnknownVideos,
}

impl ScoringJob {
    /// Makes the job for the shards at these positions. The job does not read the shards among them that an earlier run
    /// staged.
    fn new(
        plan: &Arc<Plan>,
        stage: Option<&Stage>,
        shards: &[usize],
        workers: usize,
        listener: &Listener,
    ) -> Arc<ScoringJob> {
        let mut read = ReadReport::default();
        let mut pending = Vec::new();
        let heads = match stage {
            Some(stage) => staged_heads(plan, stage, shards, workers),
            None => vec![None; shards.len()],
        };
        for (&at, head) in shards.iter().zip(heads) {
            match head {
                Some(head) => read.take(head),
                None => pending.push(at),
            }
        }
        listener.tell(Progress::Planned {
            shards: shards.len(),
            staged: shards.len() - pending.len(),
        });
        Arc::new(ScoringJob {
            plan: plan.clone(),
            stage: stage.cloned(),
            listener: listener.clone(),
            pending,
            next: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            error: Mutex::new(None),
            read: Mutex::new(read),
            candidates: Mutex::default(),
            on_finished: None,
        })
    }

    /// Reads and scores the shards of the job on timely workers of this process.
    fn run(self: &Arc<Self>, workers: usize) -> Result<ReadReport, LabelError> {
        if !self.pending.is_empty() {
            let job = self.clone();
            let ended = workers::run(workers, move |worker, stop| {
                worker.dataflow::<u64, _, _>(|scope| scored(scope, &job));
                // If another worker panicked, this returns `Stopped`. `workers::run` then reports the panic.
                let _ = stop.finish(worker);
            });
            // Reader threads can run longer than the workers. The flag keeps such a thread from reading further shards.
            self.cancelled.store(true, Ordering::Relaxed);
            ended.map_err(|error| LabelError::Stopped(error.to_string()))?;
        }
        self.end()
    }

    /// Returns whether reader threads must stop, because the run failed or the caller cancelled it.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.listener.is_cancelled()
    }

    /// Returns the report after the dataflow has ended, or the error of the run.
    fn end(&self) -> Result<ReadReport, LabelError> {
        if let Some(error) = lock(&self.error).take() {
            return Err(error);
        }
        self.listener.check()?;
        let (finished, wanted) = (self.finished.load(Ordering::SeqCst), self.pending.len());
        if finished != wanted {
            return Err(LabelError::Stopped(format!(
                "{finished} of {wanted} shards were read to their end"
            )));
        }
        Ok(std::mem::take(&mut *lock(&self.read)))
    }

    /// Ends the run with an error. If several errors are reported, the first one counts.
    pub(super) fn fail(&self, error: LabelError) {
        self.cancelled.store(true, Ordering::Relaxed);
        lock(&self.error).get_or_insert(error);
    }

    fn finish(&self, key: &str, mut shard: StagedShard) {
        let plan = &self.plan;
        match &self.stage {
            Some(stage) => {
                if let Err(error) = stage.keep(key, &mut shard, plan.videos.len()) {
                    self.fail(error);
                    return;
                }
            }
            None => lock(&self.candidates).append(&mut shard.candidates),
        }
        point("after-shard");
        self.listener.tell(Progress::Shard {
            segments: shard.head.segments,
        });
        lock(&self.read).take(shard.head);
        let finished = self.finished.fetch_add(1, Ordering::SeqCst) + 1;
        tracing::debug!(finished, of = self.pending.len(), "shard done");
        if let Some(on_finished) = &self.on_finished {
            on_finished(key);
        }
    }
}

/// Checks which of the shards at these positions an earlier run staged, on several threads, and returns their heads.
fn staged_heads(plan: &Plan, stage: &Stage, shards: &[usize], threads: usize) -> Vec<Option<ShardHead>> {
    let check = |shards: &[usize]| -> Vec<Option<ShardHead>> {
        let heads = shards
            .iter()
            .map(|&at| stage.check(&plan.shards[at].key, plan.videos.len()));
        heads.collect()
    };
    std::thread::scope(|scope| {
        let parts = shards.chunks(shards.len().div_ceil(threads.max(1)).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || check(part))).collect();
        let heads = threads.into_iter().map(|thread| thread.join());
        heads
            .flat_map(|heads| heads.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

impl ReadReport {
    /// Adds a part of the report of another process.
    pub(crate) fn add(&mut self, part: ReadReport) {
        self.rejects.extend(part.rejects);
        self.unknown.add(part.unknown);
    }

    fn take(&mut self, head: ShardHead) {
        self.rejects.extend(head.rejects);
        self.unknown.add(head.unknown);
    }
}

/// Reads and scores the shards of the job, and finishes each shard when it is complete.
fn scored(scope: Scope<'_, u64>, job: &Arc<ScoringJob>) {
    scope.region_named("Shards", |inner| {
        let batches = read(inner, job);
        let scored = similarity(batches, job.plan.prompts.clone());
        finish(scored, job.clone());
    });
}

/// Collects the candidates of a shard, and finishes the shard when it is complete.
///
/// Candidates cannot be used earlier: a video can have a rejected row anywhere in the shard, and [`StagedShard::end`]
/// then drops its candidate.
fn finish(scored: Stream<'_, u64, Vec<(BatchTag, Vec<Scored>)>>, job: Arc<ScoringJob>) {
    // The shard that the reader of this worker is reading. A reader reads one shard at a time.
    let mut shard = StagedShard::default();
    scored.sink(Pipeline, "Stage", move |(input, _frontier)| {
        input.for_each_time(|_time, batches| {
            for (tag, scored) in batches.flat_map(|batches| batches.drain(..)) {
                panic_point("stage");
                shard.take(scored, &job.plan);
                if let BatchTag::End(key, left_out) = tag {
                    shard.end(left_out, &job.plan);
                    job.finish(&key, std::mem::take(&mut shard));
                }
            }
        });
    });
}

/// Scores and stages shards that another operator of the same dataflow completes.
#[cfg(feature = "encode")]
#[derive(Clone)]
pub(crate) struct GivenShards(Arc<ScoringJob>);

#[cfg(feature = "encode")]
impl GivenShards {
    /// Makes the job. `on_finished` is called with the staging key of each shard when the shard is staged.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        stage: &Stage,
        listener: &Listener,
        on_finished: impl Fn(&str) + Send + Sync + 'static,
    ) -> GivenShards {
        let mut job = ScoringJob::new(plan, Some(stage), &[], 1, listener);
        let own = Arc::get_mut(&mut job).expect("the job was just made");
        own.on_finished = Some(Box::new(on_finished));
        GivenShards(job)
    }

    /// Whether an earlier run staged this shard. Its rejected rows then belong to the report of this run.
    pub(crate) fn has_staged(&self, shard: &PlannedShard) -> bool {
        let job = &self.0;
        let stage = job.stage.as_ref().expect("given shards are staged");
        let head = stage.check(&shard.key, job.plan.videos.len());
        let staged = head.is_some();
        head.into_iter().for_each(|head| lock(&job.read).take(head));
        staged
    }

    /// Adds the operators that score and stage the shards.
    pub(crate) fn score<'scope>(&self, shards: Stream<'scope, u64, Vec<PlannedShard>>) {
        let scored = similarity(read_given(shards, &self.0), self.0.plan.prompts.clone());
        finish(scored, self.0.clone());
    }

    /// Stops the operators.
    pub(crate) fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// The rejected rows of the shards that are staged so far, or the error of one of them.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if a shard could not be staged.
    pub(crate) fn report(&self) -> Result<ReadReport, LabelError> {
        match lock(&self.0.error).take() {
            Some(error) => Err(error),
            None => Ok(lock(&self.0.read).clone()),
        }
    }
}

/// Reads and scores the shards of a plan at these positions, and stages them. Shards that an earlier run staged are not
/// read again.
///
/// # Errors
/// Returns [`LabelError::Stage`] if a finished shard cannot be written to the stage, [`LabelError::Stopped`] if the
/// dataflow does not reach its end, and [`LabelError::Cancelled`] if the listener's token was cancelled.
pub fn stage_shards(
    plan: &Arc<Plan>,
    stage: &Stage,
    shards: &[usize],
    workers: usize,
    listener: &Listener,
) -> Result<ReadReport, LabelError> {
    ScoringJob::new(plan, Some(stage), shards, workers, listener).run(workers)
}

/// Reads and scores the shards of a plan without labelling or staging. The order of the candidates is not defined.
///
/// # Errors
/// Returns [`LabelError::Stopped`] if the dataflow does not reach its end, and [`LabelError::Cancelled`] if the
/// listener's token was cancelled.
pub fn score(
    plan: &Arc<Plan>,
    workers: usize,
    listener: &Listener,
) -> Result<(Vec<(VideoId, Candidate)>, ReadReport), LabelError> {
    if plan.shards.is_empty() {
        return Ok((Vec::new(), ReadReport::default()));
    }
    let all: Vec<usize> = (0..plan.shards.len()).collect();
    let job = ScoringJob::new(plan, None, &all, workers, listener);
    let read = job.run(workers)?;
    let candidates = std::mem::take(&mut *lock(&job.candidates));
    Ok((candidates, read))
}

/// Ends the process, as `kill -9` would, if the environment variable `VAPLAN_FAULT` names this place. The function does
/// this only in builds with debug assertions. Module `store/fault.rs` of `vaplan-schemas` does the same for the store.
fn point(place: &str) {
    if cfg!(debug_assertions) && std::env::var("VAPLAN_FAULT").is_ok_and(|wanted| wanted == place) {
        std::process::abort();
    }
}

/// Locks the mutex, also after a holder panicked. This is safe because holders only add to the guarded lists, so the
/// lists are still valid.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
