use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, names};
use super::scores::tracks;
use super::why::{self, Reasons};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::{LabelCell, LabelRule, LabelTrack};

/// The `labels` table, for classes of the weak label only: each label, and why it is so.
///
/// Key: (`video`, `modality`, `class`, `segment`). One row per key; sorted by key within a bucket; segments count
/// from 0 without a gap.
#[derive(Clone, Copy, Debug)]
pub struct Labels;

impl Table for Labels {
    type Row = LabelTrack;
    const NAME: &'static str = "labels";
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        let columns = vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("segment", DataType::Int32, false), // from 0
            Field::new("label", DataType::Boolean, false), // is the event there
            Field::new("rule", text(), false),             // what set it: `plg`, `pld` or `user`
            Field::new("score", DataType::Float64, true),  // what was compared; null for rule `user`
            Field::new("threshold", DataType::Float64, true), // with what; null for rule `user`
            why::field(),                                  // why it was flipped; null but for rule `pld`
        ];
        Arc::new(Schema::new(columns))
    }

    fn encode(rows: &[LabelTrack]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for track in rows {
            video.push_run(&track.video, track.cells.len());
            class.push_run(&track.class, track.cells.len());
        }
        let cells = || rows.iter().flat_map(|track| &track.cells);
        let float = |get: fn(&LabelCell) -> Option<f64>| Arc::new(cells().map(get).collect::<Float64Array>());
        let columns: Vec<ArrayRef> = vec![
            video.finish(),
            names(
                rows.iter()
                    .map(|track| (track.modality.as_str(), track.cells.len())),
            ),
            class.finish(),
            Arc::new(Int32Array::from_iter_values(
                rows.iter().flat_map(|track| 0..track.cells.len() as i32),
            )),
            Arc::new(cells().map(|cell| Some(cell.label)).collect::<BooleanArray>()),
            names(
                rows.iter()
                    .flat_map(|track| &track.cells)
                    .map(|cell| (cell.rule.as_str(), 1)),
            ),
            float(|cell| cell.score),
            float(|cell| cell.threshold),
            why::encode(|| cells().map(|cell| cell.why.as_deref())),
        ];
        batch(Self::schema(), columns)
    }

    fn compare(a: &LabelTrack, b: &LabelTrack) -> Ordering {
        (&a.video, a.modality, &a.class).cmp(&(&b.video, b.modality, &b.class))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (label, rule) = (columns.boolean("label")?, columns.required_text("rule")?);
        let (score, threshold) = (
            columns.optional_float64("score")?,
            columns.optional_float64("threshold")?,
        );
        let why = Reasons::of(&columns)?;
        let float = |array: &Float64Array, row: usize| array.is_valid(row).then(|| array.value(row));
        let cell = |row: usize| {
            Ok(LabelCell {
                label: label.value(row),
                rule: label_rule(&columns, row, rule.expect(row))?,
                score: float(&score, row),
                threshold: float(&threshold, row),
                why: why.get(&columns, row)?,
            })
        };
        let of_track = |(video, modality, class, rows): super::scores::TrackRows| {
            let cells = rows.map(cell).collect::<Result<Vec<_>, TableError>>()?;
            Ok(LabelTrack {
                video,
                modality,
                class,
                cells,
            })
        };
        tracks(&columns, batch.num_rows())?
            .into_iter()
            .map(of_track)
            .collect()
    }

    fn height(row: &LabelTrack) -> usize {
        row.cells.len()
    }

    fn video(row: &LabelTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}

pub(super) fn label_rule(columns: &Columns<'_>, row: usize, name: &str) -> Result<LabelRule, TableError> {
    [LabelRule::Plg, LabelRule::Pld, LabelRule::User]
        .into_iter()
        .find(|rule| rule.as_str() == name)
        .ok_or_else(|| columns.value(row, "rule", format!("`{name}`"), "`plg`, `pld` or `user`"))
}
