//! The dataflow of encoding. Each timely worker has one of each operator, and its own reader threads.
//!
//! ```text
//! reader threads ═ bounded channel ═▶ media ── encode ── count       one of each per worker
//!                                       ▲       │  │
//!                                       └credits┘  ▼
//!                                                cache
//!
//! count ── units ─ a unit of videos is encoded ── shards ── similarity ── stage      if the run labels the media, too
//! ```
//!
//! The time of the dataflow is the unit of the videos that are read. A unit is complete when the frontier has passed it:
//! all its media are then read, and all its batches are in the cache.

use std::collections::BTreeMap;
use std::ops::Range;
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
use super::media::Media;
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
    /// The groups of media that one reader reads at a time, each with its unit.
    groups: Vec<(u32, Range<usize>)>,
    next: AtomicUsize,
    finished: AtomicUsize,
    state: Arc<EncodeState>,
    listener: EncodeListener,
}

/// The results and the error of a run.
#[derive(Debug, Default)]
pub(super) struct EncodeState {
    cancelled: AtomicBool,
    error: Mutex<Option<EncodeError>>,
    results: Mutex<EncodeResults>,
}

impl EncodeState {
    /// The results so far.
    pub(super) fn results(&self) -> MutexGuard<'_, EncodeResults> {
        lock(&self.results)
    }

    /// Ends the run with an error. If several errors are reported, the first one counts.
    pub(super) fn fail(&self, error: EncodeError) {
        self.cancelled.store(true, Ordering::Relaxed);
        lock(&self.error).get_or_insert(error);
    }

    /// Whether the run ends with an error.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The operators that follow the encoding of a unit, in the same dataflow.
pub(super) trait AfterUnits: Send + Sync {
    /// Number of units.
    fn units(&self) -> u32;

    /// The unit of a video. The list of media is in order of unit.
    fn unit_of(&self, name: &str) -> u32;

    /// Adds the operators. `units` has each unit when all its media are encoded.
    fn follow<'scope>(&self, units: Stream<'scope, u64, Vec<u32>>, state: &Arc<EncodeState>);
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
    run_with(reading, cache, media, pool, threads, None, listener)
}

/// Like [`run`], with operators that follow each unit of the media.
///
/// # Errors
/// Returns the errors of [`run`], and the error that such an operator reports.
pub(super) fn run_with(
    reading: Reading,
    cache: &Arc<Cache>,
    media: &SharedMedia,
    pool: SessionPool,
    threads: EncodeThreads,
    after: Option<Arc<dyn AfterUnits>>,
    listener: &EncodeListener,
) -> Result<EncodeResults, EncodeError> {
    let groups = groups(media, after.as_deref());
    let wanted = groups.len();
    let job = Arc::new(EncodeJob {
        reading,
        cache: cache.clone(),
        media: media.clone(),
        groups,
        next: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        state: Arc::default(),
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
            let counted = count(encode(batches, &pool, credits), job.clone());
            if let Some(after) = &after {
                let units = complete(counted.clone(), after.units(), &job.state);
                after.follow(units, &job.state);
            }
            let (probe, _) = counted.probe();
            probe
        });
        stop.step_while(worker, || !probe.done())?;
        // The operators that follow a unit have no probe. They are done when the dataflow has ended.
        stop.finish(worker)
    });
    // A reader thread can live longer than the workers; `cancelled` keeps the reader from starting another group.
    job.state.cancelled.store(true, Ordering::Relaxed);
    if let Some(pool) = Arc::into_inner(pool) {
        pool.stop();
    }
    for end in ended? {
        end.map_err(|stopped| EncodeError::Stopped(stopped.to_string()))?;
    }
    if let Some(error) = lock(&job.state.error).take() {
        return Err(error);
    }
    let finished = job.finished.load(Ordering::SeqCst);
    if finished != wanted {
        return Err(EncodeError::Stopped(format!(
            "{finished} of {wanted} groups of videos were read to their end"
        )));
    }
    let mut results = std::mem::take(&mut *job.state.results());
    results.rejects.sort();
    results.rejects.dedup();
    Ok(results)
}

/// Divides the media into groups. A group has at most [`GROUP`] videos of one unit.
fn groups(media: &[Media], after: Option<&dyn AfterUnits>) -> Vec<(u32, Range<usize>)> {
    let unit = |media: &Media| after.map_or(0, |after| after.unit_of(&media.name));
    let (mut groups, mut first) = (Vec::new(), 0);
    for own in media.chunk_by(|a, b| unit(a) == unit(b)) {
        for group in own.chunks(GROUP) {
            groups.push((unit(&group[0]), first..first + group.len()));
            first += group.len();
        }
    }
    groups
}

/// Gives each unit when the frontier has passed it. Worker w of n gives the units w, w + n, w + 2n, and so on.
fn complete<'scope>(
    counted: Stream<'scope, u64, Vec<u64>>,
    units: u32,
    state: &Arc<EncodeState>,
) -> Stream<'scope, u64, Vec<u32>> {
    let state = state.clone();
    let (index, peers) = (counted.scope().worker().index(), counted.scope().worker().peers());
    counted.unary_frontier(Pipeline, "Units", move |capability, _info| {
        let mut own = (index as u32..units).step_by(peers);
        let mut next = own.next();
        let mut held = Some(capability);
        move |(input, frontier), output| {
            input.for_each_time(|_time, counts| counts.for_each(Vec::clear));
            while let (Some(unit), Some(capability)) = (next, &mut held) {
                let time = u64::from(unit);
                if frontier.less_equal(&time) {
                    break;
                }
                if *capability.time() < time {
                    capability.downgrade(&time);
                }
                // After an error the readers stop, and the frontier passes units whose media were not read.
                if !state.is_cancelled() {
                    output.session(capability).give(unit);
                }
                next = own.next();
            }
            if next.is_none() {
                held = None;
            }
        }
    })
}

type Batches<'scope> = Stream<'scope, u64, Vec<(Modality, Batch)>>;

/// A message of a reader thread to its worker. The number is that of the reader.
enum ReaderMessage {
    /// The reader begins to read a group of this unit.
    Begins(usize, u32),
    /// A batch of the group that the reader reads.
    Batch(usize, Modality, Batch),
    /// The reader has ended.
    Ends(usize),
}

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
        let (sender, receiver): (Sender<ReaderMessage>, Receiver<_>) = bounded(2);
        for reader in 0..readers {
            let wake = Wake(scope.worker().sync_activator_for(info.address.to_vec()));
            let (job, sender) = (job.clone(), sender.clone());
            std::thread::spawn(move || {
                // The worker must wake after the thread has ended in any way, so that it sees the closed channel. Rust
                // drops locals in reverse order: first `sender`, which closes the channel, then `wake`.
                let wake = wake;
                let sender = sender;
                if let Err(panic) = contain(|| read(&job, reader, &sender, &wake)) {
                    let error = EncodeError::Stopped(format!("a reader thread panicked: {panic}"));
                    job.state.fail(error);
                }
            });
        }
        drop(sender);
        credits.wakes(scope.activator_for(info.address.clone()));
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability);
        let worker = scope.worker().index();
        // The unit that each reader reads; `None` if the reader has ended.
        let mut units = vec![Some(0_u32); readers];
        move |output| {
            fault("media", worker);
            let Some(held) = &mut capability else { return };
            if !credits.any() {
                return;
            }
            match receiver.try_recv() {
                Ok(message) => {
                    match message {
                        ReaderMessage::Batch(reader, modality, batch) => {
                            credits.take();
                            let unit = units[reader].expect("a reader begins a group before its batches");
                            output
                                .session(&held.delayed(&u64::from(unit)))
                                .give((modality, batch));
                        }
                        ReaderMessage::Begins(reader, unit) => units[reader] = Some(unit),
                        ReaderMessage::Ends(reader) => units[reader] = None,
                    }
                    let unit = units.iter().flatten().min().copied().map(u64::from);
                    if let Some(unit) = unit.filter(|unit| unit > held.time()) {
                        held.downgrade(&unit);
                    }
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
fn read(job: &EncodeJob, reader: usize, sender: &Sender<ReaderMessage>, wake: &Wake) {
    fault("reader", 0);
    let state = &job.state;
    let send = |message| {
        let gone = state.is_cancelled() || sender.send(message).is_err();
        let _ = wake.0.activate();
        gone
    };
    loop {
        let next = job.groups.get(job.next.fetch_add(1, Ordering::Relaxed));
        let Some((unit, group)) = next.filter(|_| !state.is_cancelled()) else {
            send(ReaderMessage::Ends(reader));
            return;
        };
        let first = group.start;
        let group = &job.media[group.clone()];
        let mut gone = send(ReaderMessage::Begins(reader, *unit));
        read_group(&job.reading, &job.cache, first, group, &mut |event| match event {
            // `read_group` cannot be stopped: if the worker has ended or the run is cancelled, the rest of the group is
            // read in vain.
            ReadEvent::Batch(modality, batch) => {
                gone |= send(ReaderMessage::Batch(reader, modality, batch));
            }
            ReadEvent::Key(at, modality, key) => {
                state.results().keys.insert((at, modality), key);
            }
            ReadEvent::Row(row) => state.results().rejects.push(row),
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
                        Err(error) => job.state.fail(Arc::into_inner(error).unwrap_or_else(|| {
                            EncodeError::Stopped("a batch could not be encoded".to_owned())
                        })),
                    }
                }
            });
        }
    })
}

fn take(job: &EncodeJob, outcome: BatchOutcome) -> u64 {
    let segments = outcome.segments;
    let mut results = job.state.results();
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
