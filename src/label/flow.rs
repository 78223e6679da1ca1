//! The dataflow of a labelling run.
//!
//! ```text
//! reader thread ═ bounded channel ═▶ shards ── similarity ── stage ─┐            one of each per worker
//! shards of a run before ───────────────────────────────────────────┴─ scored ─┐
//! weak labels, cutoffs, previous labels ───────────────────────────────────────┴─ labelling ─▶ results
//! ```
//!
//! A reader decodes one shard after the other and waits while its channel is full, so that memory holds a few batches
//! whatever the size of the shards. A worker parks while its channel is empty.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use vaplan_dataflows::admit::{Admitted, Fault};
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::differential_dataflow::AsCollection;
use vaplan_dataflows::differential_dataflow::input::Input;
use vaplan_dataflows::graph::{Inputs, labelling};
use vaplan_dataflows::similarity::{Scored, SegmentBatch, Span, similarity};
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::dataflow::operators::generic::operator::source;
use vaplan_dataflows::timely::dataflow::operators::{InspectCore, Leave, Probe};
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::timely::scheduling::SyncActivator;
use vaplan_dataflows::{Candidate, LabelRecord, Score, VideoId, timely};
use vaplan_schemas::rows::{RejectRow, Severity};
use vaplan_schemas::{ClassId, Modality};

use super::commit::{Classification, Previous};
use super::plan::{Meaning, Plan};
use super::stage::{Stage, StagedShard};
use super::{LabelError, Listener, Progress};
use crate::ingest::features::{FeatureBatch, FeatureEvent};

/// Rows of a batch: large enough for the matrix product, small enough to stay in cache.
const BATCH_ROWS: usize = 1024;
/// Batches that wait between a reader and its worker.
const WAITING: usize = 4;

/// What the dataflow gave; every list in no particular order.
#[derive(Debug, Default)]
pub struct Results {
    /// Features that count.
    pub admitted: Vec<(VideoId, Modality, Admitted)>,
    /// Labels, one per video and modality.
    pub labels: Vec<(VideoId, Modality, Arc<LabelRecord>)>,
    /// Cells set in both modalities.
    pub audio_visual: u64,
    /// Modalities of videos without labels.
    pub faults: Vec<(VideoId, Fault)>,
    /// Cells that differ from the version before.
    pub changes: Vec<Change>,
    /// What reading and scoring left out.
    pub rejects: Vec<RejectRow>,
}

/// What all workers and readers share.
struct Job {
    plan: Arc<Plan>,
    stage: Stage,
    previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
    listener: Listener,
    /// Positions of shards that are to be read.
    pending: Vec<usize>,
    next: AtomicUsize,
    finished: AtomicUsize,
    cancelled: AtomicBool,
    error: Mutex<Option<LabelError>>,
    results: Mutex<Results>,
}

/// What a batch belongs to.
#[derive(Clone, Debug)]
enum Tag {
    /// Rows of a shard.
    Rows,
    /// The shard at this position is read to its end; with what was left out.
    End(usize, Vec<RejectRow>),
}

/// Runs the graph to its end.
///
/// # Errors
/// [`LabelError::Stage`] where a finished shard cannot be kept, [`LabelError::Stopped`] where the dataflow does not
/// come to its end.
pub fn run(
    plan: &Arc<Plan>,
    stage: &Stage,
    previous: Option<&Previous>,
    workers: usize,
    listener: &Listener,
) -> Result<Results, LabelError> {
    let (staged, pending): (Vec<usize>, Vec<usize>) =
        (0..plan.shards.len()).partition(|&at| stage.has(&plan.shards[at].key));
    let mut loaded = Vec::new();
    let mut unread = pending;
    for at in staged {
        match stage.load(&plan.shards[at].key) {
            Some(shard) => loaded.push(shard),
            None => unread.push(at),
        }
    }
    unread.sort_unstable();
    listener(Progress::Planned {
        shards: plan.shards.len(),
        staged: loaded.len(),
    });
    let classes = Classification::new(&plan.classes, previous);
    let rejects = loaded
        .iter_mut()
        .flat_map(|shard| std::mem::take(&mut shard.rejects))
        .collect();
    let job = Arc::new(Job {
        plan: plan.clone(),
        stage: stage.clone(),
        previous: previous
            .map(|previous| previous.records(&classes))
            .unwrap_or_default(),
        listener: listener.clone(),
        next: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        cancelled: AtomicBool::new(false),
        error: Mutex::new(None),
        results: Mutex::new(Results {
            rejects,
            ..Results::default()
        }),
        pending: unread,
    });
    let loaded = Arc::new(loaded);
    let shared = job.clone();
    let guards =
        timely::execute(timely::Config::process(workers), move |worker| {
            let (index, peers) = (worker.index(), worker.peers());
            let job = shared.clone();
            let (mut weak, mut staged, mut cutoffs, mut previous, probe) =
                worker.dataflow::<u64, _, _>(|scope| {
                    let (weak_in, weak) = scope.new_collection();
                    let (staged_in, staged) = scope.new_collection();
                    let (cutoffs_in, cutoffs) = scope.new_collection();
                    let (previous_in, previous) = scope.new_collection();
                    let read = scored(scope, &job).as_collection();
                    let outputs = labelling(Inputs {
                        weak,
                        scored: staged.concat(read),
                        cutoffs,
                        previous,
                    });
                    let to = job.clone();
                    outputs.admitted.inspect_container(move |event| {
                        if let Ok((_, updates)) = event {
                            let mut results = lock(&to.results);
                            results.admitted.extend(updates.iter().map(
                                |((video, (modality, admitted)), _, _)| (*video, *modality, admitted.clone()),
                            ));
                        }
                    });
                    let to = job.clone();
                    outputs.labels.inspect_container(move |event| {
                        if let Ok((_, updates)) = event {
                            let mut results = lock(&to.results);
                            results.labels.extend(updates.iter().map(
                                |(((video, modality), record), _, _)| (*video, *modality, record.clone()),
                            ));
                        }
                    });
                    let to = job.clone();
                    outputs
                        .audio_visual
                        .inspect(move |((_, record), _, _)| lock(&to.results).audio_visual += record.ones());
                    let to = job.clone();
                    outputs.faults.inspect(move |((video, fault), _, _)| {
                        lock(&to.results).faults.push((*video, fault.clone()));
                    });
                    let to = job.clone();
                    let (probe, _) = outputs
                        .changes
                        .inspect_container(move |event| {
                            if let Ok((_, changes)) = event {
                                lock(&to.results).changes.extend_from_slice(changes);
                            }
                        })
                        .probe();
                    (weak_in, staged_in, cutoffs_in, previous_in, probe)
                });
            let mine = |nth: usize| nth % peers == index;
            for (_, video) in job.plan.videos.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                weak.insert((video.id, video.weak.clone()));
            }
            for (_, shard) in loaded.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                shard
                    .candidates
                    .iter()
                    .for_each(|entry| staged.insert(entry.clone()));
            }
            if index == 0 {
                for modality in Modality::ALL {
                    let settings = job.plan.settings.of(modality);
                    for class in (0..job.plan.classes.len() as u32).map(ClassId) {
                        let cutoff = Score::new(settings.cutoff(class)).expect("thresholds are finite");
                        cutoffs.insert(((modality, class), cutoff));
                    }
                }
                job.previous
                    .iter()
                    .for_each(|entry| previous.insert(entry.clone()));
            }
            weak.close();
            staged.close();
            cutoffs.close();
            previous.close();
            worker.step_or_park_while(None, || !probe.done());
        })
        .map_err(LabelError::Stopped)?;
    for guard in guards.join() {
        guard.map_err(LabelError::Stopped)?;
    }
    if let Some(error) = lock(&job.error).take() {
        return Err(error);
    }
    let (finished, wanted) = (job.finished.load(Ordering::SeqCst), job.pending.len());
    if finished != wanted {
        return Err(LabelError::Stopped(format!(
            "{finished} of {wanted} shards were read to their end"
        )));
    }
    let results = std::mem::take(&mut *lock(&job.results));
    Ok(results)
}

/// Scores of the shards that are to be read, as updates; each shard is staged when it is done.
fn scored<'scope>(
    scope: Scope<'scope, u64>,
    job: &Arc<Job>,
) -> Stream<'scope, u64, Vec<((VideoId, Candidate), u64, isize)>> {
    let job = job.clone();
    scope.region_named("Shards", |inner| {
        let batches = read(inner, &job);
        let scored = similarity(batches, job.plan.prompts.clone());
        keep(scored, job).leave(scope)
    })
}

/// Batches of a reader thread of this worker's own.
fn read<'scope>(scope: Scope<'scope, u64>, job: &Arc<Job>) -> Stream<'scope, u64, Vec<(Tag, SegmentBatch)>> {
    let job = job.clone();
    source(scope, "Read", move |capability, info| {
        let (sender, receiver): (Sender<(Tag, SegmentBatch)>, Receiver<_>) = bounded(WAITING);
        let wake = scope.worker().sync_activator_for(info.address.to_vec());
        let activator = scope.activator_for(info.address);
        std::thread::spawn(move || {
            // However the thread ends, the worker must wake to see its channel closed: locals go in reverse order.
            let wake = Wake(wake);
            let sender = sender;
            read_shards(&job, &sender, &wake);
        });
        let mut capability = Some(capability);
        move |output| {
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
    let send = |message| {
        let gone = sender.send(message).is_err() || job.cancelled.load(Ordering::Relaxed);
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
                });
            } else {
                rejects.push(RejectRow {
                    file: span.file.to_string(),
                    row: Some(span.row),
                    video: Some(video.name.to_string()),
                    severity: Severity::Reject,
                    reason: format!(
                        "{modality} feature has width {found}, expected {width} as the {modality} text embeddings"
                    ),
                });
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

/// Passes candidates on, and keeps those of a shard when it is done.
fn keep<'scope>(
    scored: Stream<'scope, u64, Vec<(Tag, Vec<Scored>)>>,
    job: Arc<Job>,
) -> Stream<'scope, u64, Vec<((VideoId, Candidate), u64, isize)>> {
    scored.unary(Pipeline, "Stage", move |_capability, _info| {
        // Of the one shard that this worker's reader is at.
        let mut shard = StagedShard::default();
        move |input, output| {
            input.for_each_time(|time, batches| {
                let at = *time.time();
                let mut session = output.session(&time);
                for (tag, scored) in batches.flat_map(|batches| batches.drain(..)) {
                    for scored in scored {
                        match scored {
                            Scored::Candidate(video, candidate) => {
                                shard.segments += u64::from(candidate.record.segments());
                                shard.candidates.push((video, candidate.clone()));
                                session.give(((video, candidate), at, 1));
                            }
                            Scored::Fault(video, modality, file, row, fault) => {
                                shard.rejects.push(RejectRow {
                                    file: file.to_string(),
                                    row: Some(row),
                                    video: job.plan.name(video).map(|name| name.to_string()),
                                    severity: Severity::Reject,
                                    reason: format!("{modality} {fault}"),
                                })
                            }
                        }
                    }
                    if let Tag::End(position, rejects) = tag {
                        shard.rejects.extend(rejects);
                        finish(&job, position, std::mem::take(&mut shard));
                    }
                }
            });
        }
    })
}

fn finish(job: &Job, position: usize, shard: StagedShard) {
    if let Err(error) = job.stage.keep(&job.plan.shards[position].key, &shard) {
        job.cancelled.store(true, Ordering::Relaxed);
        lock(&job.error).get_or_insert(error);
        return;
    }
    (job.listener)(Progress::Shard {
        segments: shard.segments,
    });
    lock(&job.results).rejects.extend(shard.rejects);
    job.finished.fetch_add(1, Ordering::SeqCst);
}

/// A poisoned lock is one whose holder panicked; its lists are only added to, so they still hold.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
