//! The dataflow of a labelling run.
//!
//! ```text
//! reader thread ═ bounded channel ═▶ shards ── similarity ── stage ─┐            one of each per worker
//! shards of a run before ───────────────────────────────────────────┴─ scored ─┐
//! weak labels, cutoffs, previous labels ───────────────────────────────────────┴─ labelling ─▶ results
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vaplan_dataflows::admit::{Admitted, Fault};
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::differential_dataflow::AsCollection;
use vaplan_dataflows::differential_dataflow::input::Input;
use vaplan_dataflows::graph::{Inputs, labelling};
use vaplan_dataflows::similarity::{Scored, similarity};
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_dataflows::timely::dataflow::operators::generic::operator::empty;
use vaplan_dataflows::timely::dataflow::operators::{InspectCore, Leave, Probe};
use vaplan_dataflows::timely::dataflow::{Scope, Stream};
use vaplan_dataflows::{Candidate, LabelRecord, Score, VideoId, timely};
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::{ClassId, Modality};

use super::commit::{Classification, Previous};
use super::plan::Plan;
use super::read::read;
use super::stage::{Stage, StagedShard};
use super::{LabelError, Listener, Progress};

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
pub(super) struct Job {
    pub(super) plan: Arc<Plan>,
    stage: Stage,
    previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
    listener: Listener,
    /// Positions of shards that are to be read.
    pub(super) pending: Vec<usize>,
    pub(super) next: AtomicUsize,
    finished: AtomicUsize,
    pub(super) cancelled: AtomicBool,
    error: Mutex<Option<LabelError>>,
    results: Mutex<Results>,
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
type ScoredUpdate = ((VideoId, Candidate), u64, isize);

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
                        marks: empty(scope).as_collection(),
                        predictions: empty(scope).as_collection(),
                        denoising: empty(scope).as_collection(),
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
fn scored<'scope>(scope: Scope<'scope, u64>, job: &Arc<Job>) -> Stream<'scope, u64, Vec<ScoredUpdate>> {
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
                    shard.take(scored, &job.plan);
                    if let Tag::End(position, rejects) = tag {
                        shard.end(rejects, &job.plan);
                        let done = std::mem::take(&mut shard);
                        session.give_iterator(done.candidates.iter().map(|entry| (entry.clone(), at, 1)));
                        finish(&job, position, done);
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
    let finished = job.finished.fetch_add(1, Ordering::SeqCst) + 1;
    tracing::debug!(finished, of = job.pending.len(), "shard staged");
}

/// A poisoned lock is one whose holder panicked; its lists are only added to, so they still hold.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
