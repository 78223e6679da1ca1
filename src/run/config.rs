//! What a run is asked: one TOML file, paths relative to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::pld::Pld;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::RunError;
use crate::parser::{Supervision, TrainSettings};
use crate::world::settings::{RuleName, SettingsRequest};
use crate::world::{Both, at};

/// Every key with its default and what it means.
pub const DEFAULT: &str = include_str!("default.toml");

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Store to write; made where there is none.
    pub store: PathBuf,
    /// Parsers to train for comparison, each on the labels of PLG.
    pub baselines: Vec<Supervision>,
    /// Videos and weak labels.
    pub data: Data,
    /// What is encoded first; none: the features are there.
    #[cfg(feature = "encode")]
    pub media: Option<MediaConfig>,
    /// FeaturesConfig that are labelled.
    pub features: FeaturesConfig,
    /// FeaturesConfig that the parser sees, where they are others.
    pub train_features: TrainFeatures,
    /// How labels are generated.
    pub label: Label,
    /// How the parser is trained.
    pub train: TrainSettings,
    /// How labels are denoised.
    pub denoise: Denoise,
}

/// Videos and weak labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Annotation folder in LLP's or AVE's format.
    pub annotations: PathBuf,
    /// Names of the classes in order, one a line; none: as `label` finds them.
    pub classes: Option<PathBuf>,
    /// Splits to label.
    pub splits: Vec<Split>,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
}

/// MediaConfig to encode, into the store.
#[cfg(feature = "encode")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaConfig {
    /// Folders of videos, folders of frames, sound files.
    pub paths: Vec<PathBuf>,
    /// Model folder of pictures; none: visual features are named.
    pub clip: Option<PathBuf>,
    /// Model folder of sound; none: audio features are named.
    pub clap: Option<PathBuf>,
    /// Prompts of the classes; none: the default ones.
    pub prompts: Option<PathBuf>,
    /// Segments of every video; none: by its duration.
    pub segments: Option<usize>,
    /// Frames per second of folders of frames, and of those taken from videos.
    pub frame_rate: f64,
    /// The ffmpeg program.
    pub ffmpeg: PathBuf,
}

#[cfg(feature = "encode")]
impl Default for MediaConfig {
    fn default() -> MediaConfig {
        MediaConfig {
            paths: Vec::new(),
            clip: None,
            clap: None,
            prompts: None,
            segments: None,
            frame_rate: 8.0,
            ffmpeg: "ffmpeg".into(),
        }
    }
}

/// FeaturesConfig and text embeddings; none: those of a modality that is encoded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesConfig {
    /// Visual features.
    pub visual: Option<PathBuf>,
    /// Audio features.
    pub audio: Option<PathBuf>,
    /// Visual text embeddings.
    pub visual_text: Option<PathBuf>,
    /// Audio text embeddings.
    pub audio_text: Option<PathBuf>,
}

/// FeaturesConfig of the parser; none: those that are labelled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainFeatures {
    /// Visual features.
    pub visual: Option<PathBuf>,
    /// Audio features.
    pub audio: Option<PathBuf>,
    /// Clip features; none: the network takes none.
    pub clips: Option<PathBuf>,
}

/// How labels are generated; what is none is as `label` has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Label {
    /// Rule.
    pub rule: Option<RuleName>,
    /// Threshold of every visual class.
    pub visual_threshold: Option<f64>,
    /// Threshold of every audio class.
    pub audio_threshold: Option<f64>,
    /// κ of visual.
    pub visual_scale: Option<f64>,
    /// κ of audio.
    pub audio_scale: Option<f64>,
    /// TOML with thresholds per class, as `calibrate` writes it.
    pub thresholds: Option<PathBuf>,
}

/// When labels are denoised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Train, denoise by the best epoch, train again from the start.
    Once,
    /// In one training, every so many epochs from a warm-up epoch on.
    Every,
    /// Never.
    Off,
}

/// How labels are denoised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Denoise {
    /// When.
    pub schedule: Schedule,
    /// Of schedule `every`: how many epochs apart.
    pub every: u64,
    /// Of schedule `every`: the first epoch after which labels are denoised.
    pub warmup: u64,
    /// Which labels.
    pub modalities: Vec<Modality>,
    /// K.
    pub k: u32,
    /// α.
    pub alpha: f64,
    /// Guard.
    pub guard: f64,
}

/// After which epochs of a training labels are denoised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    /// How many apart.
    epochs: u64,
    /// The first.
    warmup: u64,
}

impl Every {
    /// Are labels denoised after this epoch, from 1, of so many?
    pub fn due(self, epoch: u64, of: u64) -> bool {
        // After the last epoch no one would learn the labels.
        epoch >= self.warmup && (epoch - self.warmup).is_multiple_of(self.epochs) && epoch < of
    }

    /// Were they after any of the first so many?
    pub fn was_due(self, done: u64, of: u64) -> bool {
        (1..=done).any(|epoch| self.due(epoch, of))
    }
}

impl Denoise {
    /// None: not of schedule `every`.
    pub fn every(&self) -> Option<Every> {
        (self.schedule == Schedule::Every).then_some(Every {
            epochs: self.every,
            warmup: self.warmup,
        })
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            store: "store".into(),
            baselines: vec![Supervision::Weak],
            data: Data::default(),
            #[cfg(feature = "encode")]
            media: None,
            features: FeaturesConfig::default(),
            train_features: TrainFeatures::default(),
            label: Label::default(),
            train: TrainSettings::default(),
            denoise: Denoise::default(),
        }
    }
}

impl Default for Data {
    fn default() -> Data {
        Data {
            annotations: "annotations".into(),
            classes: None,
            splits: Split::ALL.to_vec(),
            segment_seconds: 1.0,
        }
    }
}

impl Default for Denoise {
    fn default() -> Denoise {
        let pld = Pld::default();
        Denoise {
            schedule: Schedule::Once,
            every: 5,
            warmup: 5,
            modalities: vec![Modality::Visual],
            k: pld.k(),
            alpha: pld.alpha(),
            guard: pld.guard(),
        }
    }
}

impl Config {
    /// Reads and checks a file; gives its text, too. Paths are then relative to the current folder.
    ///
    /// # Errors
    /// [`RunError::Config`] naming the file, the key and what was expected.
    pub fn read(path: &Path) -> Result<(Config, Arc<str>), RunError> {
        let bad = |problem: String| RunError::Config {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let config = Config::parse(&text).map_err(bad)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok((config.below(folder), text.into()))
    }

    /// Reads and checks a text; paths stay as they are.
    ///
    /// # Errors
    /// What is wrong, with what would do.
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| said(&error))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.train.check().map_err(|error| format!("[train] {error}"))?;
        self.pld().map_err(|error| format!("[denoise] {error}"))?;
        let denoise = &self.denoise;
        for (key, value) in [("every", denoise.every), ("warmup", denoise.warmup)] {
            if value == 0 {
                return Err(format!("[denoise] {key} is 0, expected at least 1"));
            }
        }
        if denoise.schedule != Schedule::Off && denoise.modalities.is_empty() {
            return Err(
                "[denoise] modalities is empty, expected `visual`, `audio` or both, or schedule = \"off\""
                    .to_owned(),
            );
        }
        if let Some(twice) = self.baselines.iter().find(|own| {
            let same = self.baselines.iter().filter(|other| other == own);
            same.count() > 1 || **own == self.train.supervision
        }) {
            return Err(format!(
                "baselines has `{}`, expected each once, and another supervision than that of [train]",
                twice.as_str()
            ));
        }
        if !(self.data.segment_seconds.is_finite() && self.data.segment_seconds > 0.0) {
            let seconds = self.data.segment_seconds;
            return Err(format!(
                "[data] segment_seconds is {seconds}, expected a number above 0"
            ));
        }
        if self.data.splits.is_empty() {
            return Err("[data] splits is empty, expected `train`, `val`, `test` or some of them".to_owned());
        }
        self.check_features()
    }

    /// Every feature comes from somewhere, and from one place.
    fn check_features(&self) -> Result<(), String> {
        let FeaturesConfig {
            visual,
            audio,
            visual_text,
            audio_text,
        } = &self.features;
        for (modality, text, named) in [
            (Modality::Visual, "visual_text", [visual, visual_text]),
            (Modality::Audio, "audio_text", [audio, audio_text]),
        ] {
            let all = named.iter().all(|path| path.is_some());
            let none = named.iter().all(|path| path.is_none());
            match self.model(modality) {
                Some(_) if none => {}
                Some((key, _)) => {
                    return Err(format!(
                        "[features] has `{modality}` or `{text}`, and [media] has `{key}`, expected one of the two"
                    ));
                }
                None if all => {}
                None => {
                    return Err(format!(
                        "[features] lacks `{modality}` or `{text}`, expected a path each, or [media] with a model"
                    ));
                }
            }
        }
        #[cfg(feature = "encode")]
        if let Some(media) = &self.media {
            if media.paths.is_empty() {
                return Err("[media] paths is empty, expected folders or files to encode".to_owned());
            }
            if !(media.frame_rate.is_finite() && (1e-3..=1e6).contains(&media.frame_rate)) {
                let rate = media.frame_rate;
                return Err(format!("[media] frame_rate is {rate}, expected 0.001 to 1000000"));
            }
            if media.segments == Some(0) {
                return Err("[media] segments is 0, expected at least 1".to_owned());
            }
        }
        Ok(())
    }

    /// Key and folder of the model that encodes a modality.
    fn model(&self, modality: Modality) -> Option<(&'static str, &Path)> {
        #[cfg(feature = "encode")]
        if let Some(media) = &self.media {
            let (key, model) = match modality {
                Modality::Visual => ("clip", &media.clip),
                Modality::Audio => ("clap", &media.clap),
            };
            return Some((key, model.as_deref()?));
        }
        let _ = modality;
        None
    }

    /// The same with every relative path below a folder.
    fn below(mut self, folder: &Path) -> Config {
        let own = |path: &mut PathBuf| *path = folder.join(&*path);
        own(&mut self.store);
        own(&mut self.data.annotations);
        self.data.classes.iter_mut().for_each(own);
        let FeaturesConfig {
            visual,
            audio,
            visual_text,
            audio_text,
        } = &mut self.features;
        let train = &mut self.train_features;
        let features = [visual, audio, visual_text, audio_text];
        let trained = [&mut train.visual, &mut train.audio, &mut train.clips];
        features
            .into_iter()
            .chain(trained)
            .chain([&mut self.label.thresholds])
            .flatten()
            .for_each(own);
        #[cfg(feature = "encode")]
        if let Some(media) = &mut self.media {
            media.paths.iter_mut().for_each(own);
            [&mut media.clip, &mut media.clap, &mut media.prompts]
                .into_iter()
                .flatten()
                .for_each(own);
        }
        self
    }

    /// K, α and guard of each modality that is denoised.
    ///
    /// # Errors
    /// For a number out of its range.
    pub fn pld(&self) -> Result<Both<Option<Pld>>, String> {
        let Denoise {
            schedule,
            modalities,
            k,
            alpha,
            guard,
            ..
        } = &self.denoise;
        let pld = Pld::new(*k, *alpha, *guard).map_err(|error| error.to_string())?;
        let mut both = [None, None];
        for modality in modalities.iter().filter(|_| *schedule != Schedule::Off) {
            both[at(*modality)] = Some(pld);
        }
        Ok(both)
    }

    /// Rule, scales and thresholds, as `label` takes them.
    pub fn settings(&self) -> SettingsRequest {
        let Label {
            rule,
            visual_threshold,
            audio_threshold,
            visual_scale,
            audio_scale,
            thresholds,
        } = self.label.clone();
        SettingsRequest {
            rule,
            visual_threshold,
            audio_threshold,
            visual_scale,
            audio_scale,
            file: thresholds,
        }
    }
}

/// What a parser of TOML says, with the nearest key where one is unknown.
fn said(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let mut words = error.message().split('`').skip(1).step_by(2);
    let unknown = words
        .next()
        .filter(|_| error.message().starts_with("unknown field"));
    let likeness = |unknown: &str, key: &&str| (strsim::jaro_winkler(unknown, key) * 1e6) as u64;
    let nearest = unknown.and_then(|unknown| words.max_by_key(|key| likeness(unknown, key)));
    let nearest = nearest.map_or(String::new(), |key| format!(" (nearest: `{key}`)"));
    format!("{}{nearest}", text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_as_default_is_the_default_but_for_paths_that_have_none() {
        let mut printed = Config::parse(DEFAULT).unwrap();
        assert!(printed.features.visual.is_some(), "it is there as an example");
        printed.features = FeaturesConfig::default();
        assert_eq!(printed, Config::default());
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_would_do() {
        let refused = |text: &str| Config::parse(&format!("{text}\n")).unwrap_err();
        let features = "[features]\nvisual = 'v'\naudio = 'a'\nvisual_text = 'vt'\naudio_text = 'at'\n";
        let with = |text: &str| refused(&format!("{features}{text}"));
        assert!(refused("stor = 'x'").contains("(nearest: `store`)"));
        assert!(with("[train]\nepoch = 3").contains("(nearest: `epochs`)"));
        assert!(with("[denoise]\nschedule = 'onc'").contains("expected one of `once`, `every`, `off`"));
        assert_eq!(with("[denoise]\nk = 0"), "[denoise] k is 0, expected at least 1");
        assert_eq!(
            with("[denoise]\nevery = 0"),
            "[denoise] every is 0, expected at least 1"
        );
        assert_eq!(
            refused("[features]\nvisual = 'v'"),
            "[features] lacks `visual` or `visual_text`, expected a path each, or [media] with a model"
        );
        let twice = refused(&format!("baselines = ['weak', 'weak']\n{features}"));
        assert!(
            twice.starts_with("baselines has `weak`, expected each once"),
            "{twice}"
        );
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        let text = "store = 'S'\n[data]\nannotations = '/given'\n[features]\nvisual = 'v'\naudio = 'a'\n\
                    visual_text = 'vt'\naudio_text = 'at'\n[train_features]\nclips = '../clips'\n";
        std::fs::write(&path, text).unwrap();
        let (config, kept) = Config::read(&path).unwrap();
        assert_eq!(&*kept, text);
        assert_eq!(config.store, folder.path().join("S"));
        assert_eq!(config.data.annotations, Path::new("/given"));
        assert_eq!(config.train_features.clips, Some(folder.path().join("../clips")));
    }
}
