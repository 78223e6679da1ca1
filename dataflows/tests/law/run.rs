//! Worlds through a session: what a user of it holds after each version.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_dataflows::Track;
use vaplan_dataflows::outcome::Outcome;
use vaplan_dataflows::records::{LabelRecord, VideoId};
use vaplan_dataflows::session::{GraphSession, Rows, Updates};
use vaplan_schemas::Modality;

use crate::inputs::GraphInputs;
use crate::oracle::VersionOutput;

/// How a script is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptOptions {
    pub(crate) workers: usize,
    /// Before the version at this place the process ends, and another starts with it.
    pub(crate) restart: usize,
    /// Each version hands in all rows, gone and new, not only those that differ.
    pub(crate) whole: bool,
}

/// The output of the session at each version.
pub(crate) fn run(versions: &[GraphInputs], how: ScriptOptions) -> Vec<VersionOutput> {
    let mut answers: Vec<VersionOutput> = Vec::new();
    let mut running: Option<GraphSession> = None;
    for (version, inputs) in versions.iter().enumerate() {
        let session = match running.take_if(|_| version != how.restart) {
            Some(mut session) => {
                let applied = session.apply(updates(&versions[version - 1], inputs, how.whole));
                applied.expect("the session lives");
                session
            }
            None => {
                let previous = match running.take() {
                    Some(before) => as_tables_say(&before.finish().expect("the session lives")),
                    None => Vec::new(),
                };
                GraphSession::start(how.workers, rows(inputs), previous).expect("the session starts")
            }
        };
        answers.push(held(session.outcome()));
        running = Some(session);
    }
    answers
}

/// All rows of the inputs.
pub(crate) fn rows(inputs: &GraphInputs) -> Rows {
    let of_video = |(video, modality): (VideoId, Modality)| (video, modality);
    Rows {
        weak: (inputs.weak.iter().map(|(video, weak)| (*video, weak.clone()))).collect(),
        scored: inputs.scored.clone(),
        thresholds: (inputs
            .thresholds
            .iter()
            .map(|(key, score_threshold)| (*key, *score_threshold)))
        .collect(),
        user_labels: (inputs.user_labels.iter())
            .map(|(key, user_labels)| {
                let (video, modality) = of_video(*key);
                (video, (modality, user_labels.clone()))
            })
            .collect(),
        predictions: (inputs.predictions.iter())
            .map(|(key, prediction)| {
                let (video, modality) = of_video(*key);
                (video, (modality, prediction.clone()))
            })
            .collect(),
        denoising: (inputs.denoising.iter().map(|(key, settings)| (*key, *settings))).collect(),
    }
}

/// The updates from one version to the next.
pub(crate) fn updates(from: &GraphInputs, to: &GraphInputs, whole: bool) -> Updates {
    let (mut gone, mut new) = (rows(from), rows(to));
    if !whole {
        cancel(&mut gone.weak, &mut new.weak);
        cancel(&mut gone.scored, &mut new.scored);
        cancel(&mut gone.thresholds, &mut new.thresholds);
        cancel(&mut gone.user_labels, &mut new.user_labels);
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

/// LabelRecords as a table keeps them: without what the flips were decided by.
fn as_tables_say(outcome: &Outcome) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
    let plain = |track: &Track| Track {
        denoised: None,
        ..track.clone()
    };
    let record = |(video, modality, record): (VideoId, Modality, &LabelRecord)| {
        let tracks = record.tracks.iter().map(plain).collect();
        ((video, modality), Arc::new(LabelRecord { tracks }))
    };
    outcome.labels().map(record).collect()
}

/// The output of a session, in the form of the oracle.
pub(crate) fn held(outcome: &Outcome) -> VersionOutput {
    assert!(outcome.changes.is_sorted(), "changes are sorted");
    let changes: BTreeSet<_> = outcome.changes.iter().cloned().collect();
    assert_eq!(changes.len(), outcome.changes.len(), "a change is said once");
    let mut answer = VersionOutput {
        changes,
        ..VersionOutput::default()
    };
    for (&video, own) in &outcome.videos {
        for modality in Modality::ALL {
            let key = (video, modality);
            let admitted = own.admitted[modality.index()].clone();
            answer.admitted.extend(admitted.map(|admitted| (key, admitted)));
            let record = own.labels[modality.index()].as_deref().cloned();
            answer.labels.extend(record.map(|record| (key, record)));
        }
        answer
            .audio_visual
            .extend(own.audio_visual().map(|record| (video, record)));
        let rejections = own.rejections.iter().cloned();
        answer
            .rejections
            .extend(rejections.map(|rejection| (video, rejection)));
    }
    answer
}
