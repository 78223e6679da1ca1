use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, Int64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int64};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::VersionRow;

/// The `versions` table; rows are only added. A commit writes its row last, so a store version exists once its row
/// exists. The row names the Delta version of each table.
///
/// Key: `version`. One row per key.
#[derive(Clone, Copy, Debug)]
pub struct Versions;

fn key() -> Field {
    Field::new("key", DataType::Utf8, false)
}

fn value() -> Field {
    Field::new("value", DataType::Int64, false)
}

impl Table for Versions {
    type Row = VersionRow;
    const NAME: &'static str = "versions";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        let entries = Field::new(
            "key_value",
            DataType::Struct(Fields::from(vec![key(), value()])),
            false,
        );
        Arc::new(Schema::new(vec![
            Field::new("version", DataType::Int64, false), // from 1
            Field::new("tables", DataType::Map(Arc::new(entries), false), false), // table → Delta version
            Field::new("epoch", DataType::Int64, true),    // null: the commit has no epoch
            Field::new("settings", text(), false),         // SHA-256, hex
            Field::new("models", text(), false),           // SHA-256, hex
            Field::new("inputs", text(), false),           // SHA-256, hex
            Field::new("program", text(), false),          // version of the program
            Field::new("command", text(), false),          // the command line
            Field::new("committed_at", DataType::Int64, false), // milliseconds since 1970 UTC
            Field::new("changed_labels", DataType::Int64, true), // null: written by a program before this column
            Field::new("author", text(), true), // null: not told, or a program before this column
            Field::new("note", text(), true),   // null: nothing said, or a program before this column
        ]))
    }

    fn encode(rows: &[VersionRow]) -> RecordBatch {
        let names = MapFieldNames {
            entry: "key_value".into(),
            key: "key".into(),
            value: "value".into(),
        };
        let mut tables = MapBuilder::new(Some(names), StringBuilder::new(), Int64Builder::new())
            .with_keys_field(key())
            .with_values_field(value());
        let mut texts: [TextBuilder; 5] = Default::default();
        let (mut author, mut note) = (TextBuilder::default(), TextBuilder::default());
        for row in rows {
            author.push_option(row.author.as_ref());
            note.push_option(row.note.as_ref());
            for (table, version) in &row.tables {
                tables.keys().append_value(table);
                tables.values().append_value(int64(*version));
            }
            tables.append(true).expect("as many keys as values");
            let own = [
                &row.settings,
                &row.models,
                &row.inputs,
                &row.program,
                &row.command,
            ];
            for (builder, value) in texts.iter_mut().zip(own) {
                builder.push(&Arc::from(value.as_str()));
            }
        }
        let tables: ArrayRef = Arc::new(tables.finish());
        let [settings, models, inputs, program, command] = texts.map(TextBuilder::finish);
        batch(
            Self::schema(),
            vec![
                Arc::new(Int64Array::from_iter_values(
                    rows.iter().map(|row| int64(row.version)),
                )),
                tables,
                Arc::new(
                    rows.iter()
                        .map(|row| row.epoch.map(int64))
                        .collect::<Int64Array>(),
                ),
                settings,
                models,
                inputs,
                program,
                command,
                Arc::new(Int64Array::from_iter_values(
                    rows.iter().map(|row| row.committed_at),
                )),
                Arc::new(
                    rows.iter()
                        .map(|row| row.changed_labels.map(int64))
                        .collect::<Int64Array>(),
                ),
                author.finish(),
                note.finish(),
            ],
        )
    }

    fn compare(a: &VersionRow, b: &VersionRow) -> Ordering {
        a.version.cmp(&b.version)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<VersionRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (version, epoch) = (columns.int64("version")?, columns.optional_int64("epoch")?);
        let (settings, models) = (
            columns.required_text("settings")?,
            columns.required_text("models")?,
        );
        let (inputs, program) = (
            columns.required_text("inputs")?,
            columns.required_text("program")?,
        );
        let (command, committed_at) = (columns.required_text("command")?, columns.int64("committed_at")?);
        let changed_labels = columns.added_int64("changed_labels")?;
        let (author, note) = (columns.added_text("author")?, columns.added_text("note")?);
        let tables = tables(&columns, batch)?;
        tables
            .into_iter()
            .enumerate()
            .map(|(row, tables)| {
                let epoch = match epoch.is_valid(row) {
                    true => Some(columns.count(row, "epoch", epoch.value(row))?),
                    false => None,
                };
                let changed_labels = match changed_labels.is_valid(row) {
                    true => Some(columns.count(row, "changed_labels", changed_labels.value(row))?),
                    false => None,
                };
                Ok(VersionRow {
                    version: columns.count(row, "version", version.value(row))?,
                    tables,
                    epoch,
                    settings: settings.expect(row).to_string(),
                    models: models.expect(row).to_string(),
                    inputs: inputs.expect(row).to_string(),
                    program: program.expect(row).to_string(),
                    command: command.expect(row).to_string(),
                    committed_at: committed_at.value(row),
                    changed_labels,
                    author: author.get(row).cloned(),
                    note: note.get(row).cloned(),
                })
            })
            .collect()
    }
}

fn tables(columns: &Columns<'_>, batch: &RecordBatch) -> Result<Vec<Vec<(String, u64)>>, TableError> {
    let wrong = |found: String| TableError::ColumnType {
        table: Versions::NAME,
        column: "tables",
        found,
        expected: "Map(Utf8, Int64)",
    };
    let array = batch
        .column_by_name("tables")
        .ok_or_else(|| wrong("absent".to_owned()))?;
    let maps = array
        .as_map_opt()
        .ok_or_else(|| wrong(array.data_type().to_string()))?;
    let mut rows = Vec::with_capacity(maps.len());
    for row in 0..maps.len() {
        let entries = maps.value(row);
        let names = entries
            .column(0)
            .as_string_opt::<i32>()
            .ok_or_else(|| wrong(array.data_type().to_string()))?;
        let versions = entries
            .column(1)
            .as_primitive_opt::<Int64Type>()
            .ok_or_else(|| wrong(array.data_type().to_string()))?;
        let mut own = Vec::with_capacity(names.len());
        for entry in 0..names.len() {
            own.push((
                names.value(entry).to_owned(),
                columns.count(row, "tables", versions.value(entry))?,
            ));
        }
        own.sort();
        rows.push(own);
    }
    Ok(rows)
}
