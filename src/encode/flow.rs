//! The dataflow of encoding.
//!
//! ```text
//! reader threads ═ bounded channel ═▶ media ── encode ── count       one of each per worker
//!                                       ▲       │  │
//!                                       └credits┘  ▼
//!                                                cache
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::Probe;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::dataflow::operators::generic::operator::source;
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::timely::scheduling::SyncActivator;
use vaplan_dataflows::workers;
use vaplan_schemas::Modality;
use vaplan_schemas::contain::contain;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::batch::Batch;
use super::cache::{Cache, Key};
use super::error::EncodeError;
use super::operator::{BatchOutcome, Credits, SessionPool, encode};
use super::read::{GROUP, ReadEvent, Reading, SharedMedia, read_group};
use super::{EncodeListener, EncodeProgress};

/// What the dataflow gave.
#[derive(Debug, Default)]
pub struct EncodeResults {
    /// Under which key the embeddings of a video are, by its place and modality.
    pub keys: BTreeMap<(usize, Modality), Key>,
    /// What was left out or is odd.
    pub rejects: Vec<RejectRow>,
    /// Segments encoded, not taken from the cache.
    pub encoded: u64,
    /// Batches encoded.
    pub batches: u64,
}

/// How many threads do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeThreads {
    /// Timely workers.
    pub workers: usize,
    /// Readers, in all.
    pub readers: usize,
    /// Batches on the way per worker.
    pub credits: usize,
}

/// What all threads share.
struct EncodeJob {
    reading: Reading,
    cache: Arc<Cache>,
    media: SharedMedia,
    next: AtomicUsize,
    finished: AtomicUsize,
    cancelled: AtomicBool,
    error: Mutex<Option<EncodeError>>,
    results: Mutex<EncodeResults>,
    listener: EncodeListener,
}

/// Encodes all media that are not in the cache.
///
/// # Errors
/// [`EncodeError::Model`] for a model that fails on everything, [`EncodeError::Write`] where a batch cannot be kept,
/// [`EncodeError::Workers`] and [`EncodeError::Stopped`] if a thread panics or the dataflow does not come to its end.
pub fn run(
    reading: Reading,
    cache: &Arc<Cache>,
    media: &SharedMedia,
    pool: SessionPool,
    threads: EncodeThreads,
    listener: &EncodeListener,
) -> Result<EncodeResults, EncodeError> {
    let groups = media.len().div_ceil(GROUP);
    let job = Arc::new(EncodeJob {
        reading,
        cache: cache.clone(),
        media: media.clone(),
        next: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        cancelled: AtomicBool::new(false),
        error: Mutex::new(None),
        results: Mutex::default(),
        listener: listener.clone(),
    });
    let pool = Arc::new(pool);
    let (shared, sessions) = (job.clone(), pool.clone());
    // A panic in one worker ends all of them: the others would wait for its progress for ever.
    let ended = workers::run(threads.workers, move |worker, stop| {
        let (job, pool) = (shared.clone(), sessions.clone());
        let readers = threads.readers.div_ceil(threads.workers).max(1);
        let probe = worker.dataflow::<u64, _, _>(|scope| {
            let credits = Credits::new(threads.credits);
            let batches = media_source(scope, &job, readers, credits.clone());
            let (probe, _) = count(encode(batches, &pool, credits), job.clone()).probe();
            probe
        });
        stop.step_while(worker, || !probe.done())
    });
    // Readers that outlive the workers take no other group.
    job.cancelled.store(true, Ordering::Relaxed);
    if let Some(pool) = Arc::into_inner(pool) {
        pool.stop();
    }
    for end in ended? {
        end.map_err(|stopped| EncodeError::Stopped(stopped.to_string()))?;
    }
    if let Some(error) = lock(&job.error).take() {
        return Err(error);
    }
    let finished = job.finished.load(Ordering::SeqCst);
    if finished != groups {
        return Err(EncodeError::Stopped(format!(
            "{finished} of {groups} groups of videos were read to their end"
        )));
    }
    let mut results = std::mem::take(&mut *lock(&job.results));
    results.rejects.sort();
    results.rejects.dedup();
    Ok(results)
}

type Batches<'scope> = Stream<'scope, u64, Vec<(Modality, Batch)>>;

/// Batches of this worker's reader threads, as long as credits are left.
fn media_source<'scope>(
    scope: Scope<'scope, u64>,
    job: &Arc<EncodeJob>,
    readers: usize,
    credits: Credits,
) -> Batches<'scope> {
    let job = job.clone();
    source(scope, "Media", move |capability, info| {
        // Little waits here: what is decoded ahead lies under credits.
        let (sender, receiver): (Sender<(Modality, Batch)>, Receiver<_>) = bounded(2);
        for _ in 0..readers {
            let wake = Wake(scope.worker().sync_activator_for(info.address.to_vec()));
            let (job, sender) = (job.clone(), sender.clone());
            std::thread::spawn(move || {
                // However the thread ends, the worker must wake to see its channel closed: locals go in reverse order.
                let wake = wake;
                let sender = sender;
                if let Err(panic) = contain(|| read(&job, &sender, &wake)) {
                    let error = EncodeError::Stopped(format!("a reader thread panicked: {panic}"));
                    lock(&job.error).get_or_insert(error);
                }
            });
        }
        drop(sender);
        credits.wakes(scope.activator_for(info.address.clone()));
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability);
        let worker = scope.worker().index();
        move |output| {
            fault("media", worker);
            let Some(held) = &capability else { return };
            if !credits.any() {
                return;
            }
            match receiver.try_recv() {
                Ok(batch) => {
                    credits.take();
                    output.session(held).give(batch);
                    activator.activate();
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => capability = None,
            }
        }
    })
}

/// Wakes a worker, at the latest when it is dropped.
struct Wake(SyncActivator);

impl Drop for Wake {
    fn drop(&mut self) {
        // Fails only where the worker is gone: then nobody waits.
        let _ = self.0.activate();
    }
}

/// Reads groups one after the other, each taken from what all readers share.
fn read(job: &EncodeJob, sender: &Sender<(Modality, Batch)>, wake: &Wake) {
    fault("reader", 0);
    loop {
        let first = job.next.fetch_add(1, Ordering::Relaxed) * GROUP;
        if first >= job.media.len() || job.cancelled.load(Ordering::Relaxed) {
            return;
        }
        let group = &job.media[first..(first + GROUP).min(job.media.len())];
        let mut gone = false;
        read_group(&job.reading, &job.cache, first, group, &mut |event| match event {
            ReadEvent::Batch(modality, batch) => {
                // The rest of the group is read for nothing where the worker is gone or the run cancelled.
                gone |= job.cancelled.load(Ordering::Relaxed) || sender.send((modality, batch)).is_err();
                let _ = wake.0.activate();
            }
            ReadEvent::Key(at, modality, key) => {
                lock(&job.results).keys.insert((at, modality), key);
            }
            ReadEvent::Row(row) => lock(&job.results).rejects.push(row),
        });
        if gone {
            return;
        }
        job.finished.fetch_add(1, Ordering::SeqCst);
        (job.listener)(EncodeProgress::Read {
            videos: group.len() as u64,
        });
    }
}

/// Counts what was encoded, and lists what was not; passes on how many segments a batch had.
fn count<'scope>(
    outcomes: Stream<'scope, u64, Vec<Result<BatchOutcome, Arc<EncodeError>>>>,
    job: Arc<EncodeJob>,
) -> Stream<'scope, u64, Vec<u64>> {
    let worker = outcomes.scope().worker().index();
    outcomes.unary(Pipeline, "Count", move |_capability, _info| {
        move |input, output| {
            fault("count", worker);
            input.for_each_time(|time, outcomes| {
                let mut session = output.session(&time);
                for outcome in outcomes.flat_map(|outcomes| outcomes.drain(..)) {
                    match outcome {
                        Ok(outcome) => session.give(take(&job, outcome)),
                        Err(error) => {
                            job.cancelled.store(true, Ordering::Relaxed);
                            let error = Arc::into_inner(error).unwrap_or_else(|| {
                                EncodeError::Stopped("a batch could not be encoded".to_owned())
                            });
                            lock(&job.error).get_or_insert(error);
                        }
                    }
                }
            });
        }
    })
}

fn take(job: &EncodeJob, outcome: BatchOutcome) -> u64 {
    let segments = outcome.segments;
    let mut results = lock(&job.results);
    results.encoded += segments;
    results.batches += u64::from(segments > 0);
    results
        .rejects
        .extend(outcome.failed.into_iter().map(|(name, segment, reason)| {
            let reason = format!("{}: {reason}", outcome.modality);
            let reject = RejectRow::reject(RejectKind::Embedding, "", reason).row(u64::from(segment));
            reject.video(&*name).modality(outcome.modality)
        }));
    drop(results);
    (job.listener)(EncodeProgress::Encoded { segments });
    segments
}

/// Panics if `VAPLAN_FAULT` is `panic-<place>-<worker>`, in builds with debug assertions only: tests hold that such a
/// panic ends a run with an error.
pub(super) fn fault(place: &str, worker: usize) {
    if cfg!(debug_assertions)
        && std::env::var("VAPLAN_FAULT").is_ok_and(|wanted| wanted == format!("panic-{place}-{worker}"))
    {
        panic!("injected into {place} of worker {worker}");
    }
}

/// A poisoned lock is one whose holder panicked; its lists are only added to, so they still hold.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
