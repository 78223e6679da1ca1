//! The operator that encodes: batches in, embeddings out, as its models come to them.
//!
//! ```text
//! batches ── encode ─────────────────────▶ what became of them, in any order
//!             │    ▲                       a batch's capability is held until its rows are kept
//!             ▼    │  bounded by credits
//!        threads, each with a session of its own ──▶ cache
//! ```
//!
//! A thread keeps its batch in the cache before it takes another: whatever ends the process, a session loses one.
//!
//! The worker never waits: models run in threads of their own, and wake it when they are done. How many batches are on
//! the way is bounded by [`Credits`]: the source takes no batch from the readers while none is left, and the readers'
//! channel is bounded, so that they wait.

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

/// What became of a batch.
#[derive(Debug)]
pub struct BatchOutcome {
    /// Which model ran.
    pub modality: Modality,
    /// Segments that it gave embeddings of; they are in the cache.
    pub segments: u64,
    /// Segments that it failed on: video, segment, why.
    pub failed: Vec<(Arc<str>, u32, String)>,
}

/// Batches that may be on the way in a worker at once.
#[derive(Clone)]
pub struct Credits {
    left: Rc<Cell<usize>>,
    /// Wakes the source that waits for one.
    source: Rc<RefCell<Option<Activator>>>,
}

impl Credits {
    /// So many.
    pub fn new(credits: usize) -> Credits {
        Credits {
            left: Rc::new(Cell::new(credits.max(1))),
            source: Rc::default(),
        }
    }

    /// Whom to wake when one comes back.
    pub fn wakes(&self, source: Activator) {
        *self.source.borrow_mut() = Some(source);
    }

    /// Is one left?
    pub fn any(&self) -> bool {
        self.left.get() > 0
    }

    /// Takes one.
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

/// A batch for a session, and where its rows go.
struct SessionTask {
    id: u64,
    modality: Modality,
    batch: Batch,
    reply: Sender<(u64, Result<BatchOutcome, EncodeError>)>,
    wake: Arc<SyncActivator>,
}

/// Threads with a session each, for one or both modalities.
pub struct SessionPool {
    jobs: BTreeMap<Modality, Sender<SessionTask>>,
    threads: Vec<JoinHandle<()>>,
}

impl SessionPool {
    /// Starts a thread for every session, which keeps what it encodes in `cache`.
    pub fn start(sessions: Vec<(Modality, Encoder)>, cache: &Arc<Cache>) -> SessionPool {
        let mut queues: BTreeMap<Modality, (Sender<SessionTask>, Receiver<SessionTask>)> = BTreeMap::new();
        let threads = sessions.into_iter().map(|(modality, mut encoder)| {
            let (_, queue) = queues.entry(modality).or_insert_with(unbounded);
            let (queue, cache) = (queue.clone(), cache.clone());
            std::thread::spawn(move || {
                let path = encoder.path().to_owned();
                for job in queue {
                    // A thread that went away would leave its batch, and so the dataflow, waiting for ever.
                    let work = || {
                        fault("session", 0);
                        run(&mut encoder, &cache, job.modality, job.batch)
                    };
                    let outcome = contain(work).unwrap_or_else(|panic| {
                        let problem = format!("panicked: {panic}");
                        let path = path.clone();
                        Err(ModelError::Model { path, problem }.into())
                    });
                    // Fails only where the worker is gone: then nobody waits.
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

    /// Lets the threads end, and waits for them.
    pub fn stop(self) {
        drop(self.jobs);
        for thread in self.threads {
            // One that panicked has said so; its batch is missed by whoever counts.
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
        // One bad segment must not take the others along.
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

/// Video, segment and why, of segments that a model fails on.
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
    // A model that fails on what it was opened with is broken, not the media.
    if encoded.pieces.is_empty() && encoder.trial().is_err() {
        return Err(error);
    }
    encoded.totals = batch.totals;
    Ok((encoded, failed))
}

/// Encodes every batch by the pool's sessions of its modality, which keep it; outcomes come in any order.
///
/// Each batch must have taken a credit; it is given back when its rows are kept.
///
/// # Panics
/// If the pool has no session of a batch's modality.
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
                    // Threads end only when the pool does, which this operator holds.
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
