//! Worlds through a session: what a user of it holds after each version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::records::{LabelRecord, VideoId};
use vaplan_dataflows::session::{GraphSession, Outcome, Rows, Updates};
use vaplan_dataflows::{Fault, Track};
use vaplan_schemas::Modality;

use crate::oracle::{Answer, Labels};
use crate::world::World;

/// How a script is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) workers: usize,
    /// Before the version at this place the process ends, and another starts with it.
    pub(crate) restart: usize,
    /// Each version hands in all rows, gone and new, not only those that differ.
    pub(crate) whole: bool,
}

/// What the session gives for each of the worlds.
pub(crate) fn run(worlds: &[World], how: Run) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut held = Held::default();
    let mut running: Option<GraphSession> = None;
    for (version, world) in worlds.iter().enumerate() {
        let outcome = match running.take_if(|_| version != how.restart) {
            Some(mut session) => {
                let outcome = session.apply(updates(&worlds[version - 1], world, how.whole));
                running = Some(session);
                outcome.expect("the session lives")
            }
            None => {
                if let Some(before) = running.take() {
                    before.finish().expect("the session lives");
                }
                let previous = as_tables_say(&held.labels);
                held = Held::default();
                let (session, outcome) =
                    GraphSession::start(how.workers, rows(world), previous).expect("the session starts");
                running = Some(session);
                outcome
            }
        };
        answers.push(held.take(outcome));
    }
    answers
}

/// All rows of a world.
pub(crate) fn rows(world: &World) -> Rows {
    let of_video = |(video, modality): (VideoId, Modality)| (video, modality);
    Rows {
        weak: (world.weak.iter().map(|(video, weak)| (*video, weak.clone()))).collect(),
        scored: world.scored.clone(),
        cutoffs: (world.cutoffs.iter().map(|(key, cutoff)| (*key, *cutoff))).collect(),
        marks: (world.marks.iter())
            .map(|(key, marks)| {
                let (video, modality) = of_video(*key);
                (video, (modality, marks.clone()))
            })
            .collect(),
        predictions: (world.predictions.iter())
            .map(|(key, prediction)| {
                let (video, modality) = of_video(*key);
                (video, (modality, prediction.clone()))
            })
            .collect(),
        denoising: (world.denoising.iter().map(|(key, settings)| (*key, *settings))).collect(),
    }
}

/// From one world to the next.
pub(crate) fn updates(from: &World, to: &World, whole: bool) -> Updates {
    let (mut gone, mut new) = (rows(from), rows(to));
    if !whole {
        cancel(&mut gone.weak, &mut new.weak);
        cancel(&mut gone.scored, &mut new.scored);
        cancel(&mut gone.cutoffs, &mut new.cutoffs);
        cancel(&mut gone.marks, &mut new.marks);
        cancel(&mut gone.predictions, &mut new.predictions);
        cancel(&mut gone.denoising, &mut new.denoising);
    }
    Updates { gone, new }
}

/// Takes out what both lists have.
fn cancel<D: PartialEq>(gone: &mut Vec<D>, new: &mut Vec<D>) {
    gone.retain(|row| match new.iter().position(|other| other == row) {
        Some(at) => {
            new.remove(at);
            false
        }
        None => true,
    });
}

/// Labels as a table keeps them: without what the flips were decided by.
fn as_tables_say(
    labels: &BTreeMap<(VideoId, Modality), Arc<LabelRecord>>,
) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
    let plain = |track: &Track| Track {
        denoised: None,
        ..track.clone()
    };
    labels
        .iter()
        .map(|(key, record)| {
            let tracks = record.tracks.iter().map(plain).collect();
            (*key, Arc::new(LabelRecord { tracks }))
        })
        .collect()
}

/// What the outcomes so far add up to.
#[derive(Default)]
pub(crate) struct Held {
    admitted: BTreeMap<(VideoId, Modality), Admitted>,
    labels: BTreeMap<(VideoId, Modality), Arc<LabelRecord>>,
    audio_visual: BTreeMap<VideoId, Arc<LabelRecord>>,
    faults: BTreeMap<(VideoId, Fault), ()>,
}

impl Held {
    pub(crate) fn take(&mut self, outcome: Outcome) -> Answer {
        let admitted = outcome.admitted.into_iter();
        absorb(
            &mut self.admitted,
            admitted.map(|((video, modality, admitted), diff)| ((video, modality), admitted, diff)),
        );
        let labels = outcome.labels.into_iter();
        absorb(
            &mut self.labels,
            labels.map(|((video, modality, record), diff)| ((video, modality), record, diff)),
        );
        let audio_visual = outcome.audio_visual.into_iter();
        absorb(
            &mut self.audio_visual,
            audio_visual.map(|((video, record), diff)| (video, record, diff)),
        );
        let faults = outcome.faults.into_iter();
        absorb(&mut self.faults, faults.map(|(fault, diff)| (fault, (), diff)));
        assert!(outcome.changes.is_sorted(), "changes are sorted");
        let labels: Labels = (self.labels.iter())
            .map(|(key, record)| (*key, (**record).clone()))
            .collect();
        let changes: BTreeSet<_> = outcome.changes.iter().cloned().collect();
        assert_eq!(changes.len(), outcome.changes.len(), "a change is said once");
        Answer {
            admitted: self.admitted.clone(),
            labels,
            audio_visual: (self.audio_visual.iter())
                .map(|(key, record)| (*key, (**record).clone()))
                .collect(),
            faults: self.faults.keys().cloned().collect(),
            changes,
        }
    }
}

/// Records that went, then those that came; each must have been there, or not.
fn absorb<K: Ord + Debug, V: PartialEq + Debug>(
    held: &mut BTreeMap<K, V>,
    updates: impl Iterator<Item = (K, V, isize)>,
) {
    let (gone, new): (Vec<_>, Vec<_>) = updates.partition(|(_, _, diff)| *diff < 0);
    for (key, value, diff) in gone {
        assert_eq!(diff, -1, "{key:?} goes once");
        assert_eq!(held.remove(&key).as_ref(), Some(&value), "{key:?} goes");
    }
    for (key, value, diff) in new {
        assert_eq!(diff, 1, "{key:?} comes once");
        let text = format!("{key:?}");
        assert_eq!(held.insert(key, value), None, "{text} comes");
    }
}
