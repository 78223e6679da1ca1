//! Arrow tables that cross to Python by the Arrow PyCapsule interface.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchIterator};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::FFI_ArrowSchema;
use arrow::ffi_stream::FFI_ArrowArrayStream;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::error::VaplanError;

/// A table in Arrow's format. `pyarrow.table`, `polars.DataFrame`, `duckdb.from_arrow` and `pandas` read it by
/// `__arrow_c_stream__`, without a copy of the columns.
#[pyclass(frozen, module = "vaplan._native")]
pub(crate) struct ArrowTable {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl ArrowTable {
    /// A table of these batches. Text columns become plain UTF-8: the views of DataFusion and the dictionaries of our
    /// tables are types that some readers refuse.
    pub(crate) fn new(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<ArrowTable, ArrowError> {
        let fields = schema.fields().iter().map(|field| {
            let plain = Field::new(field.name(), plain(field.data_type()), field.is_nullable());
            Arc::new(plain)
        });
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batches = batches.into_iter().map(|batch| {
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
                true => Ok(column.clone()),
                false => cast(column, field.data_type()),
            });
            RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<ArrayRef>, _>>()?)
        });
        Ok(ArrowTable {
            batches: batches.collect::<Result<_, _>>()?,
            schema,
        })
    }
}

/// The type with plain text.
fn plain(of: &DataType) -> DataType {
    match of {
        DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, value) => plain(value),
        DataType::List(item) => DataType::List(Arc::new(Field::new(
            item.name(),
            plain(item.data_type()),
            item.is_nullable(),
        ))),
        other => other.clone(),
    }
}

pub(crate) fn arrow_error(error: ArrowError) -> PyErr {
    VaplanError::new_err(error.to_string())
}

#[pymethods]
impl ArrowTable {
    /// Number of rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The interface allows a producer to ignore the requested schema.
        drop(requested_schema);
        let batches = RecordBatchIterator::new(self.batches.clone().into_iter().map(Ok), self.schema.clone());
        let stream = FFI_ArrowArrayStream::new(Box::new(batches));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(&*self.schema).map_err(arrow_error)?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    fn __repr__(&self) -> String {
        format!(
            "ArrowTable({} rows; {})",
            self.num_rows(),
            self.column_names().join(", ")
        )
    }
}
