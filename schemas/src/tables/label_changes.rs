use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int32, int64, names};
use super::labels::label_rule;
use super::why::{self, Reasons};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::LabelChangeRow;

/// The `label_changes` table; rows are only added. A label that is not in `labels` counts as unset, so the changes up
/// to a version add up to the set labels of `labels` at that version.
///
/// Key: (`version`, `video`, `modality`, `class`, `segment`). One row per key; sorted by key within a version.
#[derive(Clone, Copy, Debug)]
pub struct LabelChanges;

impl Table for LabelChanges {
    type Row = LabelChangeRow;
    const NAME: &'static str = "label_changes";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        let columns = vec![
            Field::new("version", DataType::Int64, false), // store version
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("segment", DataType::Int32, false), // from 0
            Field::new("from", DataType::Boolean, false),
            Field::new("to", DataType::Boolean, false), // differs from `from`
            Field::new("rule", text(), false),          // the rule that set it: `plg`, `pld` or `user`
            why::field(),                               // why PLD flipped the label; null for other rules
        ];
        Arc::new(Schema::new(columns))
    }

    fn encode(rows: &[LabelChangeRow]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for row in rows {
            video.push(&row.video);
            class.push(&row.class);
        }
        let boolean = |get: fn(&LabelChangeRow) -> bool| {
            Arc::new(rows.iter().map(|row| Some(get(row))).collect::<BooleanArray>())
        };
        let whys: Vec<_> = rows.iter().map(|row| row.why.as_deref()).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|row| int64(row.version)),
            )),
            video.finish(),
            names(rows.iter().map(|row| (row.modality.as_str(), 1))),
            class.finish(),
            Arc::new(Int32Array::from_iter_values(
                rows.iter().map(|row| int32(row.segment)),
            )),
            boolean(|row| row.from),
            boolean(|row| row.to),
            names(rows.iter().map(|row| (row.rule.as_str(), 1))),
            why::encode(&whys),
        ];
        batch(Self::schema(), columns)
    }

    fn compare(a: &LabelChangeRow, b: &LabelChangeRow) -> Ordering {
        let order = (a.version, &a.video, a.modality).cmp(&(b.version, &b.video, b.modality));
        order.then_with(|| (&a.class, a.segment).cmp(&(&b.class, b.segment)))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelChangeRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let version = columns.int64("version")?;
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let (class, segment) = (columns.required_text("class")?, columns.int32("segment")?);
        let (from, to) = (columns.boolean("from")?, columns.boolean("to")?);
        let (rule, why) = (columns.required_text("rule")?, Reasons::of(&columns)?);
        (0..batch.num_rows())
            .map(|row| {
                if from.value(row) == to.value(row) {
                    return Err(columns.value(row, "to", to.value(row), "another label than `from`"));
                }
                Ok(LabelChangeRow {
                    version: columns.count(row, "version", version.value(row))?,
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    class: class.expect(row).clone(),
                    segment: columns.small_count(row, "segment", segment.value(row))?,
                    from: from.value(row),
                    to: to.value(row),
                    rule: label_rule(&columns, row, rule.expect(row))?,
                    why: why.get(&columns, row)?,
                })
            })
            .collect()
    }

    fn video(row: &LabelChangeRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
