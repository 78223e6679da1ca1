use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int32};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::SettingRow;

/// The `settings` table: the settings of the store that do not belong to a class, video or epoch.
///
/// Key: (`name`, `position`). One row per value; sorted by key on disk.
#[derive(Clone, Copy, Debug)]
pub struct Settings;

impl Table for Settings {
    type Row = SettingRow;
    const NAME: &'static str = "settings";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("name", text(), false),
            Field::new("position", DataType::Int32, false), // from 0; a list has one row per item
            Field::new("value", text(), false),
        ]))
    }

    fn encode(rows: &[SettingRow]) -> RecordBatch {
        let (mut name, mut value) = (TextBuilder::default(), TextBuilder::default());
        for row in rows {
            name.push(&row.name);
            value.push(&row.value);
        }
        let position = Int32Array::from_iter_values(rows.iter().map(|row| int32(row.position)));
        batch(
            Self::schema(),
            vec![name.finish(), Arc::new(position), value.finish()],
        )
    }

    fn compare(a: &SettingRow, b: &SettingRow) -> Ordering {
        (&a.name, a.position).cmp(&(&b.name, b.position))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<SettingRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (name, value) = (columns.required_text("name")?, columns.required_text("value")?);
        let position = columns.int32("position")?;
        (0..batch.num_rows())
            .map(|row| {
                Ok(SettingRow {
                    name: name.expect(row).clone(),
                    position: columns.small_count(row, "position", position.value(row))?,
                    value: value.expect(row).clone(),
                })
            })
            .collect()
    }
}
