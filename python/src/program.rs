//! The program `vaplan` within Python.

use std::ffi::OsString;

use pyo3::prelude::*;

use crate::work::work;

/// Runs `vaplan` with these arguments, of which the first is the name of the program. Returns the exit status.
#[pyfunction]
pub(crate) fn run(py: Python<'_>, arguments: Vec<OsString>) -> PyResult<u8> {
    work(py, move || {
        Ok::<_, PyErr>(vaplan::cli::program::main_with(arguments))
    })
}
