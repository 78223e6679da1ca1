//! Reader threads: shards to batches of videos that are asked for.
//!
//! A reader decodes one shard after the other and waits while its channel is full, so that memory holds a few batches
//! whatever the size of the shards. Its worker parks while the channel is empty.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use vaplan_dataflows::FeatureHash;
use vaplan_dataflows::similarity::{SegmentBatch, Span};
use vaplan_dataflows::timely::dataflow::operators::generic::operator::source;
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::timely::scheduling::SyncActivator;
use vaplan_schemas::contain::contain;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::plan::Plan;
use super::score::{Job, Tag, panic_point};
use crate::error::LabelError;
use crate::ingest::features::{FeatureBatch, FeatureEvent};
use crate::world::Meaning;

/// Rows of a batch: large enough for the matrix product, small enough that decoding and it stay in cache.
const BATCH_ROWS: usize = 256;
/// Batches that wait between a reader and its worker.
const WAITING: usize = 16;

/// Batches of a reader thread of this worker's own.
pub(super) fn read<'scope>(
    scope: Scope<'scope, u64>,
    job: &Arc<Job>,
) -> Stream<'scope, u64, Vec<(Tag, SegmentBatch)>> {
    let job = job.clone();
    source(scope, "Read", move |capability, info| {
        let (sender, receiver): (Sender<(Tag, SegmentBatch)>, Receiver<_>) = bounded(WAITING);
        let wake = scope.worker().sync_activator_for(info.address.to_vec());
        let activator = scope.activator_for(info.address);
        std::thread::spawn(move || {
            // However the thread ends, the worker must wake to see its channel closed: locals go in reverse order.
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

/// Wakes a worker, at the latest when it is dropped.
struct Wake(SyncActivator);

impl Wake {
    fn wake(&self) {
        // Fails only where the worker is gone: then nobody waits.
        let _ = self.0.activate();
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Reads shards one after the other, each taken from what all readers share.
fn read_shards(job: &Job, sender: &Sender<(Tag, SegmentBatch)>, wake: &Wake) {
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
        let shard = &job.plan.shards[at];
        let width = job.plan.prompts.of(shard.modality).width();
        let mut rejects = Vec::new();
        let mut stopped = false;
        shard.shard.read(BATCH_ROWS, &mut |event| {
            let flow = match event {
                FeatureEvent::Reject(row) => {
                    rejects.push(row);
                    ControlFlow::Continue(())
                }
                FeatureEvent::Batch(batch) => match segment_batch(batch, width, &job.plan, &mut rejects) {
                    Some(batch) => send((Tag::Rows, batch)),
                    None => ControlFlow::Continue(()),
                },
            };
            stopped |= flow.is_break();
            flow
        });
        if stopped {
            return;
        }
        let end = SegmentBatch {
            modality: shard.modality,
            data: Vec::new(),
            spans: Vec::new(),
        };
        if send((Tag::End(at, rejects), end)).is_break() {
            return;
        }
    }
}

/// Names the videos of a batch; those that are not asked for, or whose width is wrong, are cut out.
fn segment_batch(
    batch: FeatureBatch,
    width: usize,
    plan: &Plan,
    rejects: &mut Vec<RejectRow>,
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
        rejects.extend(meaning.reject(&span.file, span.row));
        if let Meaning::Video(position) = meaning {
            let video = &plan.videos[position];
            if found == width {
                let features = FeatureHash::of(&data[from..from + values]);
                if from != to {
                    data.copy_within(from..from + values, to);
                }
                to += values;
                spans.push(Span {
                    video: video.id,
                    segments: span.segments,
                    weak: video.weak.clone(),
                    source: span.file,
                    row: span.row,
                    features,
                });
            } else {
                let reason = format!(
                    "{modality} feature has width {found}, expected {width} as the {modality} text embeddings"
                );
                let reject = RejectRow::reject(RejectKind::FeatureRow, &*span.file, reason);
                rejects.push(reject.row(span.row).video(&*video.name).modality(modality));
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
