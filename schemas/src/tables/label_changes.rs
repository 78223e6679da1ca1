use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, compare_text, int32, int64, names};
use super::labels::label_rule;
use super::lists::{self, Lists, list};
use super::why::{self, Reasons};
use super::{Table, by_segment, text};
use crate::error::TableError;
use crate::rows::{FlipReason, LabelChangeTrack};

/// The `label_changes` table; rows are only added. A label that is not in `labels` counts as unset, so the changes up
/// to a version add up to the set labels of `labels` at that version.
///
/// Key: (`version`, `video`, `modality`, `class`, first of `segments`). One row per key; sorted by key within a file. A row
/// has the segments of a track that a version changed to the same label by the same rule.
#[derive(Clone, Copy, Debug)]
pub struct LabelChanges;

impl Table for LabelChanges {
    type Row = LabelChangeTrack;
    const NAME: &'static str = "label_changes";
    const BUCKETED: bool = false;
    const FORMER: Option<&str> = Some(by_segment::SEGMENT);

    fn schema() -> SchemaRef {
        let columns = vec![
            Field::new("version", DataType::Int64, false), // store version
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("to", DataType::Boolean, false), // the labels after the change; before, they were the opposite
            Field::new("rule", text(), false),          // the rule that set them: `plg`, `pld` or `user`
            Field::new("segments", list(DataType::Int32, false), false), // from 0, ascending
            why::list_field(), // why PLD flipped each of the labels; null for other rules
        ];
        Arc::new(Schema::new(columns))
    }

    fn encode(rows: &[LabelChangeTrack]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for row in rows {
            video.push(&row.video);
            class.push(&row.class);
        }
        let segments = rows
            .iter()
            .flat_map(|row| row.segments.iter().copied().map(int32));
        let whys: Vec<Option<&FlipReason>> = rows.iter().flat_map(|row| &row.why).map(Some).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|row| int64(row.version)),
            )),
            video.finish(),
            names(rows.iter().map(|row| (row.modality.as_str(), 1))),
            class.finish(),
            Arc::new(rows.iter().map(|row| Some(row.to)).collect::<BooleanArray>()),
            names(rows.iter().map(|row| (row.rule.as_str(), 1))),
            lists::build(
                rows.iter().map(|row| row.segments.len()),
                Arc::new(Int32Array::from_iter_values(segments)),
                false,
                None,
            ),
            lists::build(
                rows.iter().map(|row| row.why.len()),
                why::encode(&whys),
                true,
                Some(rows.iter().map(|row| !row.why.is_empty()).collect()),
            ),
        ];
        batch(Self::schema(), columns)
    }

    fn compare(a: &LabelChangeTrack, b: &LabelChangeTrack) -> Ordering {
        let video = || compare_text(&a.video, &b.video);
        let order = a.version.cmp(&b.version).then_with(video);
        let order = order.then(a.modality.cmp(&b.modality));
        let class = || compare_text(&a.class, &b.class);
        order
            .then_with(class)
            .then_with(|| a.segments.first().cmp(&b.segments.first()))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelChangeTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        if Self::is_former(&batch.schema()) {
            return by_segment::label_changes(&columns, batch.num_rows());
        }
        let version = columns.int64("version")?;
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let (class, to) = (columns.required_text("class")?, columns.boolean("to")?);
        let rule = columns.required_text("rule")?;
        let segment_lists = Lists::new(&columns, "segments", "List(Int32)", true)?;
        let segment = segment_lists.int32(&columns)?;
        let why_lists = Lists::new(&columns, why::WHY, "List(Struct)", false)?;
        let why = Reasons::of_list(&columns, &why_lists)?;
        (0..batch.num_rows())
            .map(|row| {
                let of = segment_lists.range(row).unwrap_or_default();
                let own = &segment.values()[of.clone()];
                let ascends = own.is_sorted_by(|a, b| a < b) && own.first().is_some_and(|first| *first >= 0);
                if !ascends {
                    let expected = "a list of segments from 0, ascending and not empty";
                    return Err(columns.value(row, "segments", format!("{own:?}"), expected));
                }
                let mut reasons = Vec::new();
                if why_lists.range(row).is_some() {
                    for at in why_lists.range_of(&columns, row, of.len())? {
                        let reason = why.get(&columns, at, row)?;
                        let missing =
                            || columns.value(row, why::WHY, "a list with null", "a reason per segment");
                        reasons.push(*reason.ok_or_else(missing)?);
                    }
                }
                Ok(LabelChangeTrack {
                    version: columns.count(row, "version", version.value(row))?,
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    class: class.expect(row).clone(),
                    to: to.value(row),
                    rule: label_rule(&columns, row, rule.expect(row))?,
                    segments: own.iter().map(|segment| *segment as u32).collect(),
                    why: reasons,
                })
            })
            .collect()
    }

    fn changed_labels(row: &LabelChangeTrack) -> u64 {
        row.segments.len() as u64
    }

    fn former_schema() -> SchemaRef {
        by_segment::label_changes_schema()
    }

    fn video(row: &LabelChangeTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
