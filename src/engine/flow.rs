//! The dataflow of a labelling run.
//!
//! ```text
//! shards that are to be read ── scored ─┐
//! shards of a run before ───────────────┴─ scored ─┐
//! weak labels, cutoffs ────────────────────────────┼─ labelling ─▶ results
//! marks, predictions, previous labels ─────────────┘
//! ```
//!
//! In a cluster every process reads its shards, and what the tables need comes together in process 0.

use std::sync::{Arc, Mutex};

use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::differential_dataflow::AsCollection;
use vaplan_dataflows::feed::Feed;
use vaplan_dataflows::graph::{Inputs, Outputs, labelling};
use vaplan_dataflows::timely::dataflow::ProbeHandle;
use vaplan_dataflows::timely::dataflow::operators::{InspectCore, Probe};
use vaplan_dataflows::{Fault, LabelRecord, VideoId};
use vaplan_schemas::Modality;

use super::Listener;
use super::commit::{Classification, Previous};
use super::plan::Plan;
use super::score::{Job, Read, lock, panic_point, scored};
use super::stage::Stage;
use super::workers::{GatherTarget, Team, WorkerSlice};
use crate::error::LabelError;
use crate::world::at;
use crate::world::kept::Kept;

/// What the dataflow gave; every list in no particular order.
#[derive(Debug, Default)]
pub struct Results {
    /// Features that count.
    pub admitted: Vec<(VideoId, Modality, Admitted)>,
    /// Labels, one per video and modality.
    pub labels: Vec<(VideoId, Modality, Arc<LabelRecord>)>,
    /// Cells set in both modalities.
    pub audio_visual: u64,
    /// Modalities of videos without labels, marks and predictions that do not count.
    pub faults: Vec<(VideoId, Fault)>,
    /// Cells that differ from the version before.
    pub changes: Vec<Change>,
    /// What reading gave beside the candidates.
    pub read: Read,
}

/// What the graph starts from.
#[derive(Clone)]
pub struct FlowInput {
    /// What is asked.
    pub plan: Arc<Plan>,
    /// Where finished shards are kept.
    pub stage: Stage,
    /// Positions of the shards that this process reads.
    pub shards: Vec<usize>,
    /// Labels of the version before; in a cluster, given by process 0 alone.
    pub previous: Option<Arc<Previous>>,
    /// Marks and predictions; in a cluster, given by process 0 alone.
    pub kept: Arc<Kept>,
}

/// Runs the graph to its end.
///
/// In a cluster, process 0 gets the results of all; every process gets its own [`Results::audio_visual`] and
/// [`Results::read`].
///
/// # Errors
/// [`LabelError::Stage`] where a finished shard cannot be kept, [`LabelError::Stopped`] where the dataflow does not
/// come to its end.
pub fn run(given: &FlowInput, team: Team, listener: &Listener) -> Result<Results, LabelError> {
    let (job, loaded) = Job::new(&given.plan, Some(&given.stage), &given.shards, listener);
    let previous = given.previous.as_ref().map(|previous| {
        let classes = Classification::new(&given.plan.world.classes, Some(previous));
        previous.records(&classes)
    });
    let previous = Arc::new(previous.unwrap_or_default());
    let loaded = Arc::new(loaded);
    let results = Arc::new(Mutex::new(Results::default()));
    let (shared, to, kept) = (job.clone(), results.clone(), given.kept.clone());
    let team = Arc::new(team);
    let place = team.place();
    let crew = team.clone();
    team.run(move |worker, stop| {
        let everywhere = WorkerSlice {
            index: worker.index(),
            of: worker.peers(),
        };
        let here = crew.within(worker.index());
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
            let cutoffs = world.cutoffs().into_iter();
            cutoffs.for_each(|entry| feed.cutoffs.insert(entry));
            let marks = kept.marks.iter().cloned();
            marks.for_each(|entry| feed.marks.insert(entry));
            for modality in Modality::ALL {
                if let Some(settings) = world.denoising[at(modality)] {
                    feed.denoising.insert((modality, settings));
                }
            }
        }
        for (nth, entry) in kept.predictions.iter().enumerate() {
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
        // Stopped: the panic of another worker is the error of the run.
        let _ = stop.step_while(worker, || !probe.done());
    })?;
    let read = job.end()?;
    let mut results = std::mem::take(&mut *lock(&results));
    results.read = read;
    Ok(results)
}

/// Puts what the graph gives into `results`. The probe is of the changes alone: all is there when the workers have
/// ended, which they do once the whole dataflow has.
fn collect(
    outputs: Outputs<'_, u64>,
    place: GatherTarget,
    results: &Arc<Mutex<Results>>,
) -> ProbeHandle<u64> {
    let to = results.clone();
    let admitted = place.gather(outputs.admitted.inner, |((video, _), _, _)| video.0);
    admitted.inspect_container(move |event| {
        if let Ok((_, updates)) = event {
            panic_point("admitted");
            let admitted = updates
                .iter()
                .map(|((video, (modality, admitted)), _, _)| (*video, *modality, admitted.clone()));
            lock(&to).admitted.extend(admitted);
        }
    });
    let to = results.clone();
    let labels = place.gather(outputs.labels.inner, |(((video, _), _), _, _)| video.0);
    labels.inspect_container(move |event| {
        if let Ok((_, updates)) = event {
            panic_point("labels");
            let labels = updates
                .iter()
                .map(|(((video, modality), record), _, _)| (*video, *modality, record.clone()));
            lock(&to).labels.extend(labels);
        }
    });
    let to = results.clone();
    outputs
        .audio_visual
        .inspect(move |((_, record), _, _)| lock(&to).audio_visual += record.ones());
    let to = results.clone();
    let faults = place.gather(outputs.faults.inner, |((video, _), _, _)| video.0);
    faults.inspect_container(move |event| {
        if let Ok((_, updates)) = event {
            let faults = updates
                .iter()
                .map(|((video, fault), _, _)| (*video, fault.clone()));
            lock(&to).faults.extend(faults);
        }
    });
    let to = results.clone();
    let (probe, _) = place
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
