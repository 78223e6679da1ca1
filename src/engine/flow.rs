//! The dataflows of a whole labelling run: one per pass.
//!
//! ```text
//! staged candidates of the pass ───────────────────────────────────┐
//! weak labels of the pass, thresholds ─────────────────────────────┼─ labelling ─▶ outcome of the pass ═ channel ═▶ writer
//! user labels, predictions, labels of the version before (before) ─┘
//! ```
//!
//! All workers step through the passes together, with a new dataflow for each pass, so that the memory of a pass is free
//! when its rows are written. The writer takes the outcome of one pass while the workers label the next pass. The channel
//! holds no pass: if the writer is slower, the workers wait.
//!
//! In a cluster, every process reads the candidates of the shards that it staged, and each candidate moves to the process
//! that has the bucket of its video. Every process reads the version before, labels and writes its own buckets. No other
//! row moves between processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crossbeam::channel::{Receiver, Sender, bounded};
use vaplan_dataflows::VideoId;
use vaplan_dataflows::feed::Feed;
use vaplan_dataflows::graph::{Inputs, Outputs, labelling};
use vaplan_dataflows::outcome::{Outcome, Output};
use vaplan_dataflows::timely::dataflow::operators::InspectCore;
use vaplan_dataflows::workers::panic_point;
use vaplan_schemas::Modality;

use super::before::VersionBefore;
use super::passes::{Pass, Passes};
use super::plan::Plan;
use super::rows::Sources;
use super::score::lock;
use super::share::BucketShare;
use super::stage::Stage;
use super::workers::{WorkerGroup, WorkerSlice};
use crate::error::LabelError;

/// Inputs of the dataflows.
#[derive(Clone)]
pub struct FlowInput {
    /// Videos, prompts, settings and shards.
    pub plan: Arc<Plan>,
    /// Folder of the scores of finished shards.
    pub stage: Stage,
    /// Positions in the plan of the shards that this process has staged.
    pub shards: Vec<usize>,
    /// The passes of the run.
    pub passes: Passes,
    /// The version before.
    pub before: Arc<VersionBefore>,
    /// The buckets that this process labels and writes.
    pub share: BucketShare,
}

/// The labels of one pass, complete.
#[derive(Debug)]
pub struct LabelledPass {
    /// The pass.
    pub pass: Pass,
    /// The buckets of the pass that this process has.
    pub(super) buckets: Vec<u32>,
    /// The output of the graph.
    pub outcome: Outcome,
    /// The feature file of each candidate, with its video and modality, sorted.
    sources: Vec<Source>,
    /// Names of the videos that only the version before has.
    removed: BTreeMap<VideoId, Arc<str>>,
    /// The videos of the plan that have labels in the version before, each with its modality.
    pub(super) labelled_before: Vec<(VideoId, Modality)>,
}

/// The feature file of a candidate.
type Source = (VideoId, Modality, Arc<str>);
/// A pass, or the error that ends the run.
type PassResult = Result<LabelledPass, LabelError>;

impl LabelledPass {
    /// Returns the name of a video of the plan or of the version before.
    pub fn name<'a>(&'a self, plan: &'a Plan, video: VideoId) -> Option<&'a str> {
        let removed = || self.removed.get(&video).map(|name| &**name);
        plan.name(video).or_else(removed)
    }

    /// The feature files of a video that were read.
    pub(super) fn sources_of(&self, video: VideoId) -> Sources {
        let first = self.sources.partition_point(|(own, ..)| *own < video);
        let mut sources = Sources::default();
        for (_, modality, source) in self.sources[first..].iter().take_while(|(own, ..)| *own == video) {
            sources[modality.index()].insert(source.clone());
        }
        sources
    }
}

/// How a process waits for the threads that label.
pub trait Wait {
    /// Waits for the next message; `None` if there is none any more.
    ///
    /// # Errors
    /// Returns an error if the run ends meanwhile for another reason.
    fn next<T>(&mut self, from: &Receiver<T>) -> Result<Option<T>, LabelError>;

    /// Whether the threads of this process end by themselves after an error of the run.
    fn ends_after_error(&self) -> bool;
}

/// The only process of a run.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Wait for Alone {
    fn next<T>(&mut self, from: &Receiver<T>) -> Result<Option<T>, LabelError> {
        Ok(from.recv().ok())
    }

    fn ends_after_error(&self) -> bool {
        true
    }
}

/// Labels all passes on the workers of a group, and calls `write` with the buckets of this process in each pass, in order.
///
/// # Errors
/// Returns [`LabelError::Stage`] if staged scores cannot be read, [`LabelError::Stopped`] if a dataflow does not reach its
/// end, and the errors of `write` and `wait`.
pub fn label(
    given: FlowInput,
    team: WorkerGroup,
    wait: &mut impl Wait,
    write: &mut dyn FnMut(LabelledPass) -> Result<(), LabelError>,
) -> Result<(), LabelError> {
    let (to_writer, passes) = bounded(0);
    let (ended, end) = bounded(1);
    std::thread::spawn(move || {
        // The send fails only if the run has ended with an error meanwhile.
        let _ = ended.send(run_workers(given, team, to_writer));
    });
    let written = loop {
        match wait.next(&passes) {
            Ok(Some(Ok(pass))) => {
                if let Err(error) = write(pass) {
                    break Err(error);
                }
            }
            Ok(Some(Err(error))) | Err(error) => break Err(error),
            Ok(None) => break Ok(()),
        }
    };
    // Without the receiver, the next worker that sends a pass stops all workers.
    drop(passes);
    match written {
        Err(error) => {
            if wait.ends_after_error() {
                let _ = end.recv();
            }
            Err(error)
        }
        Ok(()) => {
            let lost = || LabelError::Stopped("the thread of the workers ended without a result".to_owned());
            wait.next(&end)?.unwrap_or_else(|| Err(lost()))
        }
    }
}

fn run_workers(given: FlowInput, team: WorkerGroup, writer: Sender<PassResult>) -> Result<(), LabelError> {
    let team = Arc::new(team);
    let results = Arc::new(Results {
        workers: team.workers(),
        open: Mutex::default(),
        done: Mutex::default(),
    });
    let (group, shared) = (team.clone(), results.clone());
    let passes = given.passes.count();
    team.run(move |worker, stop| {
        let slices = Slices {
            index: worker.index() as u64,
            peers: worker.peers() as u64,
            here: group.within(worker.index()),
        };
        let placement = given.share.placement();
        for (nth, pass) in given.passes.iter().enumerate() {
            let result = shared.of_pass(nth);
            let mut feed = worker.dataflow::<u64, _, _>(|scope| {
                let (feed, inputs) = Feed::new(scope, placement);
                collect_sources(&inputs, &result);
                collect(labelling(inputs), &result);
                feed
            });
            let filled = match fill(&mut feed, &given, &pass, slices) {
                Ok(filled) => filled,
                Err(error) => {
                    // The send fails only if the run has ended with another error.
                    let _ = writer.send(Err(error));
                    stop.set();
                    return;
                }
            };
            drop(feed);
            {
                let mut result = lock(&result);
                result.removed.extend(filled.removed);
                result.labelled_before.extend(filled.labelled_before);
            }
            drop(result);
            if stop.finish(worker).is_err() {
                // Another worker panicked, or the run has ended. `team.run` reports a panic.
                return;
            }
            let buckets = given.share.of_pass(&pass);
            let Some(labelled) = shared.finished(nth, pass, buckets) else {
                continue;
            };
            if writer.send(Ok(labelled)).is_err() {
                stop.set();
                return;
            }
        }
    })?;
    let done = *lock(&results.done);
    match done == passes {
        true => Ok(()),
        false => Err(LabelError::Stopped(format!(
            "{done} of {passes} passes were labelled"
        ))),
    }
}

/// The work of one worker.
#[derive(Clone, Copy)]
struct Slices {
    /// The index of the worker among the workers of all processes.
    index: u64,
    /// The number of workers of all processes.
    peers: u64,
    /// The share of the worker in the work of its process.
    here: WorkerSlice,
}

/// What the version before says of the videos of a pass.
#[derive(Default)]
struct Filled {
    /// Names of videos that only the version before has.
    removed: Vec<(VideoId, Arc<str>)>,
    /// The videos of the plan that have labels in the version before, each with its modality.
    labelled_before: Vec<(VideoId, Modality)>,
}

/// Feeds the inputs of a pass to the graph.
fn fill(feed: &mut Feed, given: &FlowInput, pass: &Pass, slices: Slices) -> Result<Filled, LabelError> {
    let plan = &given.plan;
    let placement = given.share.placement();
    for video in plan.videos.of_ids(pass.ids()) {
        if placement.worker(video.id) % slices.peers == slices.index {
            feed.weak.insert((video.id, video.weak.clone()));
            if plan.world.guesses(video.weak) {
                feed.guessed.insert((video.id, plan.world.settings.candidates));
            }
        }
    }
    for (nth, &shard) in given.shards.iter().enumerate() {
        if slices.here.has(nth) {
            panic_point("load");
            let insert = |video, candidate| feed.scored.insert((video, candidate));
            given.stage.candidates(&plan.shards[shard].key, pass, insert)?;
        }
    }
    if slices.index == 0 {
        let thresholds = plan.world.thresholds().into_iter();
        thresholds.for_each(|entry| feed.thresholds.insert(entry));
        for modality in Modality::ALL {
            if let Some(settings) = plan.world.denoising[modality.index()] {
                feed.denoising.insert((modality, settings));
            }
        }
    }
    let mut filled = Filled::default();
    for (nth, bucket) in given.share.of_pass(pass).into_iter().enumerate() {
        if slices.here.has(nth) {
            let before = given.before.bucket_rows(bucket)?;
            let labelled = before.previous.iter().map(|(key, _)| *key);
            filled
                .labelled_before
                .extend(labelled.filter(|(video, _)| plan.name(*video).is_some()));
            let previous = before.previous.into_iter();
            previous.for_each(|entry| feed.previous.insert(entry));
            let user_labels = before.evidence.user_labels.into_iter();
            user_labels.for_each(|entry| feed.user_labels.insert(entry));
            let predictions = before.evidence.predictions.into_iter();
            predictions.for_each(|entry| feed.predictions.insert(entry));
            filled.removed.extend(before.removed);
        }
    }
    Ok(filled)
}

/// The outcomes of the passes that the workers of this process are labelling.
struct Results {
    workers: usize,
    open: Mutex<BTreeMap<usize, OpenPass>>,
    /// The number of passes that all workers have finished.
    done: Mutex<usize>,
}

/// The outcome of a pass, and the number of workers that have finished the pass.
type OpenPass = (Arc<Mutex<PassOutcome>>, usize);

#[derive(Debug, Default)]
struct PassOutcome {
    outcome: Outcome,
    sources: Vec<Source>,
    removed: BTreeMap<VideoId, Arc<str>>,
    labelled_before: Vec<(VideoId, Modality)>,
}

impl Results {
    fn of_pass(&self, nth: usize) -> Arc<Mutex<PassOutcome>> {
        lock(&self.open).entry(nth).or_default().0.clone()
    }

    /// Records that a worker has finished a pass. Returns the pass to the last worker.
    fn finished(&self, nth: usize, pass: Pass, buckets: Vec<u32>) -> Option<LabelledPass> {
        let mut open = lock(&self.open);
        let (_, finished) = open.get_mut(&nth).expect("the worker has opened the pass");
        *finished += 1;
        if *finished < self.workers {
            return None;
        }
        let (outcome, _) = open.remove(&nth).expect("the pass was just there");
        *lock(&self.done) += 1;
        drop(open);
        let PassOutcome {
            mut outcome,
            mut sources,
            removed,
            labelled_before,
        } = std::mem::take(&mut *lock(&outcome));
        outcome.changes.sort_unstable();
        sources.sort_unstable();
        Some(LabelledPass {
            pass,
            buckets,
            outcome,
            sources,
            removed,
            labelled_before,
        })
    }
}

/// Adds the outputs of the graph to the outcome of a pass.
fn collect(outputs: Outputs<'_, u64>, to: &Arc<Mutex<PassOutcome>>) {
    macro_rules! collect {
        ($output:expr, $place:literal, $record:pat => $made:expr) => {
            let to = to.clone();
            $output.inner.inspect_container(move |event| {
                if let Ok((_, updates)) = event {
                    panic_point($place);
                    let mut to = lock(&to);
                    for ($record, _, diff) in updates {
                        let (video, output) = $made;
                        to.outcome.update(*video, output, *diff);
                    }
                }
            });
        };
    }
    collect!(outputs.admitted, "admitted", (video, (modality, admitted)) =>
        (video, Output::Admitted(*modality, admitted.clone())));
    collect!(outputs.labels, "labels", ((video, modality), record) =>
        (video, Output::Labels(*modality, record.clone())));
    collect!(outputs.rejections, "rejections", (video, rejection) =>
        (video, Output::Rejection(rejection.clone())));
    let to = to.clone();
    outputs.changes.inspect_container(move |event| {
        if let Ok((_, changes)) = event {
            panic_point("changes");
            lock(&to).outcome.changes.extend_from_slice(changes);
        }
    });
}

/// Adds the feature file of each candidate to the outcome of a pass.
fn collect_sources(inputs: &Inputs<'_, u64>, to: &Arc<Mutex<PassOutcome>>) {
    let to = to.clone();
    inputs.scored.clone().inner.inspect_container(move |event| {
        if let Ok((_, candidates)) = event {
            let mut to = lock(&to);
            for ((video, candidate), _, _) in candidates {
                to.sources
                    .push((*video, candidate.modality, candidate.source.clone()));
            }
        }
    });
}
