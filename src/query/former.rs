//! SQL tables over files with one row per segment, which programs before the tables of tracks wrote.
//!
//! The oldest of these files have the reason of a flip in the columns `epoch`, `loss`, `base`, `alpha` and `k`, and no
//! column `why`. A view gives both kinds the column `why`.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, plan_err};
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::logical_expr::{Expr, col, ident, lit, when};
use datafusion::prelude::SessionContext;
use vaplan_schemas::store::DataFile;

use super::files::provider;
use super::segments::SEGMENT;

const WHY: &str = "why";

/// Makes a view over such files. Returns `None` for tables of another layout and for tables without reasons.
pub(super) fn view(
    context: &SessionContext,
    root: &Path,
    schema: &Schema,
    files: &[DataFile],
) -> Result<Option<Arc<dyn TableProvider>>> {
    let Some((_, why)) = schema
        .column_with_name(WHY)
        .filter(|_| schema.column_with_name(SEGMENT).is_some())
    else {
        return Ok(None);
    };
    let DataType::Struct(reason) = why.data_type() else {
        return plan_err!("column `{WHY}` is {}, expected a struct", why.data_type());
    };
    // The oldest files have the fields of `why` as columns. A file without a column gives null for it.
    let columns = schema.fields().iter().chain(reason.iter());
    let all = Schema::new(columns.cloned().collect::<Vec<_>>());
    let stored = context.read_table(provider(root, &Arc::new(all), files)?)?;
    let parts = reason
        .iter()
        .flat_map(|field| [lit(field.name()), col(field.name())]);
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
