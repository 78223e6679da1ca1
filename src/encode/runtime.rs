//! Finds the ONNX Runtime library and loads it, once per process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;

/// The reason why ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The library cannot be loaded, or its version is older than the crate `ort` needs.
    #[error(
        "cannot load ONNX Runtime from {} ({origin}); scripts/native-libs.sh fetches it, ORT_DYLIB_PATH names another",
        path.display()
    )]
    Load {
        /// The file that vaplan tried to load.
        path: PathBuf,
        /// Where the path comes from.
        origin: &'static str,
        /// Why the file cannot be loaded.
        #[source]
        source: ort::LoadDynamicError,
    },
    /// The library is loaded, but its environment cannot be created.
    #[error("cannot start ONNX Runtime of {}", path.display())]
    Start {
        /// The file that was loaded.
        path: PathBuf,
        /// The error of the library.
        #[source]
        source: ort::Error,
    },
}

/// Returns the ONNX Runtime environment of the process. Every session is built with this environment.
///
/// The function loads the first of these libraries:
/// 1. the file that the environment variable `ORT_DYLIB_PATH` names at run time;
/// 2. the file that `ORT_DYLIB_PATH` named when vaplan was built (`.cargo/config.toml` sets it to a file in
///    `third_party/`), if that file exists, so that the binary runs from any folder;
/// 3. `libonnxruntime.so` in the search path of the system's loader.
///
/// The first successful call decides for the whole process. A failed call may be repeated.
///
/// # Errors
/// Returns [`RuntimeError`], which names the file that was tried, if the library cannot be loaded or started.
pub fn runtime() -> Result<Environment, RuntimeError> {
    // ONNX Runtime allows only one environment during the life of a process. The static keeps that environment and
    // never drops it.
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

/// Returns the file to load, and a text that says where the path comes from.
fn library() -> (PathBuf, &'static str) {
    // An empty variable counts as unset.
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return (path.into(), "ORT_DYLIB_PATH");
    }
    match option_env!("ORT_DYLIB_PATH").map(PathBuf::from) {
        Some(path) if path.exists() => (path, "named when vaplan was built"),
        _ => ("libonnxruntime.so".into(), "the system's search path"),
    }
}

fn start(path: &Path, origin: &'static str) -> Result<Environment, RuntimeError> {
    // `ort::init` panics if the library is missing; `ort::init_from` returns an error.
    ort::init_from(path)
        .map_err(|source| RuntimeError::Load {
            path: path.into(),
            origin,
            source,
        })?
        .with_name("vaplan")
        .with_telemetry(false)
        // Without a logger, ONNX Runtime prints to standard error. The logger may write at debug level only, because
        // ONNX Runtime also returns each failure as an error.
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
        // The test does not call `start`: once another test has loaded the library, `ort` ignores the path.
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
