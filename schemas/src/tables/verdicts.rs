use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int32, int64, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::VerdictRow;

/// The `verdicts` table: what persons said about the truth of single segments, for `audit`. A verdict changes no label.
///
/// Key: (`video`, `modality`, `class`, `segment`). One row per key; sorted by key on disk.
#[derive(Clone, Copy, Debug)]
pub struct Verdicts;

impl Table for Verdicts {
    type Row = VerdictRow;
    const NAME: &'static str = "verdicts";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("segment", DataType::Int32, false), // from 0
            Field::new("present", DataType::Boolean, true), // does the event occur in the segment; null: unsure
            Field::new("version", DataType::Int64, false),  // store version that the sample was drawn from
            Field::new("strata", text(), false),            // what the sample was stratified by
            Field::new("source", text(), false),            // file that has the verdict, or the review page
        ]))
    }

    fn encode(rows: &[VerdictRow]) -> RecordBatch {
        let mut texts: [TextBuilder; 4] = Default::default();
        for row in rows {
            texts[0].push(&row.video);
            texts[1].push(&row.class);
            texts[2].push(&row.strata);
            texts[3].push(&row.source);
        }
        let [video, class, strata, source] = texts.map(TextBuilder::finish);
        let segment = Int32Array::from_iter_values(rows.iter().map(|row| int32(row.segment)));
        let present: BooleanArray = rows.iter().map(|row| row.present).collect();
        let version = Int64Array::from_iter_values(rows.iter().map(|row| int64(row.version)));
        batch(
            Self::schema(),
            vec![
                video,
                names(rows.iter().map(|row| (row.modality.as_str(), 1))),
                class,
                Arc::new(segment),
                Arc::new(present),
                Arc::new(version),
                strata,
                source,
            ],
        )
    }

    fn compare(a: &VerdictRow, b: &VerdictRow) -> Ordering {
        (&a.video, a.modality, &a.class, a.segment).cmp(&(&b.video, b.modality, &b.class, b.segment))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<VerdictRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let (class, source) = (columns.required_text("class")?, columns.required_text("source")?);
        let strata = columns.required_text("strata")?;
        let (segment, present) = (columns.int32("segment")?, columns.optional_boolean("present")?);
        let version = columns.int64("version")?;
        (0..batch.num_rows())
            .map(|row| {
                Ok(VerdictRow {
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    class: class.expect(row).clone(),
                    segment: columns.small_count(row, "segment", segment.value(row))?,
                    present: present.is_valid(row).then(|| present.value(row)),
                    version: columns.count(row, "version", version.value(row))?,
                    strata: strata.expect(row).clone(),
                    source: source.expect(row).clone(),
                })
            })
            .collect()
    }

    fn video(row: &VerdictRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
