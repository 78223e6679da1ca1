//! ONNX Runtime, found and loaded once per process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The library cannot be loaded, or is older than ort wants.
    #[error(
        "cannot load ONNX Runtime from {} ({origin}); scripts/native-libs.sh fetches it, ORT_DYLIB_PATH names another",
        path.display()
    )]
    Load {
        /// File that was tried.
        path: PathBuf,
        /// What named that file.
        origin: &'static str,
        /// Why it was refused.
        #[source]
        source: ort::LoadDynamicError,
    },
    /// The library is loaded but does not start.
    #[error("cannot start ONNX Runtime of {}", path.display())]
    Start {
        /// File that was loaded.
        path: PathBuf,
        /// What the library said.
        #[source]
        source: ort::Error,
    },
}

/// The process's ONNX Runtime, under which every session is built.
///
/// The library is, in this order: `ORT_DYLIB_PATH` of the environment; `ORT_DYLIB_PATH` of the build
/// (`.cargo/config.toml`: `third_party/`), so that the binary runs from any folder; `libonnxruntime.so` where the
/// system's loader looks. The first call decides; a failed call may be repeated.
///
/// # Errors
/// [`RuntimeError`], which names the file tried.
pub fn runtime() -> Result<Environment, RuntimeError> {
    // ONNX Runtime allows one environment per process, for ever: it is kept here, and never dropped.
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    let (path, origin) = library();
    let environment = start(&path, origin)?;
    *loaded = Some(environment.clone());
    Ok(environment)
}

/// The file to load, and what named it.
fn library() -> (PathBuf, &'static str) {
    // Empty counts as unset.
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return (path.into(), "ORT_DYLIB_PATH");
    }
    match option_env!("ORT_DYLIB_PATH").map(PathBuf::from) {
        Some(path) if path.exists() => (path, "named when vaplan was built"),
        _ => ("libonnxruntime.so".into(), "the system's search path"),
    }
}

fn start(path: &Path, origin: &'static str) -> Result<Environment, RuntimeError> {
    // `ort::init` would panic on a missing library; this one says so.
    ort::init_from(path)
        .map_err(|source| RuntimeError::Load {
            path: path.into(),
            origin,
            source,
        })?
        .with_name("vaplan")
        .with_telemetry(false)
        // Without a logger ONNX Runtime prints to standard error by itself. What keeps it from working is an error, too.
        .with_logger(Arc::new(|level, category, _id, place, message| {
            tracing::debug!(target: "onnxruntime", ?level, category, place, "{message}");
        }))
        .build()
        .map_err(|source| RuntimeError::Start {
            path: path.into(),
            source,
        })
        .inspect(|environment| environment.set_log_level(ort::logging::LogLevel::Warning))
}

#[cfg(test)]
mod tests {
    use ort::session::Session;
    use ort::value::Tensor;

    use super::*;

    #[test]
    fn a_session_runs_a_model_from_bytes() {
        let model = include_bytes!("../../tests/golden/onnx/add_one.onnx");
        let environment = runtime().unwrap();
        let mut session = Session::builder(&environment)
            .unwrap()
            .commit_from_memory(model)
            .unwrap();
        let input = Tensor::from_array(([2usize, 3], vec![0.0f32, 1.0, 2.0, -1.0, 0.5, 41.0])).unwrap();
        let outputs = session.run(ort::inputs!["x" => input]).unwrap();
        let (shape, sums) = outputs["y"].try_extract_tensor::<f32>().unwrap();
        assert_eq!(&shape[..], [2, 3]);
        assert_eq!(sums, [1.0, 2.0, 3.0, 0.0, 1.5, 42.0]);
    }

    #[test]
    fn a_library_that_is_none_is_named() {
        // Not through `start`: once loaded, ort no longer looks at the path, whichever test came first.
        let error = RuntimeError::Load {
            path: "/nowhere/libonnxruntime.so".into(),
            origin: "ORT_DYLIB_PATH",
            source: ort::LoadDynamicError::MissingApi {
                path: "/nowhere/libonnxruntime.so".into(),
            },
        };
        assert_eq!(
            error.to_string(),
            "cannot load ONNX Runtime from /nowhere/libonnxruntime.so (ORT_DYLIB_PATH); \
             scripts/native-libs.sh fetches it, ORT_DYLIB_PATH names another"
        );
    }
}
