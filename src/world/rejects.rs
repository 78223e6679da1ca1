//! Faults of the label graph as rows of table `rejects`.
//!
//! Each fault has a [`RejectKind`] for which [`RejectKind::is_of_graph`] is true. A change of a video replaces the rows of
//! these kinds and of this video, and leaves the rows that come from reading a file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::fault::{Fault, MarkFault};
use vaplan_schemas::rows::{RejectKind, RejectRow};
use vaplan_schemas::{ClassId, Modality};

use super::{World, at};

/// Column `file` of a fault of user labels: user labels of one video can come from several files.
const USER_LABELS: &str = "user_labels";
/// Column `file` of a fault of predictions.
const PREDICTIONS: &str = "predictions";

/// The rows of table `rejects` for a fault of a video.
pub fn rows(world: &World, video: &Arc<str>, fault: &Fault) -> Vec<RejectRow> {
    let features = |modality: Modality| inputs(world, modality);
    let name = |class: &ClassId| &world.classes[class.index()];
    let (kind, modality) = kind(fault);
    let row = |file: String, reason: String| {
        RejectRow::reject(kind, file, format!("video `{video}` {reason}"))
            .video(&**video)
            .modality(modality)
    };
    match fault {
        Fault::Missing(modality) => {
            vec![row(
                features(*modality),
                format!("has no {modality} features that can be used"),
            )]
        }
        Fault::Conflict(modality, sources) => {
            let reason = differ(*modality, sources);
            let rows = sources
                .iter()
                .map(|source| row(source.to_string(), reason.clone()));
            rows.collect()
        }
        Fault::Lengths { audio, visual } => vec![row(
            features(Modality::Visual),
            format!("has {audio} audio and {visual} visual segments, expected equally many: none is used"),
        )],
        Fault::Unscored(modality, class) => vec![row(
            features(*modality),
            format!("has no {modality} score of class `{}`", name(class)),
        )],
        Fault::Mark { modality, why } => {
            let why = match why {
                MarkFault::Unlabelled => format!("a person set {modality} labels, but it has none to set"),
                MarkFault::Class(class) => format!(
                    "a person set {modality} labels of class `{}`, expected a class of the weak label: add it there first",
                    name(class)
                ),
                MarkFault::Segment {
                    class,
                    segment,
                    segments,
                } => format!(
                    "a person set {modality} label of class `{}`, segment {segment}, expected a segment below {segments}",
                    name(class)
                ),
            };
            vec![row(USER_LABELS.to_owned(), format!("{why}: it waits"))]
        }
        Fault::Prediction {
            modality,
            epoch,
            segments,
            expected,
        } => vec![row(
            PREDICTIONS.to_owned(),
            format!(
                "has {modality} predictions of epoch {epoch} for {segments} segments, expected {expected}: none is used"
            ),
        )],
        Fault::Probability {
            modality,
            epoch,
            class,
            segment,
            value,
        } => vec![row(
            PREDICTIONS.to_owned(),
            format!(
                "{modality} prediction of epoch {epoch}, class `{}`, segment {segment} is {}, expected 0 to 1: it flips \
                 nothing",
                name(class),
                value.raw()
            ),
        )],
    }
}

/// Kind and modality of the rows of a fault; unequal lengths count as a fault of the visual features.
fn kind(fault: &Fault) -> (RejectKind, Modality) {
    match fault {
        Fault::Missing(modality) => (RejectKind::MissingFeatures, *modality),
        Fault::Conflict(modality, _) => (RejectKind::FeatureConflict, *modality),
        Fault::Lengths { .. } => (RejectKind::UnequalLengths, Modality::Visual),
        Fault::Unscored(modality, _) => (RejectKind::UnscoredClass, *modality),
        Fault::Mark { modality, .. } => (RejectKind::UserLabel, *modality),
        Fault::Prediction { modality, .. } => (RejectKind::PredictionLength, *modality),
        Fault::Probability { modality, .. } => (RejectKind::PredictionValue, *modality),
    }
}

/// Column `file` of a fault of all inputs of a modality.
fn inputs(world: &World, modality: Modality) -> String {
    let paths = world.features[at(modality)].iter();
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

/// The same row after the inputs changed: a row of [`RejectKind::names_inputs`] names the inputs of its modality.
///
/// A row of an older program may name only the inputs of that time, and keeps its file then.
pub fn with_inputs(mut row: RejectRow, before: &World, after: &World) -> RejectRow {
    if let Some(modality) = row.modality.filter(|_| row.kind.names_inputs())
        && row.file == inputs(before, modality)
    {
        row.file = inputs(after, modality);
    }
    row
}

/// The message of features that differ, without the video.
fn differ<S: std::borrow::Borrow<str>>(modality: Modality, sources: &[S]) -> String {
    format!(
        "has {modality} features that differ in `{}`, expected one or equal copies: none is used",
        sources.join("`, `")
    )
}

/// Rewrites the messages of [`RejectKind::FeatureConflict`], which list the files of all rows of their video.
pub(crate) fn name_conflicts(rows: &mut [RejectRow]) {
    let key = |row: &RejectRow| {
        let own = row.kind == RejectKind::FeatureConflict;
        own.then(|| (row.video.clone(), row.modality))
    };
    let mut files: BTreeMap<(Option<String>, Option<Modality>), BTreeSet<String>> = BTreeMap::new();
    for row in &*rows {
        if let Some(key) = key(row) {
            files.entry(key).or_default().insert(row.file.clone());
        }
    }
    for row in rows {
        if let (Some(key), Some(video), Some(modality)) = (key(row), &row.video, row.modality) {
            let files: Vec<&str> = files[&key].iter().map(String::as_str).collect();
            row.reason = format!("video `{video}` {}", differ(modality, &files));
        }
    }
}
