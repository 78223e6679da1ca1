//! Shards to scored candidates: what all workers and readers of a run share.
//!
//! ```text
//! reader thread ═ bounded channel ═▶ shards ── similarity ── stage ─▶ scored        one of each per worker
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vaplan_dataflows::similarity::{Scored, similarity};
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::dataflow::operators::{InspectCore, Leave, Probe};
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::{Candidate, VideoId, workers};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;

use super::plan::Plan;
use super::read::read;
use super::stage::{Stage, StagedShard};
use super::{Listener, Progress};
use crate::error::LabelError;

/// What all workers and readers share.
pub(super) struct Job {
    pub(super) plan: Arc<Plan>,
    /// None: what is read is not kept for a run after.
    stage: Option<Stage>,
    listener: Listener,
    /// Positions of shards that are to be read.
    pub(super) pending: Vec<usize>,
    pub(super) next: AtomicUsize,
    finished: AtomicUsize,
    cancelled: AtomicBool,
    error: Mutex<Option<LabelError>>,
    read: Mutex<Read>,
}

/// What reading gave beside the candidates; in no particular order.
#[derive(Debug, Default)]
pub struct Read {
    /// What reading and scoring left out.
    pub rejects: Vec<RejectRow>,
    /// Files of all features that were read and scored.
    pub sources: Vec<(VideoId, Modality, Arc<str>)>,
}

/// What a batch belongs to.
#[derive(Clone, Debug)]
pub(super) enum Tag {
    /// Rows of a shard.
    Rows,
    /// The shard at this position is read to its end; with what was left out.
    End(usize, Vec<RejectRow>),
}

/// A scored video and modality, with time and difference.
pub(super) type ScoredUpdate = ((VideoId, Candidate), u64, isize);

impl Job {
    /// The job of the shards at these positions, and those of them that a run before staged.
    pub(super) fn new(
        plan: &Arc<Plan>,
        stage: Option<&Stage>,
        shards: &[usize],
        listener: &Listener,
    ) -> (Arc<Job>, Vec<StagedShard>) {
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
        let mut read = Read::default();
        for shard in &mut loaded {
            read.take(shard);
        }
        let job = Job {
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

    /// Are reader threads to stop: because a shard could not be staged, or because the caller cancelled the run?
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.listener.is_cancelled()
    }

    /// What was read, once the dataflow came to its end.
    pub(super) fn end(&self) -> Result<Read, LabelError> {
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

    /// Ends the run with an error; the first one counts.
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

impl Read {
    fn take(&mut self, shard: &mut StagedShard) {
        self.rejects.append(&mut shard.rejects);
        let sources = shard.candidates.iter();
        self.sources
            .extend(sources.map(|(video, candidate)| (*video, candidate.modality, candidate.source.clone())));
    }
}

/// Scores of the shards that are to be read, as updates; each shard is staged when it is done, where there is a stage.
pub(super) fn scored<'scope>(
    scope: Scope<'scope, u64>,
    job: &Arc<Job>,
) -> Stream<'scope, u64, Vec<ScoredUpdate>> {
    let job = job.clone();
    scope.region_named("Shards", |inner| {
        let batches = read(inner, &job);
        let scored = similarity(batches, job.plan.prompts.clone());
        keep(scored, job).leave(scope)
    })
}

/// Keeps the candidates of a shard when it is done, and passes them on.
///
/// Not sooner: a video whose rows go on elsewhere in the shard is known to be bad only at its end.
fn keep<'scope>(
    scored: Stream<'scope, u64, Vec<(Tag, Vec<Scored>)>>,
    job: Arc<Job>,
) -> Stream<'scope, u64, Vec<ScoredUpdate>> {
    scored.unary(Pipeline, "Stage", move |_capability, _info| {
        // Of the one shard that this worker's reader is at.
        let mut shard = StagedShard::default();
        move |input, output| {
            input.for_each_time(|time, batches| {
                let at = *time.time();
                let mut session = output.session(&time);
                for (tag, scored) in batches.flat_map(|batches| batches.drain(..)) {
                    panic_point("stage");
                    shard.take(scored, &job.plan);
                    if let Tag::End(position, rejects) = tag {
                        shard.end(rejects, &job.plan);
                        let done = std::mem::take(&mut shard);
                        session.give_iterator(done.candidates.iter().map(|entry| (entry.clone(), at, 1)));
                        job.finish(position, done);
                    }
                }
            });
        }
    })
}

/// Reads and scores the shards of a plan, and neither labels nor stages anything; candidates in no particular order.
///
/// # Errors
/// [`LabelError::Stopped`] where the dataflow does not come to its end.
pub fn score(
    plan: &Arc<Plan>,
    workers: usize,
    listener: &Listener,
) -> Result<(Vec<(VideoId, Candidate)>, Read), LabelError> {
    if plan.shards.is_empty() {
        return Ok((Vec::new(), Read::default()));
    }
    let all: Vec<usize> = (0..plan.shards.len()).collect();
    let (job, _) = Job::new(plan, None, &all, listener);
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
        // Stopped: the panic of another worker is the error of the run.
        let _ = stop.step_while(worker, || !probe.done());
    });
    // Reader threads that outlive the workers open no other shard.
    job.cancelled.store(true, Ordering::Relaxed);
    ended.map_err(|error| LabelError::Stopped(error.to_string()))?;
    let read = job.end()?;
    let candidates = std::mem::take(&mut *lock(&found));
    Ok((candidates, read))
}

/// Panics once in a process if `VAPLAN_FAULT` is `panic-<place>`, in builds with debug assertions only: tests hold that
/// the panic of one worker ends a run with an error.
pub(super) fn panic_point(place: &str) {
    use std::sync::atomic::AtomicBool;
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if cfg!(debug_assertions)
        && std::env::var("VAPLAN_FAULT").is_ok_and(|wanted| wanted.strip_prefix("panic-") == Some(place))
        && !PANICKED.swap(true, Ordering::SeqCst)
    {
        panic!("injected into {place}");
    }
}

/// Ends the process as `kill -9` would if `VAPLAN_FAULT` names this place, in builds with debug assertions only; as
/// `store/fault.rs` in `vaplan-schemas`.
fn point(place: &str) {
    if cfg!(debug_assertions) && std::env::var("VAPLAN_FAULT").is_ok_and(|wanted| wanted == place) {
        std::process::abort();
    }
}

/// A poisoned lock is one whose holder panicked; its lists are only added to, so they still hold.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
