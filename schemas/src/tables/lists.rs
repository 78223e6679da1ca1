//! Builds and reads list columns, which have one value per segment of a track.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array,
    ListArray, PrimitiveArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};

use super::columns::{Columns, TextColumn, text_column};
use crate::error::TableError;

/// The name of the values of a list, as Delta names them.
pub(super) const ELEMENT: &str = "element";

/// The type of a list of these values.
pub(super) fn list(values: DataType, nullable: bool) -> DataType {
    DataType::List(Arc::new(Field::new(ELEMENT, values, nullable)))
}

/// Builds a list column from the lengths of its lists and from all its values. A row whose flag in `there` is false is
/// null and must have the length 0.
pub(super) fn build(
    lengths: impl IntoIterator<Item = usize>,
    values: ArrayRef,
    nullable: bool,
    there: Option<Vec<bool>>,
) -> ArrayRef {
    let field = Arc::new(Field::new(ELEMENT, values.data_type().clone(), nullable));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let lists = ListArray::try_new(field, offsets, values, there.map(NullBuffer::from));
    Arc::new(lists.expect("the lengths add up to the number of values"))
}

/// A list column of a batch.
pub(super) struct Lists {
    column: &'static str,
    lists: ListArray,
}

impl Lists {
    /// The column of this name. With `required`, no list may be null.
    pub(super) fn new(
        columns: &Columns<'_>,
        column: &'static str,
        expected: &'static str,
        required: bool,
    ) -> Result<Lists, TableError> {
        let array = columns.column(column)?;
        let lists = array
            .as_list_opt::<i32>()
            .ok_or_else(|| columns.wrong(column, array.data_type(), expected))?;
        match (0..lists.len()).find(|&row| required && lists.is_null(row)) {
            Some(row) => Err(columns.value(row, column, "null", expected)),
            None => Ok(Lists {
                column,
                lists: lists.clone(),
            }),
        }
    }

    /// The places of a row's values among all values of the column; `None` for null.
    pub(super) fn range(&self, row: usize) -> Option<Range<usize>> {
        let offsets = self.lists.value_offsets();
        self.lists
            .is_valid(row)
            .then(|| offsets[row] as usize..offsets[row + 1] as usize)
    }

    /// Like [`Lists::range`], for a list that must be as long as the others of its row.
    pub(super) fn range_of(
        &self,
        columns: &Columns<'_>,
        row: usize,
        length: usize,
    ) -> Result<Range<usize>, TableError> {
        match self.range(row) {
            Some(range) if range.len() == length => Ok(range),
            found => {
                let found = found.map_or("null".to_owned(), |range| format!("a list of {}", range.len()));
                Err(columns.value(
                    row,
                    self.column,
                    found,
                    "as many values as the other lists of the row",
                ))
            }
        }
    }

    fn wrong(&self, columns: &Columns<'_>, expected: &'static str) -> TableError {
        columns.wrong(self.column, self.lists.data_type(), expected)
    }

    /// Checks that no value of a list is null.
    fn no_null(&self, columns: &Columns<'_>, expected: &'static str) -> Result<(), TableError> {
        let values = self.lists.values();
        if values.null_count() == 0 {
            return Ok(());
        }
        for row in 0..self.lists.len() {
            if self.range(row).into_iter().flatten().any(|at| values.is_null(at)) {
                return Err(columns.value(row, self.column, "a list with null", expected));
            }
        }
        Ok(())
    }

    /// The values of all lists.
    pub(super) fn booleans(&self, columns: &Columns<'_>) -> Result<BooleanArray, TableError> {
        let expected = "List(Boolean)";
        let values = self.lists.values().as_boolean_opt();
        let values = values.ok_or_else(|| self.wrong(columns, expected))?;
        self.no_null(columns, expected)?;
        Ok(values.clone())
    }

    /// The values of all lists, which may be null.
    fn optional<P: ArrowPrimitiveType>(
        &self,
        columns: &Columns<'_>,
        expected: &'static str,
    ) -> Result<PrimitiveArray<P>, TableError> {
        let values = self.lists.values().as_primitive_opt::<P>();
        values.cloned().ok_or_else(|| self.wrong(columns, expected))
    }

    fn required<P: ArrowPrimitiveType>(
        &self,
        columns: &Columns<'_>,
        expected: &'static str,
    ) -> Result<PrimitiveArray<P>, TableError> {
        let values = self.optional(columns, expected)?;
        self.no_null(columns, expected)?;
        Ok(values)
    }

    /// The values of all lists.
    pub(super) fn float32(&self, columns: &Columns<'_>) -> Result<Float32Array, TableError> {
        self.required(columns, "List(Float32)")
    }

    /// The values of all lists.
    pub(super) fn float64(&self, columns: &Columns<'_>) -> Result<Float64Array, TableError> {
        self.required(columns, "List(Float64)")
    }

    /// The values of all lists, which may be null.
    pub(super) fn optional_float64(&self, columns: &Columns<'_>) -> Result<Float64Array, TableError> {
        self.optional(columns, "List(Float64)")
    }

    /// The values of all lists.
    pub(super) fn int32(&self, columns: &Columns<'_>) -> Result<Int32Array, TableError> {
        self.required(columns, "List(Int32)")
    }

    /// The texts of all lists.
    pub(super) fn text(&self, columns: &Columns<'_>) -> Result<TextColumn, TableError> {
        let expected = "List(Utf8)";
        let text = text_column(self.lists.values()).ok_or_else(|| self.wrong(columns, expected))?;
        self.no_null(columns, expected)?;
        Ok(text)
    }

    /// All values.
    pub(super) fn values(&self) -> &ArrayRef {
        self.lists.values()
    }
}
