//! The file of a run: one TOML file. Its paths are relative to the folder of the file.

mod denoise;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::CandidateRule;
use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;
use vaplan_schemas::storage::local_path;

pub use self::denoise::{Denoise, Every, ParameterValue, Schedule};
use super::RunError;
use crate::choice::nearest;
use crate::error::LabelError;
use crate::ingest::features::ColumnNames;
use crate::parser::{Supervision, TrainSettings};
use crate::world::Both;
use crate::world::settings::{RuleName, SettingsRequest, ThresholdsFile};
use crate::world::shares::EventShares;

/// Text of a file with every key, its default and its meaning.
pub const DEFAULT: &str = include_str!("default.toml");

/// The settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Store to write. The run creates it if it does not exist.
    pub store: PathBuf,
    /// Supervisions of the baselines: parsers that are trained on the labels of PLG, for comparison.
    pub baselines: Vec<Supervision>,
    /// Videos and weak labels.
    pub data: Data,
    /// Media to encode before labelling. `None`: `features` names the features of both modalities.
    #[cfg(feature = "encode")]
    pub media: Option<MediaConfig>,
    /// Features that are labelled.
    pub features: FeaturesConfig,
    /// Features that the parser learns from.
    pub train_features: TrainFeatures,
    /// Settings of PLG.
    pub label: Label,
    /// Settings of the training.
    pub train: TrainSettings,
    /// Settings of PLD.
    pub denoise: Denoise,
}

/// Videos and weak labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// Annotation folder in LLP's or AVE's format.
    pub annotations: PathBuf,
    /// File with the class names in order, one per line. `None`: `classes.txt` of the annotations, or the default
    /// classes of the format.
    pub classes: Option<PathBuf>,
    /// Splits to label.
    pub splits: Vec<Split>,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
}

/// Media to encode into the store, and the models that encode them.
#[cfg(feature = "encode")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaConfig {
    /// Folders of video files, sound files and folders of frames.
    pub paths: Vec<PathBuf>,
    /// Model folder for pictures. `None`: `features` names the visual features.
    pub clip: Option<PathBuf>,
    /// Model folder for sound. `None`: `features` names the audio features.
    pub clap: Option<PathBuf>,
    /// File with the prompts of the classes. `None`: the default prompts.
    pub prompts: Option<PathBuf>,
    /// Number of segments of every video. `None`: the duration of the video determines the number.
    pub segments: Option<usize>,
    /// Frames per second, of folders of frames and of frames taken from videos.
    pub frame_rate: f64,
    /// Program ffmpeg.
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

/// Features and text embeddings that are labelled. Both are `None` for a modality that is encoded.
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
    /// Names of the columns of Parquet features. `None`: the default names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnNames>,
}

/// Features that the parser learns from. `None`: the labelled features.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainFeatures {
    /// Visual features.
    pub visual: Option<PathBuf>,
    /// Audio features.
    pub audio: Option<PathBuf>,
    /// Clip features, such as R(2+1)D. `None`: the network takes none.
    pub clips: Option<PathBuf>,
    /// Names of the columns of Parquet features. `None`: those of the labelled features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnNames>,
}

/// Settings of PLG. A key that is `None` has the default of `label`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Label {
    /// Rule that turns cosines into scores.
    pub rule: Option<RuleName>,
    /// Threshold of every visual class.
    pub visual_threshold: Option<f64>,
    /// Threshold of every audio class.
    pub audio_threshold: Option<f64>,
    /// Factor κ that multiplies visual cosines.
    pub visual_scale: Option<f64>,
    /// Factor κ that multiplies audio cosines.
    pub audio_scale: Option<f64>,
    /// TOML file with thresholds per class, as `calibrate` writes it.
    pub thresholds: Option<PathBuf>,
    /// Whether the thresholds are fitted to the weak labels. `None`: they are fitted if no other key gives a threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit_thresholds: Option<bool>,
    /// Classes that can be labelled in a video without a weak label. `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<CandidateRule>,
    /// Share of the segments of a class's videos that have the audio event, for the fit. `None`: the fit estimates the share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_event_share: Option<f64>,
    /// The same for the visual event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visual_event_share: Option<f64>,
}

impl Label {
    /// Whether the thresholds are fitted to the weak labels.
    fn fits(&self) -> bool {
        let given =
            self.visual_threshold.is_some() || self.audio_threshold.is_some() || self.thresholds.is_some();
        self.fit_thresholds.unwrap_or(!given)
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

impl Config {
    /// Reads and checks a file. Returns the settings and the text of the file. Relative paths of the file are joined to
    /// its folder.
    ///
    /// # Errors
    /// Returns [`RunError::Config`] with the file, the key and the expected value, if the file cannot be read or a key
    /// is invalid.
    pub fn read(path: &Path) -> Result<(Config, Arc<str>), RunError> {
        let bad = |problem: String| RunError::Config {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let config = Config::parse(&text).map_err(bad)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok((config.below(folder).map_err(bad)?, text.into()))
    }

    /// Reads and checks the text of a file. Paths stay as they are.
    ///
    /// # Errors
    /// Returns a message with the key, its value and the expected value, if a key is invalid.
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| said(&error))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.train.check().map_err(|error| format!("[train] {error}"))?;
        self.denoising().map_err(|error| format!("[denoise] {error}"))?;
        for (key, share) in [
            ("audio_event_share", self.label.audio_event_share),
            ("visual_event_share", self.label.visual_event_share),
        ] {
            let Some(share) = share else { continue };
            EventShares::check(share).map_err(|problem| format!("[label] {key}: {problem}"))?;
            if !self.label.fits() {
                return Err(format!(
                    "[label] has {key}, and its thresholds are given, expected fit_thresholds = true beside it"
                ));
            }
        }
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

    /// Checks that each modality has either both features and texts in `[features]`, or a model in `[media]`.
    fn check_features(&self) -> Result<(), String> {
        let FeaturesConfig {
            visual,
            audio,
            visual_text,
            audio_text,
            columns: _,
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

    /// Returns the key and the folder of the model that encodes a modality. `None` if no model does.
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

    /// Joins every relative path to `folder`. A `file` URL becomes the local path that it names.
    ///
    /// # Errors
    /// Returns a message if a path is a URL that cannot be used.
    fn below(mut self, folder: &Path) -> Result<Config, String> {
        let mut wrong = None;
        let mut own = |path: &mut PathBuf| match local_path(path) {
            Ok(Some(local)) => *path = folder.join(local),
            Ok(None) => {}
            Err(error) => wrong = Some(error.to_string()),
        };
        own(&mut self.store);
        own(&mut self.data.annotations);
        self.data.classes.iter_mut().for_each(&mut own);
        let FeaturesConfig {
            visual,
            audio,
            visual_text,
            audio_text,
            columns: _,
        } = &mut self.features;
        let train = &mut self.train_features;
        let features = [visual, audio, visual_text, audio_text];
        let trained = [&mut train.visual, &mut train.audio, &mut train.clips];
        features
            .into_iter()
            .chain(trained)
            .chain([&mut self.label.thresholds])
            .flatten()
            .for_each(&mut own);
        #[cfg(feature = "encode")]
        if let Some(media) = &mut self.media {
            media.paths.iter_mut().for_each(&mut own);
            [&mut media.clip, &mut media.clap, &mut media.prompts]
                .into_iter()
                .flatten()
                .for_each(&mut own);
        }
        match wrong {
            Some(problem) => Err(problem),
            None => Ok(self),
        }
    }

    /// Returns the names of the columns of the labelled features, then those of the features that the parser learns from.
    pub fn columns(&self) -> [ColumnNames; 2] {
        let labelled = self.features.columns.clone().unwrap_or_default();
        let learnt = self.train_features.columns.clone();
        [labelled.clone(), learnt.unwrap_or(labelled)]
    }

    /// Returns the denoising rule of each modality that is denoised.
    pub fn denoising(&self) -> Result<Both<Option<DenoisingRule>>, String> {
        let rule = self.denoise.rule()?;
        let mut both = [None, None];
        let off = self.denoise.schedule == Schedule::Off;
        for modality in self.denoise.modalities.iter().filter(|_| !off) {
            both[modality.index()] = Some(rule);
        }
        Ok(both)
    }

    /// Returns rule, scales and thresholds as a labelling request takes them.
    ///
    /// # Errors
    /// Returns [`LabelError::Settings`] if the thresholds file cannot be read.
    pub fn settings(&self) -> Result<SettingsRequest, LabelError> {
        let Label {
            rule,
            visual_threshold,
            audio_threshold,
            visual_scale,
            audio_scale,
            thresholds,
            fit_thresholds: _,
            candidates,
            audio_event_share,
            visual_event_share,
        } = self.label.clone();
        Ok(SettingsRequest {
            rule,
            visual_threshold,
            audio_threshold,
            visual_scale,
            audio_scale,
            file: thresholds.as_deref().map(ThresholdsFile::read).transpose()?,
            fit: self.label.fits(),
            candidates,
            event_shares: EventShares([audio_event_share, visual_event_share]),
        })
    }
}

/// Returns the message of the TOML parser. For an unknown key, it also names the nearest valid key.
fn said(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let mut words = error.message().split('`').skip(1).step_by(2);
    let unknown = words
        .next()
        .filter(|_| error.message().starts_with("unknown field"));
    let nearest = unknown.and_then(|unknown| nearest(unknown, words));
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
        assert_eq!(
            with("[denoise]\nk = 0"),
            "[denoise] k is 0, expected a whole number from 1 to 2147483647"
        );
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
    fn candidates_of_the_file_are_those_of_the_label_request() {
        let features = "[features]\nvisual = 'v'\naudio = 'a'\nvisual_text = 'vt'\naudio_text = 'at'\n";
        let of = |label: &str| Config::parse(&format!("{features}[label]\n{label}\n"));
        let settings = of("candidates = 'top:3'").unwrap().settings().unwrap();
        assert_eq!(settings.candidates, Some(CandidateRule::Top(3)));
        assert_eq!(of("").unwrap().settings().unwrap().candidates, None);
        let refused = of("candidates = 'best'").unwrap_err();
        assert!(
            refused.contains("candidates is `best`, expected `weak`, `all` or `top:K`"),
            "{refused}"
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

        let with = |store: &str| text.replace("'S'", &format!("'{store}'"));
        for (store, read) in [("file:///a%20b", "/a b"), ("s3://bucket/S", "s3://bucket/S")] {
            std::fs::write(&path, with(store)).unwrap();
            assert_eq!(Config::read(&path).unwrap().0.store, Path::new(read));
        }
        std::fs::write(&path, with("file://host/S")).unwrap();
        let refused = Config::read(&path).unwrap_err().to_string();
        assert!(
            refused.contains("`file://host/S`: no path of this machine"),
            "{refused}"
        );
    }
}
