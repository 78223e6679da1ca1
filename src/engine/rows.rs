//! What the tables say of one video, from what the dataflow says of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::{LabelRecord, Score, SetBy};
use vaplan_schemas::rows::{
    CandidateRow, LabelCell, LabelChangeRow, LabelRule, LabelTrack, ScoreTrack, VideoRow,
};
use vaplan_schemas::{ClassId, Modality};

use crate::world::flips::flip_reason;
use crate::world::{Both, Video, World, at};

/// What the dataflow says of one video.
#[derive(Clone, Debug, Default)]
pub struct VideoAnswers {
    /// Features that count.
    pub admitted: Both<Option<Admitted>>,
    /// Labels.
    pub labels: Both<Option<Arc<LabelRecord>>>,
    /// Files of features that were read, those that count or not.
    pub sources: Both<BTreeSet<Arc<str>>>,
}

/// The row of `videos`.
pub fn video_row(world: &World, video: &Video, found: &VideoAnswers) -> VideoRow {
    let source = |modality| {
        let admitted = found.admitted[at(modality)].as_ref()?;
        Some(admitted.source.clone())
    };
    let segments = found
        .admitted
        .iter()
        .flatten()
        .map(|admitted| admitted.record.segments());
    VideoRow {
        video: video.name.clone(),
        split: video.split,
        segments: segments.max().unwrap_or(0),
        segment_seconds: world.segment_seconds,
        weak_labels: video
            .weak
            .iter()
            .map(|class| world.classes[class.index()].clone())
            .collect(),
        source: video.source.clone(),
        audio_source: source(Modality::Audio),
        visual_source: source(Modality::Visual),
    }
}

/// Rows of `candidates`: features that do not count.
pub fn candidate_rows(video: &Video, found: &VideoAnswers) -> Vec<CandidateRow> {
    let mut rows = Vec::new();
    for modality in Modality::ALL {
        let counts = found.admitted[at(modality)]
            .as_ref()
            .map(|admitted| &admitted.source);
        for source in found.sources[at(modality)]
            .iter()
            .filter(|source| Some(*source) != counts)
        {
            rows.push(CandidateRow {
                video: video.name.clone(),
                modality,
                source: source.clone(),
            });
        }
    }
    rows
}

/// Rows of `scores`, in the order of the table: modality, then class by name.
pub fn score_tracks(world: &World, name: &Arc<str>, found: &VideoAnswers) -> Vec<ScoreTrack> {
    let mut tracks = Vec::new();
    for modality in Modality::ALL {
        let Some(admitted) = &found.admitted[at(modality)] else {
            continue;
        };
        tracks.extend(admitted.record.tracks().map(|(class, cosine, score)| ScoreTrack {
            video: name.clone(),
            modality,
            class: world.classes[class.index()].clone(),
            cosine: cosine.iter().map(|cosine| cosine.get()).collect(),
            score: score.iter().map(|score| score.get()).collect(),
        }));
    }
    tracks.sort_by(|a, b| (a.modality, &a.class).cmp(&(b.modality, &b.class)));
    tracks
}

/// Rows of `labels`, in the order of the table.
pub fn label_tracks(world: &World, name: &Arc<str>, found: &VideoAnswers) -> Vec<LabelTrack> {
    let mut tracks = Vec::new();
    for modality in Modality::ALL {
        let (Some(admitted), Some(labels)) = (&found.admitted[at(modality)], &found.labels[at(modality)])
        else {
            continue;
        };
        tracks.extend(admitted.record.tracks().filter_map(|(class, _, scores)| {
            Some(LabelTrack {
                video: name.clone(),
                modality,
                class: world.classes[class.index()].clone(),
                cells: cells(world, (modality, class), labels, scores)?,
            })
        }));
    }
    tracks.sort_by(|a, b| (a.modality, &a.class).cmp(&(b.modality, &b.class)));
    tracks
}

fn cells(
    world: &World,
    (modality, class): (Modality, ClassId),
    labels: &LabelRecord,
    scores: &[Score],
) -> Option<Vec<LabelCell>> {
    let track = labels.track(class)?;
    let threshold = world.settings.of(modality).cutoff(class);
    let cell = |(segment, score): (usize, &Score)| {
        let set_by = track.set_by(segment);
        let of_a_score = set_by != SetBy::User;
        // Of flips only: with the loss of every label, each epoch would write all of them anew.
        let why = track.flip(segment);
        LabelCell {
            label: track.label.get(segment),
            rule: rule(set_by),
            score: of_a_score.then(|| score.get()),
            threshold: of_a_score.then_some(threshold),
            why: why.as_ref().map(flip_reason),
        }
    };
    Some(scores.iter().enumerate().map(cell).collect())
}

/// A row of `label_changes`; `class` is the name of the change's class.
pub fn change_row(version: u64, video: &Arc<str>, class: &Arc<str>, change: &Change) -> LabelChangeRow {
    LabelChangeRow {
        version,
        video: video.clone(),
        modality: change.modality,
        class: class.clone(),
        segment: change.segment,
        from: !change.to,
        to: change.to,
        rule: rule(change.rule),
        why: change.flip.as_deref().map(flip_reason),
    }
}

fn rule(set_by: SetBy) -> LabelRule {
    match set_by {
        SetBy::Plg => LabelRule::Plg,
        SetBy::Pld => LabelRule::Pld,
        SetBy::User => LabelRule::User,
    }
}
