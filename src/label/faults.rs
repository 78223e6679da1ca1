//! Faults of the graph as rows of `rejects`.
//!
//! Such a row has a video and no row number, and its reason begins with the video: [`is_of_graph`] tells it from what
//! reading a file left out, so that a change takes back exactly the faults that it may mend.

use std::sync::Arc;

use vaplan_dataflows::fault::{Fault, MarkFault};
use vaplan_schemas::rows::{RejectRow, Severity};
use vaplan_schemas::{ClassId, Modality};

use super::world::{World, at};

/// File named for a fault of marks: they may come from several.
const MARKS: &str = "user_labels";
/// File named for a fault of predictions.
const PREDICTIONS: &str = "predictions";

/// Rows of a fault of a video.
pub fn rows(world: &World, video: &Arc<str>, fault: &Fault) -> Vec<RejectRow> {
    let features = |modality: Modality| {
        let paths = world.features[at(modality)].iter();
        let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        paths.join(", ")
    };
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

fn begin(video: &str) -> String {
    format!("video `{video}` ")
}

/// Is this a row that [`rows`] made?
pub fn is_of_graph(row: &RejectRow) -> bool {
    let video = row.video.as_deref();
    row.row.is_none() && video.is_some_and(|video| row.reason.starts_with(&begin(video)))
}
