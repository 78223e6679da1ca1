use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, float_lists, floats, int32, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::PromptRow;

/// The `prompts` table: the text embedding of each class and modality.
///
/// Key: (`position`, `modality`). One row per key; sorted by key on disk.
#[derive(Clone, Copy, Debug)]
pub struct Prompts;

impl Table for Prompts {
    type Row = PromptRow;
    const NAME: &'static str = "prompts";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("class", text(), false),
            Field::new("position", DataType::Int32, false), // as in `classes`
            Field::new("modality", text(), false),
            Field::new("embedding", floats(), false), // D values; its norm may be any but 0
        ]))
    }

    fn encode(rows: &[PromptRow]) -> RecordBatch {
        let mut class = TextBuilder::default();
        rows.iter().for_each(|row| class.push(&row.class));
        let position = Int32Array::from_iter_values(rows.iter().map(|row| int32(row.position)));
        batch(
            Self::schema(),
            vec![
                class.finish(),
                Arc::new(position),
                names(rows.iter().map(|row| (row.modality.as_str(), 1))),
                float_lists(rows.iter().map(|row| &*row.embedding)),
            ],
        )
    }

    fn compare(a: &PromptRow, b: &PromptRow) -> Ordering {
        (a.position, a.modality).cmp(&(b.position, b.modality))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<PromptRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (class, modality) = (
            columns.required_text("class")?,
            columns.required_text("modality")?,
        );
        let position = columns.int32("position")?;
        let embeddings = columns.float_lists("embedding")?.into_iter();
        embeddings
            .enumerate()
            .map(|(row, embedding)| {
                Ok(PromptRow {
                    class: class.expect(row).clone(),
                    position: columns.small_count(row, "position", position.value(row))?,
                    modality: columns.modality(row, &modality)?,
                    embedding,
                })
            })
            .collect()
    }
}
