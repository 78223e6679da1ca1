use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, Int64Array, MapArray, MapBuilder, MapFieldNames,
    RecordBatch, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int64};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::EpochRow;

/// The `epochs` table: the result of each epoch of each training. Rows are added; only column `flips` is written
/// again.
///
/// Key: `epoch`. One row per key; sorted by key within a file.
#[derive(Clone, Copy, Debug)]
pub struct Epochs;

fn key() -> Field {
    Field::new("key", DataType::Utf8, false)
}

fn value() -> Field {
    Field::new("value", DataType::Float64, false)
}

/// The type of a map from names to numbers.
fn numbers() -> DataType {
    let entries = DataType::Struct(Fields::from(vec![key(), value()]));
    DataType::Map(Arc::new(Field::new("key_value", entries, false)), false)
}

fn encode_numbers<'a>(rows: impl Iterator<Item = &'a [(Arc<str>, f64)]>) -> ArrayRef {
    let names = MapFieldNames {
        entry: "key_value".into(),
        key: "key".into(),
        value: "value".into(),
    };
    let mut numbers = MapBuilder::new(Some(names), StringBuilder::new(), Float64Builder::new())
        .with_keys_field(key())
        .with_values_field(value());
    for row in rows {
        for (name, number) in row {
            numbers.keys().append_value(name);
            numbers.values().append_value(*number);
        }
        numbers.append(true).expect("as many keys as values");
    }
    Arc::new(numbers.finish())
}

/// The numbers of one row, each with its name.
type Numbers = Vec<(Arc<str>, f64)>;

fn decode_numbers(
    columns: &Columns<'_>,
    batch: &RecordBatch,
    column: &'static str,
) -> Result<Vec<Numbers>, TableError> {
    let wrong = |found: String| TableError::ColumnType {
        table: columns.table,
        column,
        found,
        expected: "Map(Utf8, Float64)",
    };
    let array = columns.column(column)?;
    let found = || wrong(array.data_type().to_string());
    let map: &MapArray = array.as_map_opt().ok_or_else(found)?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        if map.is_null(row) {
            return Err(columns.value(row, column, "null", "numbers by name"));
        }
        let entries = map.value(row);
        let keys = entries.column(0).as_string_opt::<i32>().ok_or_else(found)?;
        let values = entries
            .column(1)
            .as_primitive_opt::<Float64Type>()
            .ok_or_else(found)?;
        if keys.null_count() > 0 || values.null_count() > 0 {
            return Err(columns.value(row, column, "a map with null", "numbers by name"));
        }
        let pairs = (0..keys.len()).map(|at| (Arc::from(keys.value(at)), values.value(at)));
        rows.push(pairs.collect());
    }
    Ok(rows)
}

impl Table for Epochs {
    type Row = EpochRow;
    const NAME: &'static str = "epochs";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("epoch", DataType::Int64, false), // from 1, over all trainings of the store
            Field::new("run", text(), false),            // SHA-256 of all inputs of the training, hex
            Field::new("run_epoch", DataType::Int64, false), // from 1 within the training
            Field::new("labels", DataType::Int64, false), // store version of the labels it trained on
            Field::new("videos", DataType::Int64, false), // number of videos it trained on
            Field::new("flips", DataType::Int64, true),  // labels flipped after it; null: PLD did not run
            Field::new("learning_rate", DataType::Float64, false), // of its last step
            Field::new("seconds", DataType::Float64, false), // duration with validation, in seconds
            Field::new("losses", numbers(), false), // means over the videos: `total` and its terms; `gradient_norm`
            Field::new("metrics", numbers(), false), // percent: `val.fused.segment.type_av` and the like
        ]))
    }

    fn encode(rows: &[EpochRow]) -> RecordBatch {
        let mut run = TextBuilder::default();
        for row in rows {
            run.push(&row.run);
        }
        let int = |get: fn(&EpochRow) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|row| int64(get(row))),
            ))
        };
        let float = |get: fn(&EpochRow) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(get)))
        };
        let flips: Int64Array = rows.iter().map(|row| row.flips.map(int64)).collect();
        batch(
            Self::schema(),
            vec![
                int(|row| row.epoch),
                run.finish(),
                int(|row| row.run_epoch),
                int(|row| row.labels),
                int(|row| row.videos),
                Arc::new(flips),
                float(|row| row.learning_rate),
                float(|row| row.seconds),
                encode_numbers(rows.iter().map(|row| row.losses.as_slice())),
                encode_numbers(rows.iter().map(|row| row.metrics.as_slice())),
            ],
        )
    }

    fn compare(a: &EpochRow, b: &EpochRow) -> Ordering {
        a.epoch.cmp(&b.epoch)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<EpochRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let int = |column| columns.int64(column);
        let (epoch, run_epoch, labels) = (int("epoch")?, int("run_epoch")?, int("labels")?);
        let (videos, flips) = (int("videos")?, columns.optional_int64("flips")?);
        let run = columns.required_text("run")?;
        let (rate, seconds) = (columns.float64("learning_rate")?, columns.float64("seconds")?);
        let losses = decode_numbers(&columns, batch, "losses")?;
        let metrics = decode_numbers(&columns, batch, "metrics")?;
        let mut rows = Vec::with_capacity(batch.num_rows());
        for (row, (losses, metrics)) in losses.into_iter().zip(metrics).enumerate() {
            let count = |column, array: &Int64Array| columns.count(row, column, array.value(row));
            rows.push(EpochRow {
                epoch: count("epoch", &epoch)?,
                run: run.expect(row).clone(),
                run_epoch: count("run_epoch", &run_epoch)?,
                labels: count("labels", &labels)?,
                videos: count("videos", &videos)?,
                flips: match flips.is_valid(row) {
                    true => Some(count("flips", &flips)?),
                    false => None,
                },
                learning_rate: rate.value(row),
                seconds: seconds.value(row),
                losses,
                metrics,
            });
        }
        Ok(rows)
    }
}
