use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int32, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::TruthRow;

/// The `truth` table: dense annotation of val and test videos.
///
/// Key: all columns. One row per event; sorted by key on disk.
#[derive(Clone, Copy, Debug)]
pub struct Truth;

impl Table for Truth {
    type Row = TruthRow;
    const NAME: &'static str = "truth";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("onset", DataType::Int32, false), // first segment
            Field::new("offset", DataType::Int32, false), // first segment after the event
        ]))
    }

    fn encode(rows: &[TruthRow]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for row in rows {
            video.push(&row.video);
            class.push(&row.class);
        }
        batch(
            Self::schema(),
            vec![
                video.finish(),
                names(rows.iter().map(|row| (row.modality.as_str(), 1))),
                class.finish(),
                Arc::new(Int32Array::from_iter_values(
                    rows.iter().map(|row| int32(row.onset)),
                )),
                Arc::new(Int32Array::from_iter_values(
                    rows.iter().map(|row| int32(row.offset)),
                )),
            ],
        )
    }

    fn compare(a: &TruthRow, b: &TruthRow) -> Ordering {
        let key = |row: &TruthRow| (row.onset, row.offset);
        let order = (&a.video, a.modality, &a.class).cmp(&(&b.video, b.modality, &b.class));
        order.then_with(|| key(a).cmp(&key(b)))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<TruthRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let class = columns.required_text("class")?;
        let (onset, offset) = (columns.int32("onset")?, columns.int32("offset")?);
        (0..batch.num_rows())
            .map(|row| {
                let onset = columns.small_count(row, "onset", onset.value(row))?;
                let offset = columns.small_count(row, "offset", offset.value(row))?;
                if offset <= onset {
                    return Err(columns.value(row, "offset", offset, "a segment after the onset"));
                }
                Ok(TruthRow {
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    class: class.expect(row).clone(),
                    onset,
                    offset,
                })
            })
            .collect()
    }

    fn video(row: &TruthRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
