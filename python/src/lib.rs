//! The extension module `vaplan._native` of the Python package.
//!
//! ```text
//! Python arguments ── python/vaplan/*.py: names, shapes, types ── _native: values ── the library `vaplan`
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `numbers` | numeric arrays of any type, and the check of their values |
//! | `arrays` | evaluate, generate, denoise and events on arrays |
//! | `calibration` | calibrate on arrays |
//! | `store` | a store version: tables, SQL, arrays, timelines |
//! | `change` | labelling and changes of a store |
//! | `session` | a store version that stays in memory |
//! | `stream` | Arrow tables for the Arrow PyCapsule interface |
//! | `work` | runs the library without the GIL, contains panics and passes on Ctrl-C |
//! | `error` | errors of the library as Python exceptions, by type |
//!
//! The functions take flat arrays: `[rows, C]`, in which the segments of all videos follow one another, and `lengths`
//! `[N]` with the number of segments of each video. The Python files make this form from every form that users have.
//! A function of this module checks its arguments again, because a wrong length would be a panic.
//!
//! `cargo test --lib` and `cargo clippy --all-targets` build a test program of every library. That of this crate is empty,
//! because its functions would need libpython, which not every machine has for linking. The tests are in `python/tests`.
#![cfg(not(test))]

mod arrays;
mod calibration;
mod change;
mod error;
mod numbers;
mod program;
mod session;
mod store;
mod stream;
mod work;

use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use vaplan::world::settings::{AUDIO_THRESHOLD, CLAP_SCALE, CLIP_SCALE, VISUAL_THRESHOLD};

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    // Defaults of PLG: thresholds of rule `softmax` and scales of rule `logit`, by modality.
    module.add(
        "THRESHOLDS",
        [("audio", AUDIO_THRESHOLD), ("visual", VISUAL_THRESHOLD)].into_py_dict(py)?,
    )?;
    module.add(
        "LOGIT_SCALES",
        [("audio", CLAP_SCALE), ("visual", CLIP_SCALE)].into_py_dict(py)?,
    )?;
    module.add("VaplanError", py.get_type::<error::VaplanError>())?;
    module.add("CellError", py.get_type::<error::CellError>())?;
    module.add_class::<store::Snapshot>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<stream::ArrowTable>()?;
    module.add_function(wrap_pyfunction!(arrays::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::evaluate_folder, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::generate, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::denoise, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::events, module)?)?;
    module.add_function(wrap_pyfunction!(calibration::calibrate, module)?)?;
    module.add_function(wrap_pyfunction!(store::versions, module)?)?;
    module.add_function(wrap_pyfunction!(change::label, module)?)?;
    module.add_function(wrap_pyfunction!(change::sample, module)?)?;
    module.add_function(wrap_pyfunction!(change::relabel, module)?)?;
    module.add_function(wrap_pyfunction!(change::denoise_store, module)?)?;
    module.add_function(wrap_pyfunction!(change::plan, module)?)?;
    module.add_function(wrap_pyfunction!(program::run, module)?)?;
    module.add_function(wrap_pyfunction!(program::options_with_values, module)?)?;
    Ok(())
}
