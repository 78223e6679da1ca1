//! Opens an ONNX file as a session, and computes the hash of its bytes.

use std::io::Read;
use std::path::{Path, PathBuf};

use ort::ep::ExecutionProvider;
use ort::session::Session;
use sha2::{Digest, Sha256};

use super::ModelError;
use crate::encode::runtime;
use crate::encode::sum::{feed, hex};
use crate::ingest::open_regular;

/// The device that a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// Run on the processor.
    #[default]
    Cpu,
    /// Run on CUDA if the library and the machine support it; otherwise warn, and run on the processor.
    Auto,
    /// Run on CUDA; return an error if the library or the machine does not support it.
    Cuda,
}

/// The settings for opening models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The device that models run on.
    pub device: Device,
    /// Number of threads of one session.
    pub threads: usize,
    /// May ONNX Runtime read weights from other files in the folder of the model?
    pub external_data: bool,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            device: Device::Cpu,
            threads: 1,
            external_data: false,
        }
    }
}

/// Opens a model. Returns its session, and the SHA-256 (in hexadecimal) of all bytes that the session was made of.
///
/// The function reads the model once and passes the bytes to ONNX Runtime, so that the model cannot make ONNX Runtime
/// read other files. With `external_data`, ONNX Runtime itself opens the model and the files of weights that the model
/// names.
///
/// # Errors
/// Returns [`ModelError`], which names the file, if the model cannot be read or loaded.
pub(super) fn open(path: &Path, options: &SessionOptions) -> Result<(Session, String), ModelError> {
    let model = |problem: String| ModelError::Model {
        path: path.to_owned(),
        problem,
    };
    let environment = runtime()?;
    let refused = |error: ort::Error| {
        let text = error.to_string();
        let hint = if !options.external_data && text.contains("external") {
            "; weights in files beside it are read with --external-data only"
        } else {
            ""
        };
        model(format!("cannot be loaded: {}{hint}", text.trim()))
    };
    let threads = options.threads.max(1);
    let failed = |error: ort::Error| model(format!("cannot be set up: {error}"));
    let mut builder = Session::builder(&environment)
        .map_err(failed)?
        .with_intra_threads(threads)
        .map_err(|error| failed(error.into()))?
        // Without this setting, threads that wait for work would keep their cores busy, and decoding would be slower.
        .with_intra_op_spinning(false)
        .map_err(|error| failed(error.into()))?;
    if options.device != Device::Cpu {
        let cuda = ort::ep::CUDA::default();
        let registered = match ort::ep::CUDA::is_available() {
            Ok(true) => cuda.register(&mut builder).map_err(|error| error.to_string()),
            Ok(false) => Err("this ONNX Runtime has no CUDA; ORT_DYLIB_PATH names another".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match (registered, options.device) {
            (Err(problem), Device::Cuda) => {
                return Err(model(format!("cannot run on CUDA: {}", problem.trim())));
            }
            (Err(problem), _) => {
                tracing::warn!(model = %path.display(), "running on the processor: {}", problem.trim());
            }
            (Ok(()), _) => {}
        }
    }
    if options.external_data {
        let sum = sha256(path, true)?;
        return Ok((builder.commit_from_file(path).map_err(refused)?, sum));
    }
    let bytes = read(path).map_err(&model)?;
    let session = builder.commit_from_memory(&bytes).map_err(refused)?;
    Ok((session, hex(&Sha256::digest(&bytes))))
}

/// Returns the SHA-256 (in hexadecimal) of all bytes that a session of this file is made of, without opening a session.
/// With `external_data`, the hash includes all files beside the model except other models and settings, because a model
/// may give its files of weights any name.
///
/// # Errors
/// Returns [`ModelError::Model`] if a file cannot be read.
pub fn sha256(path: &Path, external_data: bool) -> Result<String, ModelError> {
    let mut sum = Sha256::new();
    let mut add = |file: &Path| {
        feed(&mut sum, file).map_err(|error| ModelError::Model {
            path: file.to_owned(),
            problem: error.chain(),
        })
    };
    let mut named = Vec::new();
    add(path)?;
    if external_data {
        for file in beside(path) {
            named.push((file.file_name().unwrap_or_default().to_owned(), add(&file)?));
        }
    }
    for (name, length) in named {
        sum.update(name.as_encoded_bytes());
        sum.update(length.to_le_bytes());
    }
    Ok(hex(&sum.finalize()))
}

/// Returns the files beside a model that may have its weights, in order of name: all files except other models and
/// settings (onnx, json and toml).
fn beside(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    let entries = entries.into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|file| {
            let other = ["onnx", "json", "toml"]
                .iter()
                .any(|known| file.extension().is_some_and(|extension| extension == *known));
            file.is_file() && !other
        })
        .collect();
    files.sort_unstable();
    files
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let (mut file, length) = open_regular(path).map_err(|error| error.chain())?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn weights_under_any_name_count_for_the_sum_where_they_are_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let model = folder.path().join("model.onnx");
        write("model.onnx", "model");
        write("weights.bin", "one");
        let alone = sha256(&model, false).unwrap();
        let with = sha256(&model, true).unwrap();
        assert_eq!(alone, hex(&Sha256::digest("model")));
        for other in ["other.onnx", "config.json", "vaplan.toml"] {
            write(other, "anything");
            assert_eq!(sha256(&model, true).unwrap(), with, "{other} is none of it");
        }
        write("weights.bin", "two");
        assert_eq!(sha256(&model, false).unwrap(), alone);
        let swapped = sha256(&model, true).unwrap();
        assert!(swapped != with && swapped != alone);
        write("more", "x");
        assert_ne!(sha256(&model, true).unwrap(), swapped);
    }
}
