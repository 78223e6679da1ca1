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

/// The options of a command, or for `None` those before the command, that take values from the words after them: each with the
/// largest number of values.
#[pyfunction]
pub(crate) fn options_with_values(py: Python<'_>, command: Option<String>) -> PyResult<Vec<(String, usize)>> {
    work(py, move || {
        Ok::<_, PyErr>(vaplan::cli::program::options_with_values(command.as_deref()))
    })
}
