//! A store version that stays in memory.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use vaplan::relabel::changes;
use vaplan::{LabelError, Listener, Store};

use crate::change::{changes_of, summary_dict, workers};
use crate::error::VaplanError;
use crate::work::work;

/// A session. Every change is one store version.
#[pyclass(frozen, module = "vaplan._native")]
pub(crate) struct Session {
    path: PathBuf,
    /// `None` after `close`.
    session: Mutex<Option<vaplan::Session>>,
}

fn closed() -> PyErr {
    VaplanError::new_err("the session is closed: open another with store.session()")
}

#[pymethods]
impl Session {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, workers_given: Option<usize>) -> PyResult<Session> {
        let workers = workers(workers_given)?;
        let session = work(py, || vaplan::Session::open(&path, workers, Listener::silent()))?;
        Ok(Session {
            path,
            session: Mutex::new(Some(session)),
        })
    }

    /// The version that the session holds.
    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<u64> {
        // Another thread may hold the session for as long as a change takes, so the GIL is released.
        py.detach(|| {
            let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            session.as_ref().map(vaplan::Session::version)
        })
        .ok_or_else(closed)
    }

    /// Makes a change and commits it as one store version. With `list_changes`, the summary lists the changed labels.
    fn apply<'py>(
        &self,
        py: Python<'py>,
        given: Bound<'py, PyDict>,
        command: &str,
        list_changes: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let asked = changes_of(&given)?;
        let summary = work(py, || {
            let mut held = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(session) = held.as_mut() else {
                return Ok(None);
            };
            let mut summary = session.apply(asked, command)?;
            if let Some(version) = summary.version.as_ref().filter(|_| list_changes) {
                summary.changes = changes(&Store::open(&self.path)?, version.version)?;
            }
            Ok::<_, LabelError>(Some(summary))
        })?;
        summary_dict(py, &summary.ok_or_else(closed)?)
    }

    /// Ends the session and its threads. A second call does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        work(py, || {
            let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
            session.map_or(Ok(()), vaplan::Session::close)
        })
    }
}
