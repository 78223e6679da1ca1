//! Reads checked columns from a batch, and builds dictionary and list columns.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float32Array, Float32Builder, Float64Array,
    Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type};

use crate::error::TableError;
use crate::ids::Modality;

/// The columns of a batch of one table.
pub(crate) struct Columns<'a> {
    pub(crate) table: &'static str,
    batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(table: &'static str, batch: &'a RecordBatch) -> Columns<'a> {
        Columns { table, batch }
    }

    pub(crate) fn column(&self, column: &'static str) -> Result<&'a ArrayRef, TableError> {
        self.batch
            .column_by_name(column)
            .ok_or_else(|| TableError::ColumnMissing {
                table: self.table,
                column: column.to_owned(),
                found: self
                    .batch
                    .schema()
                    .fields()
                    .iter()
                    .map(|field| field.name().clone())
                    .collect(),
            })
    }

    fn of_type<T: Array + Clone + 'static>(
        &self,
        column: &'static str,
        expected: &'static str,
    ) -> Result<T, TableError> {
        let array = self.column(column)?;
        array
            .as_any()
            .downcast_ref::<T>()
            .cloned()
            .ok_or_else(|| TableError::ColumnType {
                table: self.table,
                column,
                found: array.data_type().to_string(),
                expected,
            })
    }

    /// A column that must have no null.
    fn required<T: Array + Clone + 'static>(
        &self,
        column: &'static str,
        expected: &'static str,
    ) -> Result<T, TableError> {
        let array = self.of_type::<T>(column, expected)?;
        match (0..array.len()).find(|&row| array.is_null(row)) {
            Some(row) if array.null_count() > 0 => Err(self.value(row, column, "null", expected)),
            _ => Ok(array),
        }
    }

    pub(crate) fn int32(&self, column: &'static str) -> Result<Int32Array, TableError> {
        self.required(column, "Int32")
    }

    pub(crate) fn int64(&self, column: &'static str) -> Result<Int64Array, TableError> {
        self.required(column, "Int64")
    }

    pub(crate) fn optional_int64(&self, column: &'static str) -> Result<Int64Array, TableError> {
        self.of_type(column, "Int64")
    }

    pub(crate) fn float32(&self, column: &'static str) -> Result<Float32Array, TableError> {
        self.required(column, "Float32")
    }

    pub(crate) fn float64(&self, column: &'static str) -> Result<Float64Array, TableError> {
        self.required(column, "Float64")
    }

    pub(crate) fn optional_float64(&self, column: &'static str) -> Result<Float64Array, TableError> {
        self.of_type(column, "Float64")
    }

    /// A column that was added to the table later. Files from before the column was added do not have it; all its
    /// values are then null.
    pub(crate) fn added_float64(&self, column: &'static str) -> Result<Float64Array, TableError> {
        self.added(column, Float64Array::new_null, "Float64")
    }

    /// Like [`Columns::added_float64`].
    pub(crate) fn added_int64(&self, column: &'static str) -> Result<Int64Array, TableError> {
        self.added(column, Int64Array::new_null, "Int64")
    }

    /// A struct column that was added later. Returns `None` if the file does not have it.
    pub(crate) fn added_struct(&self, column: &'static str) -> Result<Option<StructArray>, TableError> {
        match self.batch.column_by_name(column) {
            Some(_) => self.of_type(column, "Struct").map(Some),
            None => Ok(None),
        }
    }

    /// The error of a column whose type is not the expected type.
    pub(crate) fn wrong(&self, column: &'static str, found: &DataType, expected: &'static str) -> TableError {
        TableError::ColumnType {
            table: self.table,
            column,
            found: found.to_string(),
            expected,
        }
    }

    /// Like [`Columns::added_float64`].
    pub(crate) fn added_int32(&self, column: &'static str) -> Result<Int32Array, TableError> {
        self.added(column, Int32Array::new_null, "Int32")
    }

    /// Like [`Columns::added_float64`].
    pub(crate) fn added_boolean(&self, column: &'static str) -> Result<BooleanArray, TableError> {
        self.added(column, BooleanArray::new_null, "Boolean")
    }

    fn added<T: Array + Clone + 'static>(
        &self,
        column: &'static str,
        nulls: fn(usize) -> T,
        expected: &'static str,
    ) -> Result<T, TableError> {
        match self.batch.column_by_name(column) {
            Some(_) => self.of_type(column, expected),
            None => Ok(nulls(self.batch.num_rows())),
        }
    }

    /// A text column that was added later. If the file does not have it, all its values are null.
    pub(crate) fn added_text(&self, column: &'static str) -> Result<TextColumn, TableError> {
        match self.batch.column_by_name(column) {
            Some(_) => self.text(column),
            None => Ok(TextColumn::new(
                Int32Array::new_null(self.batch.num_rows()),
                StringArray::new_null(0),
            )),
        }
    }

    pub(crate) fn boolean(&self, column: &'static str) -> Result<BooleanArray, TableError> {
        self.required(column, "Boolean")
    }

    pub(crate) fn optional_boolean(&self, column: &'static str) -> Result<BooleanArray, TableError> {
        self.of_type(column, "Boolean")
    }

    /// A text column, plain or as a dictionary. Each distinct value that is asked for is allocated once.
    pub(crate) fn text(&self, column: &'static str) -> Result<TextColumn, TableError> {
        let array = self.column(column)?;
        text_column(array).ok_or_else(|| TableError::ColumnType {
            table: self.table,
            column,
            found: array.data_type().to_string(),
            expected: "Utf8",
        })
    }

    /// A text column that must have no null.
    pub(crate) fn required_text(&self, column: &'static str) -> Result<TextColumn, TableError> {
        let text = self.text(column)?;
        match (0..self.batch.num_rows()).find(|&row| text.key(row).is_none()) {
            Some(row) => Err(self.value(row, column, "null", "text")),
            None => Ok(text),
        }
    }

    /// The lists of a column of lists of text.
    pub(crate) fn text_lists(&self, column: &'static str) -> Result<Vec<Vec<Arc<str>>>, TableError> {
        let wrong = |found: String| TableError::ColumnType {
            table: self.table,
            column,
            found,
            expected: "List(Utf8)",
        };
        let array = self.column(column)?;
        let lists = array
            .as_list_opt::<i32>()
            .ok_or_else(|| wrong(array.data_type().to_string()))?;
        let mut rows = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            if lists.is_null(row) {
                return Err(self.value(row, column, "null", "a list of text"));
            }
            let list = lists.value(row);
            let text = text_column(&list).ok_or_else(|| wrong(array.data_type().to_string()))?;
            let items: Option<Vec<Arc<str>>> = (0..list.len()).map(|item| text.get(item).cloned()).collect();
            rows.push(items.ok_or_else(|| self.value(row, column, "a list with null", "a list of text"))?);
        }
        Ok(rows)
    }

    /// The lists of a column of lists of f32.
    pub(crate) fn float_lists(&self, column: &'static str) -> Result<Vec<Vec<f32>>, TableError> {
        let array = self.column(column)?;
        let wrong = || TableError::ColumnType {
            table: self.table,
            column,
            found: array.data_type().to_string(),
            expected: "List(Float32)",
        };
        let lists = array.as_list_opt::<i32>().ok_or_else(wrong)?;
        let mut rows = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            if lists.is_null(row) {
                return Err(self.value(row, column, "null", "a list of numbers"));
            }
            let list = lists.value(row);
            let values = list.as_primitive_opt::<Float32Type>().ok_or_else(wrong)?;
            if values.null_count() > 0 {
                return Err(self.value(row, column, "a list with null", "a list of numbers"));
            }
            rows.push(values.values().to_vec());
        }
        Ok(rows)
    }

    /// Converts a value of a signed column to an unsigned number, or reports that it is negative.
    pub(crate) fn count(&self, row: usize, column: &'static str, value: i64) -> Result<u64, TableError> {
        u64::try_from(value).map_err(|_| self.value(row, column, value, "a number from 0"))
    }

    /// Converts a value of a signed column to an unsigned number, or reports that it is negative.
    pub(crate) fn small_count(
        &self,
        row: usize,
        column: &'static str,
        value: i32,
    ) -> Result<u32, TableError> {
        u32::try_from(value).map_err(|_| self.value(row, column, value, "a number from 0"))
    }

    pub(crate) fn modality(&self, row: usize, text: &TextColumn) -> Result<Modality, TableError> {
        let name = text.expect(row);
        name.parse()
            .map_err(|_| self.value(row, "modality", format!("`{name}`"), "`audio` or `visual`"))
    }

    pub(crate) fn value(
        &self,
        row: usize,
        column: &'static str,
        value: impl ToString,
        expected: &'static str,
    ) -> TableError {
        TableError::Value {
            table: self.table,
            row,
            column,
            value: value.to_string(),
            expected,
        }
    }
}

/// The text of each row. `keys` has one index into `values` per row.
///
/// A reader of few rows gets the dictionary of the whole file, so a value is allocated only when it is asked for.
pub(crate) struct TextColumn {
    keys: Int32Array,
    values: StringArray,
    shared: Vec<OnceCell<Arc<str>>>,
}

impl TextColumn {
    fn new(keys: Int32Array, values: StringArray) -> TextColumn {
        TextColumn {
            shared: vec![OnceCell::new(); values.len()],
            keys,
            values,
        }
    }

    /// The number of the value of a row; `None` for a null.
    fn key(&self, row: usize) -> Option<usize> {
        let key = usize::try_from(self.keys.is_valid(row).then(|| self.keys.value(row))?).ok()?;
        (key < self.values.len() && self.values.is_valid(key)).then_some(key)
    }

    pub(crate) fn get(&self, row: usize) -> Option<&Arc<str>> {
        let key = self.key(row)?;
        Some(self.shared[key].get_or_init(|| self.values.value(key).into()))
    }

    /// Calls `wanted` once for every distinct value and returns its answer for each row. Rows with null get `none`.
    pub(crate) fn each<T: Copy>(&self, none: T, mut wanted: impl FnMut(&str) -> T) -> Vec<T> {
        let answer = |value: Option<&str>| value.map_or(none, &mut wanted);
        let answers: Vec<T> = self.values.iter().map(answer).collect();
        let of_row = |row: usize| self.key(row).map_or(none, |key| answers[key]);
        (0..self.keys.len()).map(of_row).collect()
    }

    /// Whether a row has a text that `wanted` accepts, which is called once for each distinct text.
    pub(crate) fn has(&self, wanted: impl FnMut(&str) -> bool) -> bool {
        self.each(false, wanted).contains(&true)
    }

    /// Whether two rows have the same text.
    pub(crate) fn same(&self, a: usize, b: usize) -> bool {
        self.key(a) == self.key(b) || self.get(a) == self.get(b)
    }

    /// The text of a row of a column that was read with [`Columns::required_text`].
    pub(crate) fn expect(&self, row: usize) -> &Arc<str> {
        self.get(row).expect("a required column was checked for nulls")
    }
}

pub(super) fn text_column(array: &ArrayRef) -> Option<TextColumn> {
    let is_text = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        )
    };
    let known = match array.data_type() {
        DataType::Dictionary(_, value) => is_text(value),
        plain => is_text(plain),
    };
    if !known {
        return None;
    }
    let array = cast(array, &super::text()).ok()?;
    let dictionary = array.as_dictionary_opt::<Int32Type>()?;
    let values = dictionary.values().as_string_opt::<i32>()?;
    Some(TextColumn::new(dictionary.keys().clone(), values.clone()))
}

/// The most pointers that a [`TextBuilder`] remembers. Few names, such as those of classes, come again and again.
const REMEMBERED: usize = 32;

/// Builds a dictionary column. A run of the same value costs one look-up, and an allocation that came shortly before costs
/// no comparison of text.
#[derive(Default)]
pub(crate) struct TextBuilder {
    index: BTreeMap<Arc<str>, i32>,
    values: Vec<Arc<str>>,
    /// The keys of allocations that came.
    recent: Vec<(Arc<str>, i32)>,
    keys: Vec<Option<i32>>,
    last: i32,
}

impl TextBuilder {
    pub(crate) fn push(&mut self, value: &Arc<str>) {
        self.push_run(value, 1);
    }

    pub(crate) fn push_option(&mut self, value: Option<&Arc<str>>) {
        match value {
            Some(value) => self.push(value),
            None => self.keys.push(None),
        }
    }

    pub(crate) fn push_run(&mut self, value: &Arc<str>, rows: usize) {
        let same = self
            .values
            .get(self.last as usize)
            .is_some_and(|last| Arc::ptr_eq(last, value));
        if !same {
            self.last = self.key(value);
        }
        self.keys.resize(self.keys.len() + rows, Some(self.last));
    }

    fn key(&mut self, value: &Arc<str>) -> i32 {
        if let Some((_, key)) = self.recent.iter().find(|(own, _)| Arc::ptr_eq(own, value)) {
            return *key;
        }
        let key = match self.index.get(value) {
            Some(&key) => key,
            None => {
                let key = self.values.len() as i32;
                self.index.insert(value.clone(), key);
                self.values.push(value.clone());
                key
            }
        };
        if self.recent.len() < REMEMBERED {
            self.recent.push((value.clone(), key));
        }
        key
    }

    pub(crate) fn finish(self) -> ArrayRef {
        let values = StringArray::from_iter_values(self.values.iter());
        let keys = Int32Array::from(self.keys);
        Arc::new(DictionaryArray::new(keys, Arc::new(values)))
    }
}

/// Builds a text column from few distinct names, such as the modalities. Each pair is a name and the number of rows
/// that have it.
pub(crate) fn names<'a>(rows: impl Iterator<Item = (&'a str, usize)>) -> ArrayRef {
    let (mut found, mut keys) = (Vec::<&str>::new(), Vec::<i32>::new());
    for (name, count) in rows {
        let key = found.iter().position(|known| *known == name).unwrap_or_else(|| {
            found.push(name);
            found.len() - 1
        });
        keys.resize(keys.len() + count, key as i32);
    }
    let values = StringArray::from_iter_values(found);
    Arc::new(DictionaryArray::new(Int32Array::from(keys), Arc::new(values)))
}

/// Compares texts. Rows of one video or class mostly share its allocation, which is then equal without looking at it.
pub(super) fn compare_text(a: &Arc<str>, b: &Arc<str>) -> Ordering {
    match Arc::ptr_eq(a, b) {
        true => Ordering::Equal,
        false => a.cmp(b),
    }
}

/// Makes a batch of these columns, which must match `schema`.
pub(crate) fn batch(schema: arrow::datatypes::SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema, columns).expect("encode makes the columns of its schema")
}

/// The type of a list of f32 without nulls.
pub(crate) fn floats() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Float32, false)))
}

/// Builds a column of lists of f32.
pub(crate) fn float_lists<'a>(lists: impl Iterator<Item = &'a [f32]>) -> ArrayRef {
    let element = Arc::new(Field::new("element", DataType::Float32, false));
    let mut builder = ListBuilder::new(Float32Builder::new()).with_field(element);
    for list in lists {
        builder.values().append_slice(list);
        builder.append(true);
    }
    Arc::new(builder.finish())
}
/// A number as a column of type Int32 holds it.
///
/// # Panics
/// Panics if the number is too large. Readers of input refuse such numbers before. The panic happens before a commit writes
/// anything; a number that wraps around would make the table unreadable in every later version.
pub(super) fn int32(value: u32) -> i32 {
    i32::try_from(value).unwrap_or_else(|_| panic!("{value} does not fit a column of type Int32"))
}

/// A number as a column of type Int64 holds it.
///
/// # Panics
/// As [`int32`].
pub(super) fn int64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or_else(|_| panic!("{value} does not fit a column of type Int64"))
}
