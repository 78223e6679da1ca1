use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Float64Array, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int32, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::ClassRow;

/// The `classes` table.
///
/// Key: (`position`, `modality`). One row per key; sorted by key on disk.
#[derive(Clone, Copy, Debug)]
pub struct Classes;

impl Table for Classes {
    type Row = ClassRow;
    const NAME: &'static str = "classes";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("class", text(), false),
            Field::new("position", DataType::Int32, false), // column of every (T, C) matrix, from 0
            Field::new("modality", text(), false),
            Field::new("prompt", text(), true),            // null: not known
            Field::new("rule", text(), false),             // `softmax` or `logit`
            Field::new("scale", DataType::Float64, false), // scale κ of the cosine
            Field::new("threshold", DataType::Float64, false), // as requested: r or θ
            Field::new("cutoff", DataType::Float64, false), // the number that scores must exceed: r / C or θ
        ]))
    }

    fn encode(rows: &[ClassRow]) -> RecordBatch {
        let (mut class, mut prompt, mut rule) = (
            TextBuilder::default(),
            TextBuilder::default(),
            TextBuilder::default(),
        );
        for row in rows {
            class.push(&row.class);
            prompt.push_option(row.prompt.as_ref());
            rule.push(&row.rule);
        }
        let float =
            |get: fn(&ClassRow) -> f64| Arc::new(Float64Array::from_iter_values(rows.iter().map(get)));
        batch(
            Self::schema(),
            vec![
                class.finish(),
                Arc::new(Int32Array::from_iter_values(
                    rows.iter().map(|row| int32(row.position)),
                )),
                names(rows.iter().map(|row| (row.modality.as_str(), 1))),
                prompt.finish(),
                rule.finish(),
                float(|row| row.scale),
                float(|row| row.threshold),
                float(|row| row.score_threshold),
            ],
        )
    }

    fn compare(a: &ClassRow, b: &ClassRow) -> Ordering {
        (a.position, a.modality).cmp(&(b.position, b.modality))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<ClassRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (class, modality) = (
            columns.required_text("class")?,
            columns.required_text("modality")?,
        );
        let (prompt, rule) = (columns.text("prompt")?, columns.required_text("rule")?);
        let position = columns.int32("position")?;
        let (scale, threshold) = (columns.float64("scale")?, columns.float64("threshold")?);
        let score_threshold = columns.float64("cutoff")?;
        (0..batch.num_rows())
            .map(|row| {
                Ok(ClassRow {
                    class: class.expect(row).clone(),
                    position: columns.small_count(row, "position", position.value(row))?,
                    modality: columns.modality(row, &modality)?,
                    prompt: prompt.get(row).cloned(),
                    rule: rule.expect(row).clone(),
                    scale: scale.value(row),
                    threshold: threshold.value(row),
                    score_threshold: score_threshold.value(row),
                })
            })
            .collect()
    }
}
