use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int64, names};
use super::{Table, text};
use crate::error::TableError;
use crate::ids::Modality;
use crate::rows::{RejectKind, RejectRow, Severity};

/// The `rejects` table: input that was left out, and notes on odd input that was used.
///
/// Key: all columns. Sorted by key on disk.
#[derive(Clone, Copy, Debug)]
pub struct Rejects;

impl Table for Rejects {
    type Row = RejectRow;
    const NAME: &'static str = "rejects";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("file", text(), false),
            Field::new("row", DataType::Int64, true), // null: the whole file
            Field::new("video", text(), true),        // null: not known
            Field::new("severity", text(), false),    // `reject` or `note`
            Field::new("reason", text(), false),      // field, value and what was expected; for people only
            // These two columns were added later, so older files do not have them.
            Field::new("kind", text(), true), // the kind of the row: the name of a `RejectKind`
            Field::new("modality", text(), true), // null: no single modality, or the whole file
        ]))
    }

    fn encode(rows: &[RejectRow]) -> RecordBatch {
        let mut texts: [TextBuilder; 3] = Default::default();
        let mut modality = TextBuilder::default();
        let modalities = Modality::ALL.map(|modality| (modality, Arc::<str>::from(modality.as_str())));
        for row in rows {
            texts[0].push(&Arc::from(&*row.file));
            texts[1].push_option(row.video.as_deref().map(Arc::from).as_ref());
            texts[2].push(&Arc::from(&*row.reason));
            let own = modalities.iter().find(|(of, _)| Some(*of) == row.modality);
            modality.push_option(own.map(|(_, name)| name));
        }
        let [file, video, reason] = texts.map(TextBuilder::finish);
        batch(
            Self::schema(),
            vec![
                file,
                Arc::new(rows.iter().map(|row| row.row.map(int64)).collect::<Int64Array>()),
                video,
                names(rows.iter().map(|row| match row.severity {
                    Severity::Reject => ("reject", 1),
                    Severity::Note => ("note", 1),
                })),
                reason,
                names(rows.iter().map(|row| (row.kind.as_str(), 1))),
                modality.finish(),
            ],
        )
    }

    fn compare(a: &RejectRow, b: &RejectRow) -> Ordering {
        a.cmp(b)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<RejectRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (file, place) = (columns.required_text("file")?, columns.optional_int64("row")?);
        let (video, severity) = (columns.text("video")?, columns.required_text("severity")?);
        let reason = columns.required_text("reason")?;
        let (kind, modality) = (columns.added_text("kind")?, columns.added_text("modality")?);
        (0..batch.num_rows())
            .map(|row| {
                let place = match place.is_valid(row) {
                    true => Some(columns.count(row, "row", place.value(row))?),
                    false => None,
                };
                let severity = match &**severity.expect(row) {
                    "reject" => Severity::Reject,
                    "note" => Severity::Note,
                    other => {
                        return Err(columns.value(
                            row,
                            "severity",
                            format!("`{other}`"),
                            "`reject` or `note`",
                        ));
                    }
                };
                let decoded = RejectRow {
                    file: file.expect(row).to_string(),
                    row: place,
                    video: video.get(row).map(|video| video.to_string()),
                    severity,
                    reason: reason.expect(row).to_string(),
                    kind: RejectKind::Unknown,
                    modality: None,
                };
                let Some(kind) = kind.get(row) else {
                    return Ok(with_kind(decoded));
                };
                let kind = kind.parse().map_err(|_| {
                    columns.value(row, "kind", format!("`{kind}`"), "a kind of docs/tables.md")
                })?;
                let modality = match modality.get(row) {
                    Some(_) => Some(columns.modality(row, &modality)?),
                    None => None,
                };
                Ok(RejectRow {
                    kind,
                    modality,
                    ..decoded
                })
            })
            .collect()
    }
}

/// Gives a row of a store that has no column `kind` the kind and modality that its text says.
///
/// This is the only place that reads the text of a reason. It is safe because programs that do not write the column
/// are already released, so the text of their rows never changes. A row that is not from the label graph stays
/// [`RejectKind::Unknown`] until its file is read again.
fn with_kind(row: RejectRow) -> RejectRow {
    let begin = row.video.as_ref().map(|video| format!("video `{video}` "));
    let said = begin.and_then(|begin| row.reason.strip_prefix(&*begin));
    let Some(said) = said.filter(|_| row.row.is_none()) else {
        return row;
    };
    let graph = Modality::ALL.into_iter().find_map(|modality| {
        let kind = if row.file == "user_labels" && said.starts_with(&format!("a person set {modality} ")) {
            RejectKind::UserLabel
        } else if row.file == "predictions" && said.starts_with(&format!("has {modality} predictions ")) {
            RejectKind::PredictionLength
        } else if row.file == "predictions" && said.starts_with(&format!("{modality} prediction ")) {
            RejectKind::PredictionValue
        } else if said.starts_with(&format!("has no {modality} features ")) {
            RejectKind::MissingFeatures
        } else if said.starts_with(&format!("has no {modality} score ")) {
            RejectKind::UnscoredClass
        } else if said.starts_with(&format!("has {modality} features that differ ")) {
            RejectKind::FeatureConflict
        } else if modality == Modality::Visual
            && said.starts_with("has ")
            && said.ends_with(" visual segments, expected equally many: none is used")
        {
            RejectKind::UnequalLengths
        } else {
            return None;
        };
        Some((kind, modality))
    });
    match graph {
        Some((kind, modality)) => RejectRow {
            kind,
            modality: Some(modality),
            ..row
        },
        None => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_kind_get_the_kind_of_their_text() {
        let kinds = [
            (
                "a, b",
                "has no audio features that can be used",
                RejectKind::MissingFeatures,
            ),
            (
                "a",
                "has no visual score of class `Dog`",
                RejectKind::UnscoredClass,
            ),
            (
                "a",
                "has visual features that differ in `a`, `b`, expected one or equal copies: none is used",
                RejectKind::FeatureConflict,
            ),
            (
                "a",
                "has 3 audio and 4 visual segments, expected equally many: none is used",
                RejectKind::UnequalLengths,
            ),
            (
                "user_labels",
                "a person set audio labels, but it has none to set: it waits",
                RejectKind::UserLabel,
            ),
            (
                "predictions",
                "has audio predictions of epoch 1 for 2 segments, expected 3: none is used",
                RejectKind::PredictionLength,
            ),
            (
                "predictions",
                "visual prediction of epoch 1, class `Dog`, segment 0 is 2, expected 0 to 1: it flips nothing",
                RejectKind::PredictionValue,
            ),
            (
                "a.mp4",
                "is also in `b.mp4`, expected one: none is used",
                RejectKind::Unknown,
            ),
        ];
        let rows: Vec<RejectRow> = kinds
            .iter()
            .map(|(file, said, _)| {
                RejectRow::reject(RejectKind::Unknown, *file, format!("video `v` {said}")).video("v")
            })
            .collect();
        let written = Rejects::encode(&rows);
        let old = written.project(&[0, 1, 2, 3, 4]).unwrap();
        let read = Rejects::decode(&old).unwrap();
        let found: Vec<RejectKind> = read.iter().map(|row| row.kind).collect();
        assert_eq!(found, kinds.map(|(_, _, kind)| kind));
        assert_eq!(read[0].modality, Some(Modality::Audio));
        // A written kind counts, whatever the text says.
        assert_eq!(Rejects::decode(&written).unwrap(), rows);
    }
}
