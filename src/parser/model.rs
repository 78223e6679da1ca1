//! The folder of a trained model: weights, settings, classes and encoders. The folder can be copied to another machine, and
//! `parse` applies it to new media without a store.
//!
//! ```text
//! model/
//!   model.json                          everything but the weights; names the file of weights and its SHA-256
//!   weights-<12 hex digits>.safetensors the parameters of the best epoch
//! ```
//!
//! The file of weights is written first, under a name by its content, and `model.json` is replaced in one step. A reader
//! therefore sees the old model or the new one, and never a mixture. Older weights are removed last.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vaplan_schemas::Modality;

use super::error::TrainError;
use super::train::classes_of;
use super::{FeaturePaths, NetworkError, Parser, TrainSettings, Weights, registry};
use crate::ingest::encoded::{EncoderOrigin, encoder_of};

/// Name of the file that describes the model.
pub const MODEL_FILE: &str = "model.json";
/// Version of the layout that this program writes and reads.
const FORMAT: u32 = 1;

/// The content of `model.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelDescription {
    /// Version of the layout.
    pub format: u32,
    /// Version of the program that wrote the folder.
    pub program: String,
    /// Name of the file of weights.
    pub weights: String,
    /// SHA-256 of the file of weights, in hexadecimal.
    pub sha256: String,
    /// Names of the classes, in order.
    pub classes: Vec<Arc<str>>,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// The best epoch of the training, counted from 1.
    pub epoch: Option<u64>,
    /// Store version with the labels that the training learnt.
    pub labels: u64,
    /// The encoder of the audio features; `None` if `vaplan encode` did not make them.
    pub audio: Option<EncoderOrigin>,
    /// The encoder of the visual features; `None` if `vaplan encode` did not make them.
    pub visual: Option<EncoderOrigin>,
    /// The settings of the training. Their task and their protocol also turn probabilities into labels.
    pub training: TrainSettings,
}

impl ModelDescription {
    /// The encoder of the features of a modality.
    pub fn encoder(&self, modality: Modality) -> Option<&EncoderOrigin> {
        match modality {
            Modality::Audio => self.audio.as_ref(),
            Modality::Visual => self.visual.as_ref(),
        }
    }
}

/// What a training knows of the model that it wrote.
#[derive(Clone, Debug)]
pub struct ModelSource<'a> {
    /// File with the weights of the best epoch.
    pub checkpoint: &'a Path,
    /// Settings of the training.
    pub settings: &'a TrainSettings,
    /// Features that the training read.
    pub features: &'a FeaturePaths,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
}

/// Writes the folder of a trained model, or replaces the model in the folder. Nothing is written if the folder has the
/// same model already.
///
/// # Errors
/// Returns [`TrainError`] if the checkpoint cannot be read, or a file cannot be written.
pub fn write_model(folder: &Path, source: &ModelSource<'_>) -> Result<(), TrainError> {
    let bytes = std::fs::read(source.checkpoint).map_err(TrainError::io("read", source.checkpoint))?;
    let metadata = Weights::read(source.checkpoint)?;
    let classes = classes_of(&metadata).unwrap_or_default();
    let number = |key: &str| metadata.metadata.get(key).and_then(|text| text.parse().ok());
    let sha256 = hex(&bytes);
    let weights = format!("weights-{}.safetensors", &sha256[..12]);
    let unknown = |modality: Modality, paths: &[PathBuf]| {
        let origin = encoder_of(paths, modality);
        origin
            .map_err(|reason| tracing::debug!(%modality, reason, "the model does not record its encoder"))
            .ok()
    };
    let description = ModelDescription {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        weights: weights.clone(),
        sha256,
        classes,
        segment_seconds: source.segment_seconds,
        epoch: number("best_epoch"),
        labels: number("labels").unwrap_or(0),
        audio: unknown(Modality::Audio, &source.features.audio),
        visual: unknown(Modality::Visual, &source.features.visual),
        training: source.settings.clone(),
    };
    let mut text = serde_json::to_string_pretty(&description).expect("settings are names and finite numbers");
    text.push('\n');
    let file = folder.join(MODEL_FILE);
    if std::fs::read(&file).is_ok_and(|old| old == text.as_bytes()) && folder.join(&weights).is_file() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(TrainError::io("make", folder))?;
    replace(folder, &weights, &bytes)?;
    replace(folder, MODEL_FILE, text.as_bytes())?;
    for entry in std::fs::read_dir(folder).map_err(TrainError::io("list", folder))? {
        let path = entry.map_err(TrainError::io("list", folder))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("weights-") && name.ends_with(".safetensors") && name != weights {
            std::fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes a file beside its place, syncs it, and renames it.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
    let path = folder.join(name);
    let write = || {
        let mut file = tempfile::Builder::new()
            .prefix(".vaplan-model-")
            // The umask applies. A temporary file is otherwise for its owner only, also after a copy.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    write().map_err(TrainError::io("write", &path))
}

/// A trained model that was read from its folder.
#[derive(Debug)]
pub struct TrainedModel {
    /// The content of `model.json`.
    pub description: ModelDescription,
    /// SHA-256 of `model.json`, in hexadecimal.
    pub sha256: String,
    /// The network.
    pub parser: Box<dyn Parser>,
}

impl TrainedModel {
    /// Reads the folder of a trained model.
    ///
    /// # Errors
    /// Returns [`TrainError::Settings`] if the folder is no model or was changed, and [`TrainError::Network`] if the
    /// weights cannot be used.
    pub fn open(folder: &Path, device: tch::Device) -> Result<TrainedModel, TrainError> {
        let bad = |problem: String| TrainError::Settings(format!("model `{}` {problem}", folder.display()));
        let file = folder.join(MODEL_FILE);
        let text = std::fs::read(&file).map_err(|error| {
            bad(format!(
                "has no {MODEL_FILE} that can be read ({error}), expected a folder `model` that `train` or `run` wrote"
            ))
        })?;
        let format: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("has a {MODEL_FILE} that is no JSON: {error}")))?;
        if format["format"] != FORMAT {
            return Err(bad(format!("has format {}, expected {FORMAT}", format["format"])));
        }
        let description: ModelDescription = serde_json::from_value(format)
            .map_err(|error| bad(format!("has a wrong {MODEL_FILE}: {error}")))?;
        // The name comes from a file that anyone can write, and must not lead out of the folder.
        if Path::new(&description.weights).components().count() != 1 || description.weights.starts_with('.') {
            return Err(bad(format!(
                "names weights `{}`, expected a file in the folder",
                description.weights
            )));
        }
        let path = folder.join(&description.weights);
        let bytes = std::fs::read(&path)
            .map_err(|error| bad(format!("names weights `{}`: {error}", description.weights)))?;
        let found = hex(&bytes);
        if found != description.sha256 {
            return Err(bad(format!(
                "names weights `{}` with SHA-256 {}, but the file has {found}: copy the whole folder again",
                description.weights, description.sha256
            )));
        }
        let mut weights = Weights::read(&path)?;
        let parser = registry::load(&mut weights, device).map_err(NetworkError::weights(&path))?;
        let classes = parser.sizes().classes;
        if classes != description.classes.len() as i64 {
            let named = description.classes.len();
            return Err(bad(format!(
                "names {named} classes, but its network has {classes}"
            )));
        }
        Ok(TrainedModel {
            description,
            sha256: hex(&text),
            parser,
        })
    }
}
