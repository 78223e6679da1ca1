//! Errors of the library as Python exceptions. The type of an error decides the exception, never its message.
//!
//! | exception | errors |
//! |---|---|
//! | `ValueError` | an argument, setting or row that cannot be used |
//! | `LookupError` | a store version, epoch or video that does not exist |
//! | `OSError` and its subclasses | the operating system refused to read or write a file |
//! | `VaplanError` | everything else: damaged files, a lost process, a bug |

use std::error::Error;
use std::io;

use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{
    PyFileExistsError, PyFileNotFoundError, PyLookupError, PyOSError, PyRuntimeError, PyValueError,
};
use vaplan::calibrate::CalibrateError;
use vaplan::denoise::DenoiseError;
use vaplan::error::chain;
use vaplan::eval::EvalError;
use vaplan::export::ExportError;
use vaplan::ingest::IngestError;
use vaplan::matrices::MatrixError;
use vaplan::query::QueryError;
use vaplan::show::ShowError;
use vaplan::synth::SynthError;
use vaplan::{LabelError, StoreError};
use vaplan_dataflows::denoising::DenoisingRuleError;

create_exception!(
    vaplan,
    VaplanError,
    PyRuntimeError,
    "The library could not do its work: a damaged file, a lost process, or a bug."
);
create_exception!(
    vaplan._native,
    CellError,
    PyValueError,
    "A value of an array cannot be used. Arguments: argument, row, column, value, expected."
);

/// An error that becomes a Python exception.
pub(crate) trait IntoException {
    fn into_exception(self) -> PyErr;
}

/// `OSError` with the number of the operating system, so that Python chooses the subclass.
fn os_error(error: &(dyn Error + 'static), source: &io::Error) -> PyErr {
    let text = chain(error);
    match source.raw_os_error() {
        Some(number) => PyOSError::new_err((number, text)),
        None => PyOSError::new_err(text),
    }
}

impl IntoException for PyErr {
    fn into_exception(self) -> PyErr {
        self
    }
}

impl IntoException for StoreError {
    fn into_exception(self) -> PyErr {
        match &self {
            StoreError::Io { source, .. } => os_error(&self, source),
            StoreError::NoStore { .. } | StoreError::Empty { .. } => {
                PyFileNotFoundError::new_err(chain(&self))
            }
            StoreError::NoVersion { .. } | StoreError::Vacuumed { .. } => {
                PyLookupError::new_err(chain(&self))
            }
            StoreError::Variable { .. } | StoreError::Endpoint { .. } => PyValueError::new_err(chain(&self)),
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for IngestError {
    fn into_exception(self) -> PyErr {
        match &self {
            IngestError::Io { source, .. } => os_error(&self, source),
            _ => PyValueError::new_err(chain(&self)),
        }
    }
}

impl IntoException for LabelError {
    fn into_exception(self) -> PyErr {
        match self {
            LabelError::Ingest(error) => error.into_exception(),
            LabelError::Store(error) => error.into_exception(),
            LabelError::Stage { ref source, .. } => os_error(&self, source),
            LabelError::InputGone { .. } => PyFileNotFoundError::new_err(chain(&self)),
            LabelError::Settings(_)
            | LabelError::Change(_)
            | LabelError::Prompts { .. }
            | LabelError::Collision { .. }
            | LabelError::NoVideos { .. }
            | LabelError::Lost { .. }
            | LabelError::RelativeInputs { .. } => PyValueError::new_err(chain(&self)),
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for EvalError {
    fn into_exception(self) -> PyErr {
        match self {
            EvalError::Store(error) => error.into_exception(),
            EvalError::NoVideos { .. } | EvalError::NoTruth { .. } | EvalError::NoPredictions { .. } => {
                PyValueError::new_err(chain(&self))
            }
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for DenoiseError {
    fn into_exception(self) -> PyErr {
        match self {
            DenoiseError::Label(error) => error.into_exception(),
            DenoiseError::Eval(error) => error.into_exception(),
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for CalibrateError {
    fn into_exception(self) -> PyErr {
        match self {
            CalibrateError::Eval(error) => error.into_exception(),
            CalibrateError::Label(error) => error.into_exception(),
            CalibrateError::Folds { .. } => PyValueError::new_err(chain(&self)),
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for MatrixError {
    fn into_exception(self) -> PyErr {
        match self {
            MatrixError::Label(error) => error.into_exception(),
            MatrixError::Size { .. } => pyo3::exceptions::PyMemoryError::new_err(chain(&self)),
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for ExportError {
    fn into_exception(self) -> PyErr {
        match self {
            ExportError::Matrix(error) => error.into_exception(),
            ExportError::Ingest(error) => error.into_exception(),
            ExportError::NotEmpty { .. } | ExportError::NoFolder { .. } => {
                PyFileExistsError::new_err(chain(&self))
            }
            ExportError::NoVideos { .. } | ExportError::FrameRate { .. } => {
                PyValueError::new_err(chain(&self))
            }
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for QueryError {
    fn into_exception(self) -> PyErr {
        match self {
            QueryError::Store(error) => error.into_exception(),
            QueryError::Sql { .. } | QueryError::ReadOnly { .. } | QueryError::Statements { .. } => {
                PyValueError::new_err(chain(&self))
            }
            QueryError::Threads(ref source) => os_error(&self, source),
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for ShowError {
    fn into_exception(self) -> PyErr {
        match self {
            ShowError::Store(error) => error.into_exception(),
            ShowError::Find(_) => PyLookupError::new_err(chain(&self)),
            _ => VaplanError::new_err(chain(&self)),
        }
    }
}

impl IntoException for SynthError {
    fn into_exception(self) -> PyErr {
        match self {
            SynthError::Ingest(error) => error.into_exception(),
            _ => PyValueError::new_err(chain(&self)),
        }
    }
}

impl IntoException for DenoisingRuleError {
    fn into_exception(self) -> PyErr {
        PyValueError::new_err(chain(&self))
    }
}

/// A value of an array that cannot be used.
#[derive(Debug)]
pub(crate) struct BadCell {
    /// Name of the Python argument.
    pub(crate) argument: &'static str,
    /// Row and column of the flat array.
    pub(crate) place: (usize, usize),
    pub(crate) value: f64,
    pub(crate) expected: &'static str,
}

impl IntoException for BadCell {
    fn into_exception(self) -> PyErr {
        let (row, column) = self.place;
        CellError::new_err((self.argument, row, column, self.value, self.expected))
    }
}
