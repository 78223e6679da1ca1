//! The column `why` of `labels` and `label_changes`: the reasons for which PLD flipped labels.
//!
//! The column is a list of structs, one per segment. Before, with one row per segment, it was a struct.
//!
//! Programs before this column wrote the same numbers into the columns `epoch`, `loss`, `base`, `alpha` and `k`;
//! still earlier programs did not have some of those columns. A file without `why` is read from the old columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type};

use super::columns::{Columns, int32, int64};
use super::lists::{Lists, list};
use crate::error::TableError;
use crate::rows::{FlipLimit, FlipReason};

/// The name of the column.
pub(crate) const WHY: &str = "why";

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("epoch", DataType::Int64, true), // epoch of the predictions; from 1, never null
        Field::new("loss", DataType::Float64, true), // forward loss of the label
        Field::new("base", DataType::Float64, true), // mean of the K smallest losses of the track
        Field::new("alpha", DataType::Float64, true), // α: the loss exceeds α times the base
        Field::new("k", DataType::Int32, true),     // K
    ])
}

/// The field of the column in a schema: a list with one reason or null per segment, or null if there is no reason.
pub(super) fn list_field() -> Field {
    Field::new(WHY, list(DataType::Struct(fields()), true), true)
}

/// The field of the column in the former layout, with one row per segment.
pub(super) fn field() -> Field {
    Field::new(WHY, DataType::Struct(fields()), true)
}

/// Encodes the values of the lists.
pub(super) fn encode(rows: &[Option<&FlipReason>]) -> ArrayRef {
    let float = |get: fn(&FlipReason) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(|why| get((*why)?)).collect::<Float64Array>())
    };
    let epoch = rows.iter().map(|why| Some(int64((*why)?.epoch)));
    let k = rows.iter().map(|why| Some(int32((*why)?.limit?.k)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(epoch.collect::<Int64Array>()),
        float(|why| why.loss),
        float(|why| Some(why.limit?.base)),
        float(|why| Some(why.limit?.alpha)),
        Arc::new(k.collect::<Int32Array>()),
    ];
    let there: NullBuffer = rows.iter().map(Option::is_some).collect::<Vec<bool>>().into();
    let column = StructArray::try_new(fields(), columns, Some(there));
    Arc::new(column.expect("the columns above are those of the fields"))
}

/// The reasons of a batch, read from `why` or from the older columns.
pub(super) struct Reasons {
    epoch: Int64Array,
    loss: Float64Array,
    base: Float64Array,
    alpha: Float64Array,
    k: Int32Array,
    /// Column `why`, whose validity tells which rows have a reason. `None` if the batch has no `why`.
    there: Option<StructArray>,
}

impl Reasons {
    pub(super) fn of(columns: &Columns<'_>) -> Result<Reasons, TableError> {
        let Some(why) = columns.added_struct(WHY)? else {
            return Ok(Reasons {
                epoch: columns.added_int64("epoch")?,
                loss: columns.added_float64("loss")?,
                base: columns.added_float64("base")?,
                alpha: columns.added_float64("alpha")?,
                k: columns.added_int32("k")?,
                there: None,
            });
        };
        Reasons::of_struct(columns, why)
    }

    /// The reasons in the lists of column `why`.
    pub(super) fn of_list(columns: &Columns<'_>, lists: &Lists) -> Result<Reasons, TableError> {
        let values = lists.values();
        let why = values.as_struct_opt();
        let wrong = || columns.wrong(WHY, values.data_type(), "List(Struct)");
        Reasons::of_struct(columns, why.ok_or_else(wrong)?.clone())
    }

    fn of_struct(columns: &Columns<'_>, why: StructArray) -> Result<Reasons, TableError> {
        let missing = |name: &str| columns.wrong(WHY, why.data_type(), why_expected(name));
        let float = |name: &'static str| {
            let column = why
                .column_by_name(name)
                .and_then(|own| own.as_primitive_opt::<Float64Type>());
            column.cloned().ok_or_else(|| missing(name))
        };
        let (epoch, k) = (why.column_by_name("epoch"), why.column_by_name("k"));
        let epoch = epoch.and_then(|own| own.as_primitive_opt::<Int64Type>());
        let k = k.and_then(|own| own.as_primitive_opt::<Int32Type>());
        Ok(Reasons {
            epoch: epoch.cloned().ok_or_else(|| missing("epoch"))?,
            loss: float("loss")?,
            base: float("base")?,
            alpha: float("alpha")?,
            k: k.cloned().ok_or_else(|| missing("k"))?,
            there: Some(why),
        })
    }

    /// The reason at a place of the column or of the values of its lists; errors name `row`. A reason with only some of
    /// `base`, `alpha` and `k` is an error.
    pub(super) fn get(
        &self,
        columns: &Columns<'_>,
        at: usize,
        row: usize,
    ) -> Result<Option<Box<FlipReason>>, TableError> {
        let (there, prefix) = match &self.there {
            Some(why) => (why.is_valid(at), true),
            None => (self.epoch.is_valid(at), false),
        };
        if !there {
            return Ok(None);
        }
        let name = |within: &'static str, before: &'static str| if prefix { within } else { before };
        if self.epoch.is_null(at) {
            return Err(columns.value(row, name("why.epoch", "epoch"), "null", "a number from 0"));
        }
        let limit = match [
            self.base.is_valid(at),
            self.alpha.is_valid(at),
            self.k.is_valid(at),
        ] {
            [true, true, true] => Some(FlipLimit {
                base: self.base.value(at),
                alpha: self.alpha.value(at),
                k: columns.small_count(row, name("why.k", "k"), self.k.value(at))?,
            }),
            [false, false, false] => None,
            [base, alpha, _] => {
                let column = match (base, alpha) {
                    (false, _) => name("why.base", "base"),
                    (true, false) => name("why.alpha", "alpha"),
                    (true, true) => name("why.k", "k"),
                };
                let expected = "a number, or base, alpha and k all null";
                return Err(columns.value(row, column, "null", expected));
            }
        };
        Ok(Some(Box::new(FlipReason {
            epoch: columns.count(row, name("why.epoch", "epoch"), self.epoch.value(at))?,
            loss: self.loss.is_valid(at).then(|| self.loss.value(at)),
            limit,
        })))
    }
}

fn why_expected(field: &str) -> &'static str {
    match field {
        "epoch" => "Struct with epoch: Int64",
        "k" => "Struct with k: Int32",
        "loss" => "Struct with loss: Float64",
        "base" => "Struct with base: Float64",
        _ => "Struct with alpha: Float64",
    }
}
