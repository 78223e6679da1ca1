//! Faults of the graph as rows of `rejects`.
//!
//! Such a row has a video and no row number, and its reason begins with the video: [`is_of_graph`] tells it from what
//! reading a file left out, so that a change takes back exactly the faults that it may mend.

use std::sync::Arc;

use vaplan_dataflows::fault::{Fault, MarkFault};
use vaplan_schemas::rows::{RejectRow, Severity};
use vaplan_schemas::{ClassId, Modality};

use super::{World, at};

/// File named for a fault of marks: they may come from several.
const MARKS: &str = "user_labels";
/// How a fault of lengths ends.
const LENGTHS: &str = "expected equally many: none is used";
/// File named for a fault of predictions.
pub(crate) const PREDICTIONS: &str = "predictions";

/// Rows of a fault of a video.
pub fn rows(world: &World, video: &Arc<str>, fault: &Fault) -> Vec<RejectRow> {
    let features = |modality: Modality| inputs(world, modality);
    let name = |class: &ClassId| &world.classes[class.index()];
    let row = |file: String, reason: String| RejectRow {
        file,
        row: None,
        video: Some(video.to_string()),
        severity: Severity::Reject,
        reason: format!("{}{reason}", begin(video)),
    };
    match fault {
        Fault::Missing(modality) => {
            vec![row(
                features(*modality),
                format!("has no {modality} features that can be used"),
            )]
        }
        Fault::Conflict(modality, sources) => {
            let reason = format!(
                "has {modality} features that differ in `{}`, expected one or equal copies: none is used",
                sources.join("`, `")
            );
            let rows = sources
                .iter()
                .map(|source| row(source.to_string(), reason.clone()));
            rows.collect()
        }
        Fault::Lengths { audio, visual } => vec![row(
            features(Modality::Visual),
            format!("has {audio} audio and {visual} visual segments, {LENGTHS}"),
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
            vec![row(MARKS.to_owned(), format!("{why}: it waits"))]
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
        other => vec![row(features(Modality::Visual), format!("{other:?}"))],
    }
}

/// File named for a fault of all inputs of a modality.
fn inputs(world: &World, modality: Modality) -> String {
    let paths = world.features[at(modality)].iter();
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

/// A row of a world, as a world of other inputs says it: a fault of all inputs names them.
pub fn renamed(mut row: RejectRow, before: &World, after: &World) -> RejectRow {
    let Some(said) = row
        .video
        .as_deref()
        .and_then(|video| row.reason.strip_prefix(&begin(video)))
    else {
        return row;
    };
    let of_lengths = said.ends_with(LENGTHS).then_some(Modality::Visual);
    let lacks = |modality: &Modality| said.starts_with(&format!("has no {modality} "));
    let modality = Modality::ALL.into_iter().find(lacks).or(of_lengths);
    if let Some(modality) =
        modality.filter(|modality| row.row.is_none() && row.file == inputs(before, *modality))
    {
        row.file = inputs(after, modality);
    }
    row
}

fn begin(video: &str) -> String {
    format!("video `{video}` ")
}

/// Is this a row that [`rows`] made of predictions that do not count?
pub fn is_of_predictions(row: &RejectRow) -> bool {
    row.file == PREDICTIONS && is_of_graph(row)
}

/// Is this a row that [`rows`] made?
pub fn is_of_graph(row: &RejectRow) -> bool {
    let video = row.video.as_deref();
    row.row.is_none() && video.is_some_and(|video| row.reason.starts_with(&begin(video)))
}
