//! The dataflow of encoding. Each timely worker has one of each operator, and its own reader threads.
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
use super::cache::{Cache, CacheKey};
use super::error::EncodeError;
use super::operator::{BatchOutcome, Credits, SessionPool, encode};
use super::read::{GROUP, ReadEvent, Reading, SharedMedia, read_group};
use super::{EncodeListener, EncodeProgress};

/// The results of the dataflow. The embeddings themselves are in the cache.
#[derive(Debug, Default)]
pub struct EncodeResults {
    /// For each video (by its position in the list of media) and modality: the key of its embeddings in the cache.
    pub keys: BTreeMap<(usize, Modality), CacheKey>,
    /// Rejected rows and notes.
    pub rejects: Vec<RejectRow>,
    /// Number of segments that were encoded; segments from the cache do not count.
    pub encoded: u64,
    /// Number of batches with at least one encoded segment.
    pub batches: u64,
}

/// The numbers of threads, and of batches in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeThreads {
    /// Number of timely workers.
    pub workers: usize,
    /// Number of reader threads of all workers together; each worker has at least one.
    pub readers: usize,
    /// Number of batches that may be in progress in one worker: passed to the sessions, and not yet in the cache.
    pub credits: usize,
}

/// The state that all threads of a run share.
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
/// Returns [`EncodeError::Model`] if a model panics, or fails on every segment of a batch and also on a trial input.
/// Returns [`EncodeError::Write`] if a batch cannot be written to the cache.
/// Returns [`EncodeError::Workers`] or [`EncodeError::Stopped`] if a thread panics, or if the dataflow ends early.
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
    // A panic in one worker stops all workers. Otherwise the others would wait for the progress of that worker forever.
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
    // A reader thread can live longer than the workers; `cancelled` keeps the reader from starting another group.
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

/// Starts the reader threads of this worker, and sends their batches into the dataflow as long as credits are left.
fn media_source<'scope>(
    scope: Scope<'scope, u64>,
    job: &Arc<EncodeJob>,
    readers: usize,
    credits: Credits,
) -> Batches<'scope> {
    let job = job.clone();
    source(scope, "Media", move |capability, info| {
        // The channel holds at most two batches. Credits bound the batches that have left the channel, so the memory
        // for decoded media is bounded.
        let (sender, receiver): (Sender<(Modality, Batch)>, Receiver<_>) = bounded(2);
        for _ in 0..readers {
            let wake = Wake(scope.worker().sync_activator_for(info.address.to_vec()));
            let (job, sender) = (job.clone(), sender.clone());
            std::thread::spawn(move || {
                // The worker must wake after the thread has ended in any way, so that it sees the closed channel. Rust
                // drops locals in reverse order: first `sender`, which closes the channel, then `wake`.
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

/// Wakes a worker when the reader has sent a batch, and once more when the value is dropped.
struct Wake(SyncActivator);

impl Drop for Wake {
    fn drop(&mut self) {
        // Activation fails only if the worker has ended, and then no one waits for it.
        let _ = self.0.activate();
    }
}

/// Reads one group of videos after the other. All readers share the counter of the next group.
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
                // `read_group` cannot be stopped: if the worker has ended or the run is cancelled, the rest of the
                // group is read in vain.
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

/// Counts the encoded segments, and adds a rejected row for each segment that failed. The output of the operator has
/// the number of encoded segments of each batch.
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

/// Panics if the environment variable `VAPLAN_FAULT` is `panic-<place>-<worker>`. The function does this only in builds
/// with debug assertions. Tests use it to check that a panic ends the run with an error.
pub(super) fn fault(place: &str, worker: usize) {
    if cfg!(debug_assertions)
        && std::env::var("VAPLAN_FAULT").is_ok_and(|wanted| wanted == format!("panic-{place}-{worker}"))
    {
        panic!("injected into {place} of worker {worker}");
    }
}

/// Locks a mutex, also if a thread panicked while it held the lock. This is safe, because threads only add to the lists
/// behind these locks, so the lists are valid after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
