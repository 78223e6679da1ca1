use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::{RejectRow, Severity};

/// The `rejects` table: what was left out, and oddities that cost nothing.
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
            Field::new("reason", text(), false),      // field, value and what was expected
        ]))
    }

    fn encode(rows: &[RejectRow]) -> RecordBatch {
        let mut texts: [TextBuilder; 3] = Default::default();
        for row in rows {
            texts[0].push(&Arc::from(&*row.file));
            texts[1].push_option(row.video.as_deref().map(Arc::from).as_ref());
            texts[2].push(&Arc::from(&*row.reason));
        }
        let [file, video, reason] = texts.map(TextBuilder::finish);
        batch(
            Self::schema(),
            vec![
                file,
                Arc::new(
                    rows.iter()
                        .map(|row| row.row.map(|row| row as i64))
                        .collect::<Int64Array>(),
                ),
                video,
                names(rows.iter().map(|row| match row.severity {
                    Severity::Reject => ("reject", 1),
                    Severity::Note => ("note", 1),
                })),
                reason,
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
                Ok(RejectRow {
                    file: file.expect(row).to_string(),
                    row: place,
                    video: video.get(row).map(|video| video.to_string()),
                    severity,
                    reason: reason.expect(row).to_string(),
                })
            })
            .collect()
    }
}
