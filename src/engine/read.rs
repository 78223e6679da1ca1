//! Reader threads: they decode shards into batches of features of the videos in the plan.
//!
//! A reader decodes one shard after the other. The reader waits while its channel is full, so that memory holds at most
//! a few batches per reader, whatever the size of the shards. The worker of the reader parks while the channel is
//! empty.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use vaplan_dataflows::FeatureHash;
use vaplan_dataflows::similarity::{SegmentBatch, Span};
#[cfg(feature = "encode")]
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
#[cfg(feature = "encode")]
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::dataflow::operators::generic::operator::source;
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::timely::scheduling::SyncActivator;
use vaplan_dataflows::workers::panic_point;
use vaplan_schemas::contain::contain;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::plan::{Plan, PlannedShard};
use super::score::{BatchTag, LeftOut, ScoringJob};
use crate::error::LabelError;
use crate::ingest::features::{FeatureBatch, FeatureEvent};
use crate::world::Meaning;

/// Rows of a batch. The number is large enough for a fast matrix product, and small enough that the batch stays in the
/// processor cache between decoding and the product.
const BATCH_ROWS: usize = 256;
/// Largest number of batches that wait between a reader and its worker.
const WAITING: usize = 16;

/// Starts a reader thread for this worker, and emits its batches.
pub(super) fn read<'scope>(
    scope: Scope<'scope, u64>,
    job: &Arc<ScoringJob>,
) -> Stream<'scope, u64, Vec<(BatchTag, SegmentBatch)>> {
    let job = job.clone();
    source(scope, "Read", move |capability, info| {
        let (sender, receiver): (Sender<(BatchTag, SegmentBatch)>, Receiver<_>) = bounded(WAITING);
        let wake = scope.worker().sync_activator_for(info.address.to_vec());
        let activator = scope.activator_for(info.address);
        std::thread::spawn(move || {
            // The worker must wake after its channel is closed, however the thread ends. Locals are dropped in reverse
            // order: first `sender`, which closes the channel, and then `wake`, which wakes the worker.
            let wake = Wake(wake);
            let sender = sender;
            if let Err(panic) = contain(|| read_shards(&job, &sender, &wake)) {
                job.fail(LabelError::Stopped(format!("a reader thread panicked: {panic}")));
            }
        });
        let mut capability = Some(capability);
        move |output| {
            panic_point("read");
            let Some(held) = &capability else { return };
            match receiver.try_recv() {
                Ok(message) => {
                    output.session(held).give(message);
                    activator.activate();
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => capability = None,
            }
        }
    })
}

/// Wakes a worker on request, and once more when this value is dropped.
struct Wake(SyncActivator);

impl Wake {
    fn wake(&self) {
        // The call fails only if the worker has ended. No one waits for the wake-up then.
        let _ = self.0.activate();
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Reads shards one after the other. Each reader takes the next shard from the list that all readers share.
fn read_shards(job: &ScoringJob, sender: &Sender<(BatchTag, SegmentBatch)>, wake: &Wake) {
    panic_point("reader");
    let send = |message| {
        let gone = sender.send(message).is_err() || job.is_cancelled();
        wake.wake();
        if gone {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    while let Some(&at) = job.pending.get(job.next.fetch_add(1, Ordering::Relaxed)) {
        if read_shard(&job.plan, &job.plan.shards[at], &mut { send }).is_break() {
            return;
        }
    }
}

/// Reads a shard, and sends its batches and then its end.
fn read_shard(
    plan: &Plan,
    shard: &PlannedShard,
    send: &mut dyn FnMut((BatchTag, SegmentBatch)) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let width = plan.prompts.of(shard.modality).width();
    let mut left_out = LeftOut::default();
    let mut stopped = false;
    shard.shard.read(BATCH_ROWS, &mut |event| {
        let flow = match event {
            FeatureEvent::Reject(row) => {
                left_out.rejects.push(row);
                ControlFlow::Continue(())
            }
            FeatureEvent::Batch(batch) => match segment_batch(batch, width, plan, &mut left_out) {
                Some(batch) => send((BatchTag::Rows, batch)),
                None => ControlFlow::Continue(()),
            },
        };
        stopped |= flow.is_break();
        flow
    });
    if stopped {
        return ControlFlow::Break(());
    }
    let end = SegmentBatch {
        modality: shard.modality,
        data: Vec::new(),
        spans: Vec::new(),
    };
    send((BatchTag::End(shard.key.as_str().into(), left_out), end))
}

/// Reads the shards that another operator of the dataflow gives, in the worker itself: these files were just written, so that
/// reading them waits for no disk.
#[cfg(feature = "encode")]
pub(super) fn read_given<'scope>(
    shards: Stream<'scope, u64, Vec<PlannedShard>>,
    job: &Arc<ScoringJob>,
) -> Stream<'scope, u64, Vec<(BatchTag, SegmentBatch)>> {
    let job = job.clone();
    shards.unary(Pipeline, "Read", move |_capability, _info| {
        move |input, output| {
            input.for_each_time(|time, shards| {
                let mut session = output.session(&time);
                for shard in shards.flat_map(|shards| shards.drain(..)) {
                    if job.is_cancelled() {
                        return;
                    }
                    let _ = read_shard(&job.plan, &shard, &mut |message| {
                        session.give(message);
                        ControlFlow::Continue(())
                    });
                }
            });
        }
    })
}

/// Finds the video of each span of a batch. Spans of videos outside the plan, and spans with a wrong width, are
/// removed.
fn segment_batch(
    batch: FeatureBatch,
    width: usize,
    plan: &Plan,
    left_out: &mut LeftOut,
) -> Option<SegmentBatch> {
    let FeatureBatch {
        modality,
        width: found,
        mut data,
        videos,
    } = batch;
    let mut spans = Vec::with_capacity(videos.len());
    let (mut from, mut to) = (0, 0);
    for span in videos {
        let values = span.segments as usize * found;
        let meaning = plan.meaning(&span.key);
        left_out.rejects.extend(meaning.reject(&span.file, span.row));
        if meaning == Meaning::Unknown {
            left_out.unknown.note(&span.key, &span.file);
        }
        if let Meaning::Video(position) = meaning {
            let video = plan.videos.at(position);
            if found == width {
                let features = FeatureHash::of(&data[from..from + values]);
                if from != to {
                    data.copy_within(from..from + values, to);
                }
                to += values;
                spans.push(Span {
                    video: video.id,
                    segments: span.segments,
                    weak: plan.world.scored(video.weak),
                    source: span.file,
                    row: span.row,
                    features,
                });
            } else {
                let reason = format!(
                    "{modality} feature has width {found}, expected {width} as the {modality} text embeddings"
                );
                let reject = RejectRow::reject(RejectKind::FeatureRow, &*span.file, reason);
                left_out
                    .rejects
                    .push(reject.row(span.row).video(video.name).modality(modality));
            }
        }
        from += values;
    }
    data.truncate(to);
    (!spans.is_empty()).then_some(SegmentBatch {
        modality,
        data,
        spans,
    })
}
