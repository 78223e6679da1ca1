use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int32, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::UserLabelRow;

/// The `user_labels` table: labels that a person set. A user label outranks the rules `plg` and `pld` until it is
/// withdrawn.
///
/// Key: (`video`, `modality`, `class`, `segment`). One row per key; sorted by key within a bucket. A row has no
/// effect yet if its class is not in the weak label or its segment is beyond the end of the video; `rejects` then has
/// a row of kind `user_label`.
#[derive(Clone, Copy, Debug)]
pub struct UserLabels;

impl Table for UserLabels {
    type Row = UserLabelRow;
    const NAME: &'static str = "user_labels";
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("segment", DataType::Int32, false), // from 0
            Field::new("label", DataType::Boolean, false), // does the event occur in the segment
            Field::new("source", text(), false),           // file that has the user label
        ]))
    }

    fn encode(rows: &[UserLabelRow]) -> RecordBatch {
        let mut texts: [TextBuilder; 3] = Default::default();
        for row in rows {
            texts[0].push(&row.video);
            texts[1].push(&row.class);
            texts[2].push(&row.source);
        }
        let [video, class, source] = texts.map(TextBuilder::finish);
        let segment = Int32Array::from_iter_values(rows.iter().map(|row| int32(row.segment)));
        let label: BooleanArray = rows.iter().map(|row| Some(row.label)).collect();
        batch(
            Self::schema(),
            vec![
                video,
                names(rows.iter().map(|row| (row.modality.as_str(), 1))),
                class,
                Arc::new(segment),
                Arc::new(label),
                source,
            ],
        )
    }

    fn compare(a: &UserLabelRow, b: &UserLabelRow) -> Ordering {
        (&a.video, a.modality, &a.class, a.segment).cmp(&(&b.video, b.modality, &b.class, b.segment))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<UserLabelRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let (class, source) = (columns.required_text("class")?, columns.required_text("source")?);
        let (segment, label) = (columns.int32("segment")?, columns.boolean("label")?);
        (0..batch.num_rows())
            .map(|row| {
                Ok(UserLabelRow {
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    class: class.expect(row).clone(),
                    segment: columns.small_count(row, "segment", segment.value(row))?,
                    label: label.value(row),
                    source: source.expect(row).clone(),
                })
            })
            .collect()
    }

    fn video(row: &UserLabelRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
