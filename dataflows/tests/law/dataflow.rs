//! Worlds through the graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use differential_dataflow::input::Input;
use vaplan_dataflows::Fault;
use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::graph::{Inputs, labelling};
use vaplan_dataflows::records::{LabelRecord, VideoId};
use vaplan_schemas::Modality;

use crate::oracle::{Answer, Labels};
use crate::world::World;

/// The graph's answers to the same worlds; `previous` are the labels before the first.
pub(crate) fn dataflow(worlds: Vec<World>, previous: Labels, workers: usize) -> Vec<Answer> {
    type Update<D> = (D, u64, isize);
    #[derive(Default)]
    struct Log {
        admitted: Vec<Update<((VideoId, Modality), Admitted)>>,
        labels: Vec<Update<((VideoId, Modality), LabelRecord)>>,
        audio_visual: Vec<Update<(VideoId, LabelRecord)>>,
        faults: Vec<Update<(VideoId, Fault)>>,
        changes: Vec<(u64, Change)>,
    }
    let log = Arc::new(Mutex::new(Log::default()));
    let versions = worlds.len();
    let (worlds, written) = (Arc::new(worlds), log.clone());
    timely::execute(timely::Config::process(workers), move |worker| {
        let log = written.clone();
        let (index, peers) = (worker.index(), worker.peers());
        let (mut weak, mut scored, mut cutoffs, mut marks, mut predictions, mut denoising, mut before, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (weak_in, weak) = scope.new_collection();
            let (scored_in, scored) = scope.new_collection();
            let (cutoffs_in, cutoffs) = scope.new_collection();
            let (marks_in, marks) = scope.new_collection();
            let (predictions_in, predictions) = scope.new_collection();
            let (denoising_in, denoising) = scope.new_collection();
            let (previous_in, previous) = scope.new_collection();
            let outputs = labelling(Inputs {
                weak,
                scored,
                cutoffs,
                marks,
                predictions,
                denoising,
                previous,
            });
            use timely::dataflow::operators::{Inspect, Probe};
            let write = |log: &Arc<Mutex<Log>>| log.clone();
            let to = write(&log);
            outputs.admitted.inspect(move |((video, (modality, admitted)), time, diff)| {
                let update = (((*video, *modality), admitted.clone()), *time, *diff);
                to.lock().unwrap().admitted.push(update);
            });
            let to = write(&log);
            outputs.labels.inspect(move |((key, record), time, diff)| {
                to.lock()
                    .unwrap()
                    .labels
                    .push(((*key, (**record).clone()), *time, *diff));
            });
            let to = write(&log);
            outputs
                .audio_visual
                .inspect(move |((video, record), time, diff)| {
                    to.lock()
                        .unwrap()
                        .audio_visual
                        .push(((*video, (**record).clone()), *time, *diff));
                });
            let to = write(&log);
            outputs
                .faults
                .inspect(move |update| to.lock().unwrap().faults.push(update.clone()));
            let to = write(&log);
            let (probe, _) = outputs
                .changes
                .inspect_time(move |time, change| to.lock().unwrap().changes.push((*time, *change)))
                .probe();
            (weak_in, scored_in, cutoffs_in, marks_in, predictions_in, denoising_in, previous_in, probe)
        });
        if index == 0 {
            for (key, record) in &previous {
                before.insert((*key, Arc::new(record.clone())));
            }
        }
        let mut last = World::default();
        for (version, world) in worlds.iter().enumerate() {
            // Every worker hands in its share of each change.
            let mine = |nth: usize| nth % peers == index;
            for (diff, from) in [(-1, &last), (1, world)] {
                for (_, (video, classes)) in from.weak.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    weak.update((*video, classes.clone()), diff);
                }
                for (_, ((video, modality), own)) in from.marks.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    marks.update((*video, (*modality, own.clone())), diff);
                }
                for (_, ((video, modality), own)) in from.predictions.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    predictions.update((*video, (*modality, own.clone())), diff);
                }
                for (_, (modality, settings)) in from.denoising.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    denoising.update((*modality, *settings), diff);
                }
                for (_, entry) in from.scored.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    scored.update(entry.clone(), diff);
                }
                for (_, (key, cutoff)) in from.cutoffs.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    cutoffs.update((*key, *cutoff), diff);
                }
            }
            last = world.clone();
            let next = version as u64 + 1;
            weak.advance_to(next);
            scored.advance_to(next);
            cutoffs.advance_to(next);
            marks.advance_to(next);
            predictions.advance_to(next);
            denoising.advance_to(next);
            before.advance_to(next);
            weak.flush();
            scored.flush();
            cutoffs.flush();
            marks.flush();
            predictions.flush();
            denoising.flush();
            before.flush();
            worker.step_while(|| probe.less_than(&next));
        }
    })
    .unwrap();
    let log = log.lock().unwrap();
    (0..versions as u64)
        .map(|version| Answer {
            admitted: at(&log.admitted, version).into_iter().collect(),
            labels: at(&log.labels, version).into_iter().collect(),
            audio_visual: at(&log.audio_visual, version).into_iter().collect(),
            faults: at(&log.faults, version).into_iter().collect(),
            changes: {
                let of: Vec<Change> = log
                    .changes
                    .iter()
                    .filter(|(time, _)| *time == version)
                    .map(|(_, change)| *change)
                    .collect();
                let distinct: BTreeSet<Change> = of.iter().copied().collect();
                assert_eq!(of.len(), distinct.len(), "a change is said once");
                distinct
            },
        })
        .collect()
}

/// What a collection holds at a version; each record once.
fn at<D: Ord + Clone + std::fmt::Debug>(updates: &[(D, u64, isize)], version: u64) -> Vec<D> {
    let mut held: BTreeMap<D, isize> = BTreeMap::new();
    for (record, _, diff) in updates.iter().filter(|(_, time, _)| *time <= version) {
        *held.entry(record.clone()).or_default() += diff;
    }
    held.retain(|_, count| *count != 0);
    assert!(
        held.values().all(|&count| count == 1),
        "each record once: {held:?}"
    );
    held.into_keys().collect()
}
