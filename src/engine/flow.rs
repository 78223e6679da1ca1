//! The dataflow of a whole labelling run.
//!
//! ```text
//! shards to read ── read, score ──────────┐
//! shards that an earlier run staged ──────┴─ candidates ─┐
//! weak labels, thresholds ───────────────────────────────┼─ labelling ─▶ outcome
//! user labels, predictions, previous labels ─────────────┘
//! ```
//!
//! In a cluster, every process reads and scores its own shards. Process 0 gathers the outcome, because process 0 writes
//! the tables.

use std::sync::{Arc, Mutex};

use vaplan_dataflows::differential_dataflow::AsCollection;
use vaplan_dataflows::feed::Feed;
use vaplan_dataflows::graph::{Inputs, Outputs, labelling};
use vaplan_dataflows::outcome::{Outcome, Output};
use vaplan_dataflows::timely::dataflow::ProbeHandle;
use vaplan_dataflows::timely::dataflow::operators::{InspectCore, Probe};
use vaplan_dataflows::workers::panic_point;
use vaplan_schemas::Modality;

use super::Listener;
use super::commit::{Classification, Previous};
use super::plan::Plan;
use super::score::{ReadReport, ScoringJob, lock, scored};
use super::stage::Stage;
use super::workers::{GatherTarget, WorkerGroup, WorkerSlice};
use crate::error::LabelError;
use crate::world::evidence::StoredEvidence;

/// Inputs of the dataflow.
#[derive(Clone)]
pub struct FlowInput {
    /// Videos, prompts, settings and shards.
    pub plan: Arc<Plan>,
    /// Folder of the scores of finished shards.
    pub stage: Stage,
    /// Positions in the plan of the shards that this process reads.
    pub shards: Vec<usize>,
    /// Labels of the version before. In a cluster, only process 0 has them.
    pub previous: Option<Arc<Previous>>,
    /// User labels and predictions. In a cluster, only process 0 has them.
    pub evidence: Arc<StoredEvidence>,
}

/// Runs the graph to its end.
///
/// Returns the outcome, and the report of the files that this process read. In a cluster, process 0 gets the outcome of
/// all processes, and the other processes get an empty outcome.
///
/// # Errors
/// Returns [`LabelError::Stage`] if a finished shard cannot be written to the stage, and [`LabelError::Stopped`] if the
/// dataflow does not reach its end.
pub fn run(
    given: &FlowInput,
    team: WorkerGroup,
    listener: &Listener,
) -> Result<(Outcome, ReadReport), LabelError> {
    let (job, loaded) = ScoringJob::new(&given.plan, Some(&given.stage), &given.shards, listener);
    let previous = given.previous.as_ref().map(|previous| {
        let classes = Classification::new(&given.plan.world.classes, Some(previous));
        previous.records(&classes)
    });
    let previous = Arc::new(previous.unwrap_or_default());
    let loaded = Arc::new(loaded);
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let (shared, to, evidence) = (job.clone(), outcome.clone(), given.evidence.clone());
    let team = Arc::new(team);
    let place = team.place();
    let group = team.clone();
    team.run(move |worker, stop| {
        let everywhere = WorkerSlice {
            index: worker.index(),
            of: worker.peers(),
        };
        let here = group.within(worker.index());
        let job = shared.clone();
        let (mut feed, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (feed, inputs) = Feed::new(scope);
            let read = scored(scope, &job).as_collection();
            let outputs = labelling(Inputs {
                scored: inputs.scored.concat(read),
                ..inputs
            });
            (feed, collect(outputs, place, &to))
        });
        let videos = job.plan.videos.iter().enumerate();
        for (_, video) in videos.filter(|(nth, _)| everywhere.has(*nth)) {
            feed.weak.insert((video.id, video.weak.clone()));
        }
        let candidates = loaded.iter().flat_map(|shard| &shard.candidates).enumerate();
        for (_, entry) in candidates.filter(|(nth, _)| here.has(*nth)) {
            feed.scored.insert(entry.clone());
        }
        if everywhere.index == 0 {
            let world = &job.plan.world;
            let thresholds = world.thresholds().into_iter();
            thresholds.for_each(|entry| feed.thresholds.insert(entry));
            let user_labels = evidence.user_labels.iter().cloned();
            user_labels.for_each(|entry| feed.user_labels.insert(entry));
            for modality in Modality::ALL {
                if let Some(settings) = world.denoising[modality.index()] {
                    feed.denoising.insert((modality, settings));
                }
            }
        }
        for (nth, entry) in evidence.predictions.iter().enumerate() {
            if here.has(nth) {
                feed.predictions.insert(entry.clone());
            }
        }
        for (nth, entry) in previous.iter().enumerate() {
            if here.has(nth) {
                feed.previous.insert(entry.clone());
            }
        }
        drop(feed);
        // If another worker panicked, this returns `Stopped`. `team.run` then reports the panic.
        let _ = stop.step_while(worker, || !probe.done());
    })?;
    let read = job.end()?;
    let mut outcome = std::mem::take(&mut *lock(&outcome));
    outcome.changes.sort_unstable();
    Ok((outcome, read))
}

/// Adds the outputs of the graph to `outcome`. The probe follows the changes only. The other outputs are complete when
/// the workers have ended, because a worker ends only after its whole dataflow has ended.
fn collect(
    outputs: Outputs<'_, u64>,
    target: GatherTarget,
    outcome: &Arc<Mutex<Outcome>>,
) -> ProbeHandle<u64> {
    macro_rules! collect {
        ($output:expr, $place:literal, $route:expr, $record:pat => $made:expr) => {
            let to = outcome.clone();
            target
                .gather($output.inner, $route)
                .inspect_container(move |event| {
                    if let Ok((_, updates)) = event {
                        panic_point($place);
                        let mut to = lock(&to);
                        for ($record, _, diff) in updates {
                            let (video, output) = $made;
                            to.update(*video, output, *diff);
                        }
                    }
                });
        };
    }
    collect!(outputs.admitted, "admitted", |((video, _), _, _)| video.0, (video, (modality, admitted)) =>
        (video, Output::Admitted(*modality, admitted.clone())));
    collect!(outputs.labels, "labels", |(((video, _), _), _, _)| video.0, ((video, modality), record) =>
        (video, Output::Labels(*modality, record.clone())));
    collect!(outputs.rejections, "rejections", |((video, _), _, _)| video.0, (video, rejection) =>
        (video, Output::Rejection(rejection.clone())));
    let to = outcome.clone();
    let (probe, _) = target
        .gather(outputs.changes, |change| change.video.0)
        .inspect_container(move |event| {
            if let Ok((_, changes)) = event {
                panic_point("changes");
                lock(&to).changes.extend_from_slice(changes);
            }
        })
        .probe();
    probe
}
