use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, names};
use super::scores::tracks;
use super::{Table, text};
use crate::error::TableError;
use crate::rows::{Flip, LabelCell, LabelRule, LabelTrack};

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
            Field::new("loss", DataType::Float64, true),   // forward loss; null but for rule `pld`
            Field::new("epoch", DataType::Int64, true),    // of the loss
        ];
        Arc::new(Schema::new([columns, flip_fields()].concat()))
    }

    fn encode(rows: &[LabelTrack]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for track in rows {
            video.push_run(&track.video, track.cells.len());
            class.push_run(&track.class, track.cells.len());
        }
        let cells = || rows.iter().flat_map(|track| &track.cells);
        let float = |get: fn(&LabelCell) -> Option<f64>| Arc::new(cells().map(get).collect::<Float64Array>());
        let mut columns: Vec<ArrayRef> = vec![
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
            float(|cell| cell.loss),
            Arc::new(
                cells()
                    .map(|cell| cell.epoch.map(|epoch| epoch as i64))
                    .collect::<Int64Array>(),
            ),
        ];
        columns.extend(flip_columns(|| cells().map(|cell| cell.flip.as_deref())));
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
        let (loss, epoch) = (
            columns.optional_float64("loss")?,
            columns.optional_int64("epoch")?,
        );
        let flips = Flips::of(&columns)?;
        let float = |array: &Float64Array, row: usize| array.is_valid(row).then(|| array.value(row));
        let cell = |row: usize| {
            let epoch = match epoch.is_valid(row) {
                true => Some(columns.count(row, "epoch", epoch.value(row))?),
                false => None,
            };
            Ok(LabelCell {
                label: label.value(row),
                rule: label_rule(&columns, row, rule.expect(row))?,
                score: float(&score, row),
                threshold: float(&threshold, row),
                loss: float(&loss, row),
                epoch,
                flip: flips.get(&columns, row)?,
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

/// Columns of a flip: added to tables that were there, so files may lack them.
pub(super) fn flip_fields() -> Vec<Field> {
    vec![
        Field::new("base", DataType::Float64, true), // mean of the K smallest losses; null but for rule `pld`
        Field::new("alpha", DataType::Float64, true), // the loss is above so many times the base; as `base`
        Field::new("k", DataType::Int32, true),      // as `base`
    ]
}

/// Of each row its flip, as the columns of [`flip_fields`].
pub(super) fn flip_columns<'a, I: Iterator<Item = Option<&'a Flip>>>(rows: impl Fn() -> I) -> [ArrayRef; 3] {
    let float = |get: fn(&Flip) -> f64| Arc::new(rows().map(|flip| flip.map(get)).collect::<Float64Array>());
    let k = rows().map(|flip| flip.map(|flip| flip.k as i32));
    [
        float(|flip| flip.base),
        float(|flip| flip.alpha),
        Arc::new(k.collect::<Int32Array>()),
    ]
}

/// The columns of [`flip_fields`] in a batch; where it lacks them, all are null.
pub(super) struct Flips {
    base: Float64Array,
    alpha: Float64Array,
    k: Int32Array,
}

impl Flips {
    pub(super) fn of(columns: &Columns<'_>) -> Result<Flips, TableError> {
        Ok(Flips {
            base: columns.added_float64("base")?,
            alpha: columns.added_float64("alpha")?,
            k: columns.added_int32("k")?,
        })
    }

    pub(super) fn get(&self, columns: &Columns<'_>, row: usize) -> Result<Option<Box<Flip>>, TableError> {
        match [
            self.base.is_valid(row),
            self.alpha.is_valid(row),
            self.k.is_valid(row),
        ] {
            [true, true, true] => Ok(Some(Box::new(Flip {
                base: self.base.value(row),
                alpha: self.alpha.value(row),
                k: columns.small_count(row, "k", self.k.value(row))?,
            }))),
            [false, false, false] => Ok(None),
            [base, alpha, _] => {
                let column = match (base, alpha) {
                    (false, _) => "base",
                    (true, false) => "alpha",
                    (true, true) => "k",
                };
                Err(columns.value(row, column, "null", "a number, or base, alpha and k all null"))
            }
        }
    }
}

pub(super) fn label_rule(columns: &Columns<'_>, row: usize, name: &str) -> Result<LabelRule, TableError> {
    [LabelRule::Plg, LabelRule::Pld, LabelRule::User]
        .into_iter()
        .find(|rule| rule.as_str() == name)
        .ok_or_else(|| columns.value(row, "rule", format!("`{name}`"), "`plg`, `pld` or `user`"))
}
