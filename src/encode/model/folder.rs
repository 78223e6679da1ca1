//! Finds the files of a model folder, and reads its `vaplan.toml`.
//!
//! ```toml
//! # vaplan.toml; every key is optional for the public exports
//! kind = "clip"                     # clip, clap or classifier; default: clip or clap, by the names of the files
//! media = "vision_model.onnx"       # the vision or audio model
//! text = "text_model.onnx"
//! tokenizer = "tokenizer.json"
//! logit_scale = 100.0               # the scale that `label --rule logit` multiplies cosines with
//! max_tokens = 77
//! pad = 49407                       # id that a text is padded with if the model takes only one length
//! [image]
//! size = 224
//! mean = [0.48145466, 0.4578275, 0.40821073]
//! std = [0.26862954, 0.26130258, 0.27577711]
//! resize = "crop"                   # or "squash"
//! [sound]
//! mel = "slaney"                    # or "htk", for fused models
//! ```
//!
//! A classifier of sound gives scores of its own classes instead of embeddings:
//!
//! ```toml
//! kind = "classifier"
//! media = "model.onnx"              # takes YAMNet's patches, [1, 1, 96, 64]
//! labels = "yamnet_class_map.csv"   # names of the scores: one in each line, or column `display_name` of a CSV file
//! scores = "logit"                  # or "probability"
//! input = { scale = 0.04793788492679596, zero = 144 }    # only if the model takes and gives bytes
//! output = { scale = 0.7565417289733887, zero = 190 }
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ModelError, preprocessor};
use crate::encode::image::{ImageSettings, Resize};
use crate::encode::sound::SoundSettings;
use crate::encode::sound::mel::MelScale;

/// The kind of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Encodes pictures and text.
    Clip,
    /// Encodes sound and text.
    Clap,
    /// Computes scores of its own classes from sound.
    Classifier,
}

impl fmt::Display for ModelKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ModelKind::Clip => "clip",
            ModelKind::Clap => "clap",
            ModelKind::Classifier => "classifier",
        })
    }
}

/// The kind of scores that a classifier gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassifierScores {
    /// Logits: a sigmoid turns each score into a probability.
    #[default]
    Logit,
    /// Probabilities from 0 to 1.
    Probability,
}

/// The numbers that bytes mean: `(byte - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantised {
    /// The difference between the numbers of two consecutive bytes.
    pub scale: f64,
    /// The byte that means 0.
    pub zero: u8,
}

/// The settings of a classifier, which its ONNX file does not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassifierSettings {
    /// The kind of its scores.
    pub scores: ClassifierScores,
    /// The meaning of its input bytes; `None` if the input is floats.
    pub input: Option<Quantised>,
    /// The meaning of its output bytes; `None` if the output is floats.
    pub output: Option<Quantised>,
}

/// Name of the settings file of a model folder.
pub const SETTINGS: &str = "vaplan.toml";

/// Subfolders in which the public exports have their files; the first one is preferred.
const PLACES: [&str; 2] = ["", "onnx"];
const VISION: [&str; 2] = ["vision_model.onnx", "model.onnx"];
const AUDIO: [&str; 2] = ["audio_model.onnx", "model.onnx"];
/// The text model with a mask comes first, because its texts can be padded.
const TEXT: [&str; 3] = ["text_model_with_mask.onnx", "text_model.onnx", "model.onnx"];
const TOKENIZER: [&str; 1] = ["tokenizer.json"];
const CLASSIFIER: [&str; 1] = ["model.onnx"];
const LABELS: [&str; 2] = ["labels.txt", "yamnet_class_map.csv"];

/// The files and settings of a model folder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFolder {
    /// Path of the folder.
    pub path: PathBuf,
    /// The kind of the model.
    pub kind: ModelKind,
    /// File of the vision model, the audio model or the classifier.
    pub media: PathBuf,
    /// File of the text model; the same file as `media` if one file has both models, and for a classifier.
    pub text: PathBuf,
    /// File of the tokenizer; for a classifier, the file with the names of its scores.
    pub tokenizer: PathBuf,
    /// Settings of a classifier.
    pub classifier: ClassifierSettings,
    /// The scale that turns cosines into logits. Default: 100 for CLIP, 18.66 for CLAP, 1 for a classifier.
    pub logit_scale: f64,
    /// Largest number of ids in a text, including begin and end. Default: 77 for CLIP, otherwise 512.
    pub max_tokens: usize,
    /// Id that texts are padded with; if `None`, the id of the end of the text for CLIP, and 1 for CLAP.
    pub pad: Option<u32>,
    /// How pictures are prepared for a vision model; each value is from `vaplan.toml`, or else from
    /// `preprocessor_config.json`, or else the default.
    pub image: ImageSettings,
    /// Does one of these files give `size`? If not, the size in the model's input shape replaces the default.
    pub image_size_given: bool,
    /// How sound is prepared for an audio model.
    pub sound: SoundSettings,
    /// Does `vaplan.toml` give `mel`? If not, a fused model gets the HTK filters instead of the default.
    pub mel_told: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    kind: Option<ModelKind>,
    media: Option<PathBuf>,
    text: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    logit_scale: Option<f64>,
    max_tokens: Option<usize>,
    pad: Option<u32>,
    labels: Option<PathBuf>,
    scores: Option<ClassifierScores>,
    input: Option<Quantised>,
    output: Option<Quantised>,
    #[serde(default)]
    image: ImageFile,
    #[serde(default)]
    sound: SoundFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageFile {
    size: Option<usize>,
    mean: Option<[f64; 3]>,
    std: Option<[f64; 3]>,
    resize: Option<Resize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SoundFile {
    mel: Option<MelScale>,
}

impl ModelFolder {
    /// Finds the files of a model folder. The function opens only `vaplan.toml` and `preprocessor_config.json`.
    ///
    /// # Errors
    /// Returns [`ModelError::Folder`] if a needed file is absent, or if `vaplan.toml` cannot be read, has an unknown
    /// key, or has a number out of range.
    pub fn find(path: &Path) -> Result<ModelFolder, ModelError> {
        let bad = |problem: String| ModelError::Folder {
            path: path.to_owned(),
            problem,
        };
        if !path.is_dir() {
            return Err(bad(
                "is no folder, expected one with ONNX files and a tokenizer.json".to_owned(),
            ));
        }
        let settings_path = path.join(SETTINGS);
        let file: SettingsFile = match std::fs::read_to_string(&settings_path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| bad(format!("{SETTINGS}: {}", error.to_string().trim())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => SettingsFile::default(),
            Err(error) => return Err(bad(format!("{SETTINGS} cannot be read: {error}"))),
        };
        let kind = match file.kind {
            Some(kind) => kind,
            None => kind_of(path, &file).ok_or_else(|| {
                bad(format!(
                    "holds neither vision_model.onnx nor audio_model.onnx ({}), expected one of them, or `kind` in {SETTINGS}",
                    listing(path)
                ))
            })?,
        };
        let find = |named: &Option<PathBuf>, names: &[&str], what: &str| match named {
            Some(name) if path.join(name).is_file() => Ok(path.join(name)),
            Some(name) => Err(bad(format!(
                "{SETTINGS} names the {what} `{}`, which is no file",
                name.display()
            ))),
            None => first(path, names).ok_or_else(|| {
                bad(format!(
                    "has no {what}, expected {} ({})",
                    names.join(" or "),
                    listing(path)
                ))
            }),
        };
        let (names, what): (&[&str], _) = match kind {
            ModelKind::Clip => (&VISION, "vision model"),
            ModelKind::Clap => (&AUDIO, "audio model"),
            ModelKind::Classifier => (&CLASSIFIER, "classifier"),
        };
        let media = find(&file.media, names, what)?;
        let (text, tokenizer) = match kind {
            ModelKind::Classifier => (media.clone(), find(&file.labels, &LABELS, "list of labels")?),
            ModelKind::Clip | ModelKind::Clap => (
                find(&file.text, &TEXT, "text model")?,
                find(&file.tokenizer, &TOKENIZER, "tokenizer")?,
            ),
        };
        let mut usual = ImageSettings::default();
        let sized = kind == ModelKind::Clip && preprocessor::apply(path, &mut usual).map_err(bad)?;
        let made = ModelFolder {
            path: path.to_owned(),
            kind,
            media,
            text,
            tokenizer,
            classifier: ClassifierSettings {
                scores: file.scores.unwrap_or_default(),
                input: file.input,
                output: file.output,
            },
            // The scale for CLAP is from `laion/clap-htsat-unfused`.
            logit_scale: file.logit_scale.unwrap_or(match kind {
                ModelKind::Clip => 100.0,
                ModelKind::Clap => 18.66,
                ModelKind::Classifier => 1.0,
            }),
            max_tokens: file.max_tokens.unwrap_or(match kind {
                ModelKind::Clip => 77,
                ModelKind::Clap | ModelKind::Classifier => 512,
            }),
            pad: file.pad,
            image_size_given: file.image.size.is_some() || sized,
            image: ImageSettings {
                size: file.image.size.unwrap_or(usual.size),
                mean: file.image.mean.unwrap_or(usual.mean),
                std: file.image.std.unwrap_or(usual.std),
                resize: file.image.resize.unwrap_or(usual.resize),
            },
            mel_told: file.sound.mel.is_some(),
            sound: SoundSettings {
                mel: file.sound.mel.unwrap_or_default(),
                ..SoundSettings::default()
            },
        };
        made.check().map_err(bad)?;
        Ok(made)
    }

    fn check(&self) -> Result<(), String> {
        let image = &self.image;
        let quantised = [self.classifier.input, self.classifier.output];
        if let Some(bad) = quantised
            .iter()
            .flatten()
            .find(|quantization| !(quantization.scale.is_finite() && quantization.scale > 0.0))
        {
            return Err(format!(
                "scale of input or output is {}, expected a number above 0",
                bad.scale
            ));
        }
        if !(8..=4096).contains(&image.size) {
            return Err(format!("image size is {}, expected 8 to 4096", image.size));
        }
        if !(self.logit_scale.is_finite() && self.logit_scale > 0.0) {
            return Err(format!(
                "logit_scale is {}, expected a number above 0",
                self.logit_scale
            ));
        }
        if !(3..=1 << 16).contains(&self.max_tokens) {
            return Err(format!("max_tokens is {}, expected 3 to 65536", self.max_tokens));
        }
        if let Some(std) = image.std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            return Err(format!("image std is {std}, expected a number above 0"));
        }
        if let Some(mean) = image.mean.iter().find(|mean| !mean.is_finite()) {
            return Err(format!("image mean is {mean}, expected a finite number"));
        }
        Ok(())
    }
}

fn first(path: &Path, names: &[&str]) -> Option<PathBuf> {
    let places = names
        .iter()
        .flat_map(|name| PLACES.iter().map(move |place| (place, name)));
    places
        .map(|(place, name)| path.join(place).join(name))
        .find(|file| file.is_file())
}

fn kind_of(path: &Path, file: &SettingsFile) -> Option<ModelKind> {
    let named = |name: &str| {
        file.media.as_ref().is_some_and(|media| media.ends_with(name)) || first(path, &[name]).is_some()
    };
    match (named(VISION[0]), named(AUDIO[0])) {
        (true, false) => Some(ModelKind::Clip),
        (false, true) => Some(ModelKind::Clap),
        _ => None,
    }
}

/// Lists up to 20 files of the folder, for an error message.
fn listing(path: &Path) -> String {
    let list = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let mut names = list(path);
    names.extend(
        list(&path.join("onnx"))
            .into_iter()
            .map(|name| format!("onnx/{name}")),
    );
    names.sort_unstable();
    names.truncate(20);
    if names.is_empty() {
        return "it is empty".to_owned();
    }
    format!("files found: {}", names.join(", "))
}
