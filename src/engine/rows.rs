//! Makes table rows from the output of the graph for one video.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_dataflows::changes::Change;
use vaplan_dataflows::outcome::VideoOutcome;
use vaplan_dataflows::{LabelRecord, Score, SetBy};
use vaplan_schemas::rows::{CandidateRow, LabelChangeRow, LabelRule, LabelTrack, ScoreTrack, VideoRow};
use vaplan_schemas::{ClassId, Modality};

use super::commit::Classification;
use crate::world::flips::flip_reason;
use crate::world::{Both, Video, World};

/// The feature files of a video that were read, by modality, whether or not their features count.
pub type Sources = Both<BTreeSet<Arc<str>>>;

/// Makes the row of table `videos`.
pub fn video_row(world: &World, video: &Video, found: &VideoOutcome) -> VideoRow {
    let source = |modality: Modality| {
        let admitted = found.admitted[modality.index()].as_ref()?;
        Some(admitted.source.clone())
    };
    let guessed = video.guessed || world.guesses(&video.weak);
    // The graph admits the same classes for both modalities.
    let admitted = found.admitted.iter().flatten().next();
    let classes = match (guessed, admitted) {
        (true, Some(admitted)) => admitted.record.classes(),
        _ => &video.weak,
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
        weak_labels: classes
            .iter()
            .map(|class| world.classes[class.index()].clone())
            .collect(),
        guessed,
        source: video.source.clone(),
        audio_source: source(Modality::Audio),
        visual_source: source(Modality::Visual),
    }
}

/// Makes the rows of table `candidates`: the features that were read and do not count.
pub fn candidate_rows(video: &Video, found: &VideoOutcome, sources: &Sources) -> Vec<CandidateRow> {
    let mut rows = Vec::new();
    for modality in Modality::ALL {
        let counts = found.admitted[modality.index()]
            .as_ref()
            .map(|admitted| &admitted.source);
        for source in sources[modality.index()]
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

/// Makes the rows of table `scores`, in the order of the table: modality, then class name.
pub fn score_tracks(world: &World, name: &Arc<str>, found: &VideoOutcome) -> Vec<ScoreTrack> {
    let mut tracks = Vec::new();
    for modality in Modality::ALL {
        let Some(admitted) = &found.admitted[modality.index()] else {
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

/// Makes the rows of table `labels`, in the order of the table: modality, then class name.
pub fn label_tracks(world: &World, name: &Arc<str>, found: &VideoOutcome) -> Vec<LabelTrack> {
    let mut tracks = Vec::new();
    for modality in Modality::ALL {
        let (Some(admitted), Some(labels)) =
            (&found.admitted[modality.index()], &found.labels[modality.index()])
        else {
            continue;
        };
        let generated = world.generated(modality);
        let track = |(class, _, scores): (ClassId, _, &[Score])| {
            label_track(world, name, (modality, class), generated, labels, scores)
        };
        tracks.extend(admitted.record.tracks().filter_map(track));
    }
    tracks.sort_by(|a, b| (a.modality, &a.class).cmp(&(b.modality, &b.class)));
    tracks
}

/// Makes the row of table `labels` of one track; `None` if the graph has no labels or no scores of it. `generated` is the rule of
/// labels that nobody changed.
pub(crate) fn label_track_of(
    world: &World,
    name: &Arc<str>,
    found: &VideoOutcome,
    (modality, class): (Modality, ClassId),
    generated: LabelRule,
) -> Option<LabelTrack> {
    let admitted = found.admitted[modality.index()].as_ref()?;
    let labels = found.labels[modality.index()].as_ref()?;
    let (_, _, scores) = admitted.record.tracks().find(|(own, ..)| *own == class)?;
    label_track(world, name, (modality, class), generated, labels, scores)
}

/// Makes a row of table `labels`; `None` if the labels have no track of the class. `generated` is the rule of labels that nobody
/// changed.
pub(super) fn label_track(
    world: &World,
    name: &Arc<str>,
    (modality, class): (Modality, ClassId),
    generated: LabelRule,
    labels: &LabelRecord,
    scores: &[Score],
) -> Option<LabelTrack> {
    let track = labels.track(class)?;
    let rules: Vec<LabelRule> = (0..scores.len())
        .map(|segment| rule(track.set_by(segment), generated))
        .collect();
    let scores = scores.iter().zip(&rules);
    // Only flips get a reason. If the rows had the loss of every label, each epoch would change every row of the table.
    let flip = |segment: usize| Some((segment as u32, flip_reason(&track.flip(segment)?)));
    Some(LabelTrack {
        video: name.clone(),
        modality,
        class: world.classes[class.index()].clone(),
        labels: track.label.iter().collect(),
        scores: scores
            .map(|(score, rule)| if rule.compares() { score.get() } else { 0.0 })
            .collect(),
        threshold: (rules.iter().any(|rule| rule.compares()))
            .then(|| world.settings.of(modality).score_threshold(class)),
        flips: (0..rules.len()).filter_map(flip).collect(),
        rules,
    })
}

/// Makes a row of table `label_changes`.
pub fn change_row(
    version: u64,
    video: &Arc<str>,
    classes: &Classification,
    change: &Change,
) -> LabelChangeRow {
    LabelChangeRow {
        version,
        video: video.clone(),
        modality: change.modality,
        class: classes.name(change.class).clone(),
        segment: change.segment,
        from: !change.to,
        to: change.to,
        rule: rule(change.rule, classes.generated(change.modality)),
        why: change.flip.as_deref().map(|flip| Box::new(flip_reason(flip))),
    }
}

/// The rule of a label in the tables. `generated` is the rule of labels that nobody changed.
fn rule(set_by: SetBy, generated: LabelRule) -> LabelRule {
    match set_by {
        SetBy::Plg => generated,
        SetBy::Pld => LabelRule::Pld,
        SetBy::User => LabelRule::User,
    }
}
