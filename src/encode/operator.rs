//! The operator that encodes batches. It passes batches to threads with sessions, and gives the outcome of each batch.
//!
//! ```text
//! batches ── encode ─────────────────────▶ outcomes of the batches, in any order
//!             │    ▲                       the operator holds a batch's capability until the batch is in the cache
//!             ▼    │  bounded by credits
//!        threads, each with its own session ──▶ cache
//! ```
//!
//! A thread writes its batch to the cache before it takes the next batch. If the process is killed, each session
//! therefore loses at most one batch.
//!
//! The timely worker never waits for a model: the models run in other threads, which wake the worker when a batch is
//! done. [`Credits`] bound the number of batches in progress. While no credit is left, the source takes no batch from
//! the channel of the readers. That channel is bounded too, so the readers wait, and memory stays bounded.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};
use vaplan_dataflows::timely::dataflow::Stream;
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::Capability;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::progress::Timestamp;
use vaplan_dataflows::timely::scheduling::{Activator, SyncActivator};
use vaplan_schemas::Modality;
use vaplan_schemas::contain::contain;

use super::batch::Batch;
use super::cache::{Cache, EncodedBatch, Piece};
use super::error::EncodeError;
use super::flow::fault;
use super::model::{Encoder, ModelError};
use crate::error::chain;

/// The outcome of a batch.
#[derive(Debug)]
pub struct BatchOutcome {
    /// The modality of the model.
    pub modality: Modality,
    /// Number of segments that were encoded; their embeddings are in the cache.
    pub segments: u64,
    /// Segments that the model failed on: the name of the video, the segment, and the reason.
    pub failed: Vec<(Arc<str>, u32, String)>,
}

/// The number of further batches that may be in progress in a worker.
#[derive(Clone)]
pub struct Credits {
    left: Rc<Cell<usize>>,
    /// Wakes the source when a credit is given back.
    source: Rc<RefCell<Option<Activator>>>,
}

impl Credits {
    /// Makes this number of credits, at least 1.
    pub fn new(credits: usize) -> Credits {
        Credits {
            left: Rc::new(Cell::new(credits.max(1))),
            source: Rc::default(),
        }
    }

    /// Sets the operator that is woken when a credit is given back.
    pub fn wakes(&self, source: Activator) {
        *self.source.borrow_mut() = Some(source);
    }

    /// Is a credit left?
    pub fn any(&self) -> bool {
        self.left.get() > 0
    }

    /// Takes a credit.
    ///
    /// # Panics
    /// Panics if no credit is left.
    pub fn take(&self) {
        self.left.set(
            self.left
                .get()
                .checked_sub(1)
                .expect("a credit is left where one is taken"),
        );
    }

    fn give(&self) {
        self.left.set(self.left.get() + 1);
        if let Some(source) = &*self.source.borrow() {
            source.activate();
        }
    }
}

/// A batch for a session, with the channel for its outcome and the activator of the operator that waits for it.
struct SessionTask {
    id: u64,
    modality: Modality,
    batch: Batch,
    reply: Sender<(u64, Result<BatchOutcome, EncodeError>)>,
    wake: Arc<SyncActivator>,
}

/// Threads that each have a session, for one or both modalities.
pub struct SessionPool {
    jobs: BTreeMap<Modality, Sender<SessionTask>>,
    threads: Vec<JoinHandle<()>>,
}

impl SessionPool {
    /// Starts a thread for every session. The threads write the embeddings to `cache`.
    pub fn start(sessions: Vec<(Modality, Encoder)>, cache: &Arc<Cache>) -> SessionPool {
        let mut queues: BTreeMap<Modality, (Sender<SessionTask>, Receiver<SessionTask>)> = BTreeMap::new();
        let threads = sessions.into_iter().map(|(modality, mut encoder)| {
            let (_, queue) = queues.entry(modality).or_insert_with(unbounded);
            let (queue, cache) = (queue.clone(), cache.clone());
            std::thread::spawn(move || {
                let path = encoder.path().to_owned();
                for job in queue {
                    // A panic must not end the thread: no outcome would be sent for its batch, and the dataflow would
                    // wait forever.
                    let work = || {
                        fault("session", 0);
                        run(&mut encoder, &cache, job.modality, job.batch)
                    };
                    let outcome = contain(work).unwrap_or_else(|panic| {
                        let problem = format!("panicked: {panic}");
                        let path = path.clone();
                        Err(ModelError::Model { path, problem }.into())
                    });
                    // Both calls fail only if the worker has ended, and then no one waits for the outcome.
                    let _ = job.reply.send((job.id, outcome));
                    let _ = job.wake.activate();
                }
            })
        });
        let threads = threads.collect();
        SessionPool {
            jobs: queues
                .into_iter()
                .map(|(modality, (sender, _))| (modality, sender))
                .collect(),
            threads,
        }
    }

    /// Closes the queues, so that the threads end, and waits for the threads.
    pub fn stop(self) {
        drop(self.jobs);
        for thread in self.threads {
            // A panic while a batch is encoded is caught and sent as the outcome, so there is no error to handle here.
            let _ = thread.join();
        }
    }
}

fn run(
    encoder: &mut Encoder,
    cache: &Cache,
    modality: Modality,
    batch: Batch,
) -> Result<BatchOutcome, EncodeError> {
    let rows = batch.rows();
    let what = match (batch.names.first(), batch.names.last()) {
        (Some(first), Some(last)) => format!("{rows} segments from `{first}` to `{last}`"),
        _ => "no segments".to_owned(),
    };
    let whole = if rows == 0 {
        Ok(Vec::new())
    } else {
        encoder.encode(&batch.values, &what)
    };
    let (encoded, failed) = match whole {
        Ok(values) => {
            let encoded = EncodedBatch {
                width: encoder.width() as u32,
                pieces: batch.pieces,
                totals: batch.totals,
                values,
            };
            (encoded, Vec::new())
        }
        // One segment can make the whole batch fail. Encode each segment alone, so that only the bad one is lost.
        Err(error) => one_by_one(encoder, batch, error)?,
    };
    let segments = encoded.rows();
    tracing::debug!(%modality, segments, "batch encoded");
    cache.keep(&encoded)?;
    Ok(BatchOutcome {
        modality,
        segments,
        failed,
    })
}

/// The segments that a model fails on: the name of the video, the segment, and the reason.
type Failed = Vec<(Arc<str>, u32, String)>;

fn one_by_one(
    encoder: &mut Encoder,
    batch: Batch,
    error: ModelError,
) -> Result<(EncodedBatch, Failed), ModelError> {
    let mut failed = Vec::new();
    let mut encoded = EncodedBatch {
        width: encoder.width() as u32,
        ..EncodedBatch::default()
    };
    for ((name, piece, segment), values) in batch.places().zip(batch.values.chunks(encoder.values())) {
        match encoder.encode(values, &format!("segment {segment} of `{name}`")) {
            Ok(row) => {
                encoded.values.extend(row);
                encoded.pieces.push(Piece {
                    key: piece.key.clone(),
                    first: segment,
                    count: 1,
                });
            }
            Err(error) => failed.push((name.clone(), segment, chain(&error))),
        }
    }
    // When the model was opened, it passed a trial input of zeros. If it now fails on that input too, the model is
    // broken, not the media: report the model's error instead of rejecting every segment.
    if encoded.pieces.is_empty() && encoder.trial().is_err() {
        return Err(error);
    }
    encoded.totals = batch.totals;
    Ok((encoded, failed))
}

/// Passes every batch to the pool's sessions of its modality, and gives the outcomes in any order.
///
/// The caller must take a credit for each batch. The operator gives the credit back when the outcome of the batch has
/// arrived, whether or not the batch was encoded.
///
/// # Panics
/// Panics if the pool has no session for the modality of a batch.
pub fn encode<'scope, T: Timestamp>(
    batches: Stream<'scope, T, Vec<(Modality, Batch)>>,
    pool: &Arc<SessionPool>,
    credits: Credits,
) -> Stream<'scope, T, Vec<Result<BatchOutcome, Arc<EncodeError>>>> {
    let pool = pool.clone();
    let scope = batches.scope();
    batches.unary(Pipeline, "Encode", move |_capability, info| {
        let (reply, done) = unbounded();
        let wake = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut held: BTreeMap<u64, Capability<T>> = BTreeMap::new();
        let mut next = 0;
        let worker = scope.worker().index();
        move |input, output| {
            fault("encode", worker);
            input.for_each_time(|time, batches| {
                for (modality, batch) in batches.flat_map(|batches| batches.drain(..)) {
                    held.insert(next, time.retain(0));
                    let job = SessionTask {
                        id: next,
                        modality,
                        batch,
                        reply: reply.clone(),
                        wake: wake.clone(),
                    };
                    next += 1;
                    let queue = pool
                        .jobs
                        .get(&modality)
                        .expect("readers read only what a session is there for");
                    // The operator holds the pool, and the threads run as long as the pool exists.
                    queue.send(job).expect("the pool's threads are there");
                }
            });
            while let Ok((id, outcome)) = done.try_recv() {
                let capability = held.remove(&id).expect("each batch is answered once");
                output.session(&capability).give(outcome.map_err(Arc::new));
                credits.give();
            }
        }
    })
}
