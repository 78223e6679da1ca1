//! Reads and scores the shards of a run, and the job that all workers and readers of the run share.
//!
//! ```text
//! reader thread ═ bounded channel ═▶ shards ── similarity ── stage ─▶ scored        one of each per worker
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vaplan_dataflows::similarity::{Scored, similarity};
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::dataflow::operators::{InspectCore, Leave, Probe};
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::workers::panic_point;
use vaplan_dataflows::{Candidate, VideoId, workers};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;

use super::plan::Plan;
use super::read::read;
use super::stage::{Stage, StagedShard};
use super::unknown::UnknownVideos;
use super::{Listener, Progress};
use crate::error::LabelError;

/// The state that all workers and readers of a run share.
pub(super) struct ScoringJob {
    pub(super) plan: Arc<Plan>,
    /// The stage for finished shards; `None` if their scores are not kept for a later run.
    stage: Option<Stage>,
    listener: Listener,
    /// Positions in the plan of the shards to read.
    pub(super) pending: Vec<usize>,
    pub(super) next: AtomicUsize,
    finished: AtomicUsize,
    cancelled: AtomicBool,
    error: Mutex<Option<LabelError>>,
    read: Mutex<ReadReport>,
}

/// The output of reading and scoring besides the candidates. The order of the entries is not defined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadReport {
    /// Rejected rows and notes of reading and scoring.
    pub rejects: Vec<RejectRow>,
    /// The feature file of each candidate, with its video and modality.
    pub sources: Vec<(VideoId, Modality, Arc<str>)>,
    /// Features in Parquet files that belong to no annotated video.
    pub unknown: UnknownVideos,
}

/// The role of a batch in its shard.
#[derive(Clone, Debug)]
pub(super) enum BatchTag {
    /// The batch has rows of the shard.
    Rows,
    /// The shard at this position in the plan is read to its end. The reader did not emit the rest of its rows.
    End(usize, LeftOut),
}

/// The rows of a shard that its reader did not emit.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Rejected rows and notes.
    pub rejects: Vec<RejectRow>,
    /// Features that belong to no annotated video.
    pub unknown: UnknownVideos,
}

/// A candidate of a video, with time and difference.
pub(super) type ScoredUpdate = ((VideoId, Candidate), u64, isize);

impl ScoringJob {
    /// Makes the job for the shards at these positions. Also returns the shards among them that an earlier run staged;
    /// the job does not read those again.
    pub(super) fn new(
        plan: &Arc<Plan>,
        stage: Option<&Stage>,
        shards: &[usize],
        listener: &Listener,
    ) -> (Arc<ScoringJob>, Vec<StagedShard>) {
        let (mut loaded, mut unread) = (Vec::new(), Vec::new());
        for &at in shards {
            match stage.and_then(|stage| stage.load(&plan.shards[at].key)) {
                Some(shard) => loaded.push(shard),
                None => unread.push(at),
            }
        }
        listener.tell(Progress::Planned {
            shards: shards.len(),
            staged: loaded.len(),
        });
        let mut read = ReadReport::default();
        for shard in &mut loaded {
            read.take(shard);
        }
        let job = ScoringJob {
            plan: plan.clone(),
            stage: stage.cloned(),
            listener: listener.clone(),
            pending: unread,
            next: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            error: Mutex::new(None),
            read: Mutex::new(read),
        };
        (Arc::new(job), loaded)
    }

    /// Returns whether reader threads must stop, because the run failed or the caller cancelled it.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.listener.is_cancelled()
    }

    /// Returns the report after the dataflow has ended, or the error of the run.
    pub(super) fn end(&self) -> Result<ReadReport, LabelError> {
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

    fn finish(&self, position: usize, mut shard: StagedShard) {
        let key = &self.plan.shards[position].key;
        if let Some(Err(error)) = self.stage.as_ref().map(|stage| stage.keep(key, &shard)) {
            self.fail(error);
            return;
        }
        point("after-shard");
        self.listener.tell(Progress::Shard {
            segments: shard.segments,
        });
        lock(&self.read).take(&mut shard);
        let finished = self.finished.fetch_add(1, Ordering::SeqCst) + 1;
        tracing::debug!(finished, of = self.pending.len(), "shard done");
    }
}

impl ReadReport {
    /// Adds a part of the report of another process.
    pub(crate) fn add(&mut self, part: ReadReport) {
        self.rejects.extend(part.rejects);
        self.sources.extend(part.sources);
        self.unknown.add(part.unknown);
    }

    fn take(&mut self, shard: &mut StagedShard) {
        self.rejects.append(&mut shard.rejects);
        self.unknown.add(std::mem::take(&mut shard.unknown));
        let sources = shard.candidates.iter();
        self.sources
            .extend(sources.map(|(video, candidate)| (*video, candidate.modality, candidate.source.clone())));
    }
}

/// Reads and scores the shards of the job, and emits their candidates as updates. If the job has a stage, each shard is
/// staged when it is complete.
pub(super) fn scored<'scope>(
    scope: Scope<'scope, u64>,
    job: &Arc<ScoringJob>,
) -> Stream<'scope, u64, Vec<ScoredUpdate>> {
    let job = job.clone();
    scope.region_named("Shards", |inner| {
        let batches = read(inner, &job);
        let scored = similarity(batches, job.plan.prompts.clone());
        keep(scored, job).leave(scope)
    })
}

/// Collects the candidates of a shard, and stages and emits them when the shard is complete.
///
/// Candidates cannot be emitted earlier: a video can have a rejected row anywhere in the shard, and
/// [`StagedShard::end`] then drops its candidate.
fn keep<'scope>(
    scored: Stream<'scope, u64, Vec<(BatchTag, Vec<Scored>)>>,
    job: Arc<ScoringJob>,
) -> Stream<'scope, u64, Vec<ScoredUpdate>> {
    scored.unary(Pipeline, "Stage", move |_capability, _info| {
        // The shard that the reader of this worker is reading. A reader reads one shard at a time.
        let mut shard = StagedShard::default();
        move |input, output| {
            input.for_each_time(|time, batches| {
                let at = *time.time();
                let mut session = output.session(&time);
                for (tag, scored) in batches.flat_map(|batches| batches.drain(..)) {
                    panic_point("stage");
                    shard.take(scored, &job.plan);
                    if let BatchTag::End(position, left_out) = tag {
                        shard.end(left_out, &job.plan);
                        let done = std::mem::take(&mut shard);
                        session.give_iterator(done.candidates.iter().map(|entry| (entry.clone(), at, 1)));
                        job.finish(position, done);
                    }
                }
            });
        }
    })
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
    let (job, _) = ScoringJob::new(plan, None, &all, listener);
    let found = Arc::new(Mutex::new(Vec::new()));
    let (shared, to) = (job.clone(), found.clone());
    let ended = workers::run(workers, move |worker, stop| {
        let (job, to) = (shared.clone(), to.clone());
        let probe = worker.dataflow::<u64, _, _>(|scope| {
            let (probe, _) = scored(scope, &job)
                .inspect_container(move |event| {
                    if let Ok((_, updates)) = event {
                        lock(&to).extend(updates.iter().map(|(entry, _, _)| entry.clone()));
                    }
                })
                .probe();
            probe
        });
        // If another worker panicked, this returns `Stopped`. `workers::run` then reports the panic.
        let _ = stop.step_while(worker, || !probe.done());
    });
    // Reader threads can run longer than the workers. The flag keeps such a thread from reading further shards.
    job.cancelled.store(true, Ordering::Relaxed);
    ended.map_err(|error| LabelError::Stopped(error.to_string()))?;
    let read = job.end()?;
    let candidates = std::mem::take(&mut *lock(&found));
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
