//! Rejections of the label graph as rows of table `rejects`.
//!
//! Each rejection has a [`RejectKind`] for which [`RejectKind::is_of_graph`] is true. A change of a video replaces
//! the rows of these kinds for this video, and keeps the rows that come from reading a file.

use std::collections::{BTreeMap, BTreeSet};

use vaplan_dataflows::rejection::{Rejection, UserLabelRejection};
use vaplan_schemas::rows::{LabelRule, RejectKind, RejectRow};
use vaplan_schemas::{ClassId, Modality};

use super::World;

/// Value of column `file` for a rejection of user labels: the user labels of one video can come from several files.
const USER_LABELS: &str = "user_labels";
/// Value of column `file` for a rejection of predictions.
const PREDICTIONS: &str = "predictions";

/// The rows of table `rejects` for a rejection of a video.
pub fn rows(world: &World, video: &str, rejection: &Rejection) -> Vec<RejectRow> {
    let features = |modality: Modality| inputs(world, modality);
    let name = |class: &ClassId| &world.classes[class.index()];
    let (kind, modality) = kind(rejection);
    let row = |file: String, reason: String| {
        RejectRow::reject(kind, file, format!("video `{video}` {reason}"))
            .video(video)
            .modality(modality)
    };
    match rejection {
        Rejection::Missing(modality) => {
            vec![row(
                features(*modality),
                format!(
                    "has no {modality} {} that can be used",
                    input_noun(world, *modality)
                ),
            )]
        }
        Rejection::Conflict(modality, sources) => {
            let reason = differ(*modality, sources);
            let rows = sources
                .iter()
                .map(|source| row(source.to_string(), reason.clone()));
            rows.collect()
        }
        Rejection::Lengths { audio, visual } => vec![row(
            features(Modality::Visual),
            format!("has {audio} audio and {visual} visual segments, expected equally many: none is used"),
        )],
        Rejection::Unscored(modality, class) => vec![row(
            features(*modality),
            format!("has no {modality} score of class `{}`", name(class)),
        )],
        Rejection::UserLabel { modality, why } => {
            let why = match why {
                UserLabelRejection::Unlabelled => {
                    format!("a person set {modality} labels, but it has none to set")
                }
                UserLabelRejection::Class(class) => format!(
                    "a person set {modality} labels of class `{}`, expected a class of the weak label: add it there first",
                    name(class)
                ),
                UserLabelRejection::Segment {
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
        Rejection::Prediction {
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
        Rejection::Probability {
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

/// Kind and modality of the rows of a rejection. Unequal lengths count as a rejection of the visual features.
fn kind(rejection: &Rejection) -> (RejectKind, Modality) {
    match rejection {
        Rejection::Missing(modality) => (RejectKind::MissingFeatures, *modality),
        Rejection::Conflict(modality, _) => (RejectKind::FeatureConflict, *modality),
        Rejection::Lengths { .. } => (RejectKind::UnequalLengths, Modality::Visual),
        Rejection::Unscored(modality, _) => (RejectKind::UnscoredClass, *modality),
        Rejection::UserLabel { modality, .. } => (RejectKind::UserLabel, *modality),
        Rejection::Prediction { modality, .. } => (RejectKind::PredictionLength, *modality),
        Rejection::Probability { modality, .. } => (RejectKind::PredictionValue, *modality),
    }
}

/// Value of column `file` for a rejection that concerns all inputs of a modality.
fn inputs(world: &World, modality: Modality) -> String {
    let paths = world.named_inputs(modality);
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

/// What the inputs of a modality are, in the plural.
pub(crate) fn input_noun(world: &World, modality: Modality) -> &'static str {
    match world.generated(modality) {
        LabelRule::Import => "labels",
        _ => "features",
    }
}

/// Removes the rows of the graph that tell again that a label file of another program was rejected, so that a bad file counts
/// once.
pub(crate) fn drop_repeated(world: &World, rows: &mut Vec<RejectRow>) {
    let imported = Modality::ALL.map(|modality| world.generated(modality) == LabelRule::Import);
    if imported == [false; 2] {
        return;
    }
    let key = |row: &RejectRow| {
        let modality = row.modality.filter(|modality| imported[modality.index()])?;
        Some((row.video.clone()?, modality))
    };
    let of_file =
        |row: &&RejectRow| matches!(row.kind, RejectKind::UnreadableFile | RejectKind::LabelConflict);
    let told: BTreeSet<_> = rows.iter().filter(of_file).filter_map(key).collect();
    rows.retain(|row| {
        row.kind != RejectKind::MissingFeatures || key(row).is_none_or(|own| !told.contains(&own))
    });
}

/// Updates a row after the inputs changed. A row of [`RejectKind::names_inputs`] names the inputs of its modality.
///
/// A row of an older program may name only the inputs of its time. Such a row keeps its file.
pub fn with_inputs(mut row: RejectRow, before: &World, after: &World) -> RejectRow {
    if let Some(modality) = row.modality.filter(|_| row.kind.names_inputs())
        && row.file == inputs(before, modality)
    {
        row.file = inputs(after, modality);
    }
    row
}

/// The message of features that differ, without the name of the video.
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
