//! The dataflow of a labelling run.
//!
//! ```text
//! shards that are to be read ── scored ─┐
//! shards of a run before ───────────────┴─ scored ─┐
//! weak labels, cutoffs ────────────────────────────┼─ labelling ─▶ results
//! marks, predictions, previous labels ─────────────┘
//! ```

use std::sync::{Arc, Mutex};

use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::differential_dataflow::AsCollection;
use vaplan_dataflows::differential_dataflow::input::Input;
use vaplan_dataflows::graph::{Inputs, Outputs, labelling};
use vaplan_dataflows::timely::dataflow::ProbeHandle;
use vaplan_dataflows::timely::dataflow::operators::{InspectCore, Probe};
use vaplan_dataflows::{Fault, LabelRecord, VideoId, timely};
use vaplan_schemas::Modality;

use super::commit::{Classification, Previous};
use super::job::{Job, Read, lock, scored};
use super::kept::Kept;
use super::plan::Plan;
use super::stage::Stage;
use super::world::at;
use super::{LabelError, Listener};

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

/// Runs the graph to its end.
///
/// # Errors
/// [`LabelError::Stage`] where a finished shard cannot be kept, [`LabelError::Stopped`] where the dataflow does not
/// come to its end.
pub fn run(
    plan: &Arc<Plan>,
    stage: &Stage,
    previous: Option<&Previous>,
    kept: &Arc<Kept>,
    workers: usize,
    listener: &Listener,
) -> Result<Results, LabelError> {
    let (job, loaded) = Job::new(plan, stage, listener);
    let classes = Classification::new(&plan.world.classes, previous);
    let previous = previous.map(|previous| previous.records(&classes));
    let previous = Arc::new(previous.unwrap_or_default());
    let loaded = Arc::new(loaded);
    let results = Arc::new(Mutex::new(Results::default()));
    let (shared, to, kept) = (job.clone(), results.clone(), kept.clone());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let job = shared.clone();
        let (mut weak, mut staged, mut cutoffs, mut others, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (weak_in, weak) = scope.new_collection();
            let (staged_in, staged) = scope.new_collection();
            let (cutoffs_in, cutoffs) = scope.new_collection();
            let (marks_in, marks) = scope.new_collection();
            let (predictions_in, predictions) = scope.new_collection();
            let (denoising_in, denoising) = scope.new_collection();
            let (previous_in, previous) = scope.new_collection();
            let read = scored(scope, &job).as_collection();
            let outputs = labelling(Inputs {
                weak,
                scored: staged.concat(read),
                cutoffs,
                marks,
                predictions,
                denoising,
                previous,
            });
            let probe = collect(outputs, &to);
            let others = (marks_in, predictions_in, denoising_in, previous_in);
            (weak_in, staged_in, cutoffs_in, others, probe)
        });
        let mine = |nth: usize| nth % peers == index;
        let share = |nth: &(usize, _)| mine(nth.0);
        for (_, video) in job.plan.videos.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
            weak.insert((video.id, video.weak.clone()));
        }
        let candidates = loaded.iter().flat_map(|shard| &shard.candidates).enumerate();
        for (_, entry) in candidates.filter(share) {
            staged.insert(entry.clone());
        }
        let (marks, predictions, denoising, before) = &mut others;
        if index == 0 {
            let world = &job.plan.world;
            world
                .cutoffs()
                .into_iter()
                .for_each(|entry| cutoffs.insert(entry));
            kept.marks.iter().for_each(|entry| marks.insert(entry.clone()));
            for modality in Modality::ALL {
                if let Some(settings) = world.denoising[at(modality)] {
                    denoising.insert((modality, settings));
                }
            }
        }
        for (nth, entry) in kept.predictions.iter().enumerate() {
            if mine(nth) {
                predictions.insert(entry.clone());
            }
        }
        for (nth, entry) in previous.iter().enumerate() {
            if mine(nth) {
                before.insert(entry.clone());
            }
        }
        weak.close();
        staged.close();
        cutoffs.close();
        let (marks, predictions, denoising, before) = others;
        marks.close();
        predictions.close();
        denoising.close();
        before.close();
        worker.step_or_park_while(None, || !probe.done());
    })
    .map_err(LabelError::Stopped)?;
    for guard in guards.join() {
        guard.map_err(LabelError::Stopped)?;
    }
    let read = job.end()?;
    let mut results = std::mem::take(&mut *lock(&results));
    results.read = read;
    Ok(results)
}

/// Puts what the graph gives into `results`; the probe is done when all of it is there.
fn collect(outputs: Outputs<'_, u64>, results: &Arc<Mutex<Results>>) -> ProbeHandle<u64> {
    let to = results.clone();
    outputs.admitted.inspect_container(move |event| {
        if let Ok((_, updates)) = event {
            let admitted = updates
                .iter()
                .map(|((video, (modality, admitted)), _, _)| (*video, *modality, admitted.clone()));
            lock(&to).admitted.extend(admitted);
        }
    });
    let to = results.clone();
    outputs.labels.inspect_container(move |event| {
        if let Ok((_, updates)) = event {
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
    outputs.faults.inspect(move |((video, fault), _, _)| {
        lock(&to).faults.push((*video, fault.clone()));
    });
    let to = results.clone();
    let (probe, _) = outputs
        .changes
        .inspect_container(move |event| {
            if let Ok((_, changes)) = event {
                lock(&to).changes.extend_from_slice(changes);
            }
        })
        .probe();
    probe
}
