//! SQL tables over files with one row per segment, which programs before the tables of tracks wrote.
//!
//! The oldest of these files have the reason of a flip in the columns `epoch`, `loss`, `base`, `alpha` and `k`, and no
//! column `why`. A view gives both kinds the column `why`.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::logical_expr::{Expr, col, ident, lit, when};
use datafusion::prelude::SessionContext;
use vaplan_schemas::store::DataFile;

use super::files::provider;
use super::segments::SEGMENT;

const WHY: &str = "why";

/// The columns of the oldest files, and the fields of `why`.
const REASON: [(&str, DataType); 5] = [
    ("epoch", DataType::Int64),
    ("loss", DataType::Float64),
    ("base", DataType::Float64),
    ("alpha", DataType::Float64),
    ("k", DataType::Int32),
];

/// Makes a view over such files. Returns `None` for tables of another layout and for tables without reasons.
pub(super) fn view(
    context: &SessionContext,
    root: &Path,
    schema: &Schema,
    files: &[DataFile],
) -> Result<Option<Arc<dyn TableProvider>>> {
    if schema.column_with_name(SEGMENT).is_none() || schema.column_with_name(WHY).is_none() {
        return Ok(None);
    }
    let columns = schema.fields().iter().map(|field| Field::clone(field));
    let reason = REASON.map(|(name, of)| Field::new(name, of, true));
    // A file without a column gives null for it.
    let all = Schema::new(columns.chain(reason).collect::<Vec<_>>());
    let stored = context.read_table(provider(root, &Arc::new(all), files)?)?;
    let parts = REASON.iter().flat_map(|(name, _)| [lit(*name), col(*name)]);
    let why = when(col(WHY).is_not_null(), col(WHY))
        .when(col("epoch").is_not_null(), named_struct(parts.collect()))
        .end()?;
    let own = schema.fields().iter().map(|field| match field.name().as_str() {
        WHY => why.clone().alias(WHY),
        name => ident(name),
    });
    let view = stored.select(own.collect::<Vec<Expr>>())?;
    Ok(Some(view.into_view()))
}
