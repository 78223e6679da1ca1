//! A folder of files, and what its `vaplan.toml` says of them.
//!
//! ```toml
//! # vaplan.toml; all is optional for the public exports
//! kind = "clip"                     # clip or clap; else told by the files there
//! media = "vision_model.onnx"       # the vision or audio model
//! text = "text_model.onnx"
//! tokenizer = "tokenizer.json"
//! logit_scale = 100.0               # what `label --rule logit` is to multiply cosines with
//! max_tokens = 77
//! pad = 49407                       # id that a text is padded with where the model wants a length
//! [image]
//! size = 224
//! mean = [0.48145466, 0.4578275, 0.40821073]
//! std = [0.26862954, 0.26130258, 0.27577711]
//! resize = "crop"                   # or "squash"
//! [sound]
//! mel = "slaney"                    # or "htk", for fused models
//! ```
//!
//! A classifier of sound, which gives scores of classes of its own instead of embeddings:
//!
//! ```toml
//! kind = "classifier"
//! media = "model.onnx"              # takes YAMNet's patches, [1, 1, 96, 64]
//! labels = "yamnet_class_map.csv"   # names of its scores: one a line, or the column `display_name` of a CSV file
//! scores = "logit"                  # or "probability"
//! input = { scale = 0.04793788492679596, zero = 144 }    # where it takes and gives bytes
//! output = { scale = 0.7565417289733887, zero = 190 }
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ModelError;
use crate::encode::image::{ImageSettings, Resize};
use crate::encode::sound::SoundSettings;
use crate::encode::sound::mel::MelScale;

/// What a model encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Pictures and text.
    Clip,
    /// Sound and text.
    Clap,
    /// Sound, to scores of classes.
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

/// What a classifier's scores are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassifierScores {
    /// Probabilities after a sigmoid.
    #[default]
    Logit,
    /// From 0 to 1.
    Probability,
}

/// How bytes stand for numbers: `(byte - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantised {
    /// From byte to byte.
    pub scale: f64,
    /// The byte that is 0.
    pub zero: u8,
}

/// What is to be known of a classifier beside its file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassifierSettings {
    /// What its scores are.
    pub scores: ClassifierScores,
    /// Its input, where it takes bytes.
    pub input: Option<Quantised>,
    /// Its output, where it gives bytes.
    pub output: Option<Quantised>,
}

/// Name of the file that says what the others are.
pub const SETTINGS: &str = "vaplan.toml";

/// Where the public exports have their files, best first.
const PLACES: [&str; 2] = ["", "onnx"];
const VISION: [&str; 2] = ["vision_model.onnx", "model.onnx"];
const AUDIO: [&str; 2] = ["audio_model.onnx", "model.onnx"];
/// A text model with a mask can be padded, so it is preferred.
const TEXT: [&str; 3] = ["text_model_with_mask.onnx", "text_model.onnx", "model.onnx"];
const TOKENIZER: [&str; 1] = ["tokenizer.json"];
const CLASSIFIER: [&str; 1] = ["model.onnx"];
const LABELS: [&str; 2] = ["labels.txt", "yamnet_class_map.csv"];

/// All that a folder says of its model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFolder {
    /// The folder.
    pub path: PathBuf,
    /// What it encodes.
    pub kind: ModelKind,
    /// Vision or audio model.
    pub media: PathBuf,
    /// Text model; the same file as `media` where both are in one, and for a classifier.
    pub text: PathBuf,
    /// Tokenizer of the text model; names of a classifier's scores.
    pub tokenizer: PathBuf,
    /// What is to be known of a classifier.
    pub classifier: ClassifierSettings,
    /// What cosines are multiplied with to give logits.
    pub logit_scale: f64,
    /// Ids of a text at most, begin and end included.
    pub max_tokens: usize,
    /// Id that texts are padded with; none: CLIP's own, the end of the text, or CLAP's 1.
    pub pad: Option<u32>,
    /// What a vision model wants; `size` is the file's, if it says one.
    pub image: ImageSettings,
    /// Was `size` told? Otherwise the model's own stands over the default.
    pub image_size_told: bool,
    /// What an audio model wants.
    pub sound: SoundSettings,
    /// Was the bank of filters told? Otherwise a fused model's stands over the default.
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
    /// Finds the files of a folder. Nothing of them is opened but `vaplan.toml`.
    ///
    /// # Errors
    /// [`ModelError::Folder`] for a file that is needed and absent, an unknown key, or a number out of range.
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
        let told = path.join(SETTINGS);
        let file: SettingsFile = match std::fs::read_to_string(&told) {
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
        let find = |told: &Option<PathBuf>, names: &[&str], what: &str| match told {
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
            // CLAP: of laion/clap-htsat-unfused.
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
            image_size_told: file.image.size.is_some(),
            image: {
                let usual = ImageSettings::default();
                ImageSettings {
                    size: file.image.size.unwrap_or(usual.size),
                    mean: file.image.mean.unwrap_or(usual.mean),
                    std: file.image.std.unwrap_or(usual.std),
                    resize: file.image.resize.unwrap_or(usual.resize),
                }
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
            .find(|told| !(told.scale.is_finite() && told.scale > 0.0))
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

/// What is there, for an error.
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
