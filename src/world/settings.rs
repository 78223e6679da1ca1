//! Rule, scales and thresholds. A command-line flag takes precedence over the thresholds file, and the file over the
//! defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::CandidateRule;
use vaplan_dataflows::rule::Rule;
use vaplan_schemas::{ClassId, Modality};

use super::shares::EventShares;
use crate::choice::{Choice, nearest};
use crate::error::LabelError;
use crate::ingest::annotations::unknown_class;

/// Default visual threshold of rule `softmax`, relative to uniform (docs/method.md, PLG 3, grade D: 0.041 at C = 25).
pub const VISUAL_THRESHOLD: f64 = 1.025;
/// Default audio threshold of rule `softmax`, relative to uniform (docs/method.md, PLG 3, grade D: 0.038 at C = 25).
pub const AUDIO_THRESHOLD: f64 = 0.95;
/// Default scale of rule `softmax` (grade D).
pub const SOFTMAX_SCALE: f64 = 1.0;
/// Default visual scale of rule `logit`: the logit scale of OpenAI's CLIP.
pub const CLIP_SCALE: f64 = 100.0;
/// Default audio scale of rule `logit`: the logit scale of LAION's clap-htsat-unfused (as reported; the file itself was not read).
pub const CLAP_SCALE: f64 = 18.66;

/// Name of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleName {
    /// Softmax over all classes, with thresholds relative to the uniform probability 1/C.
    Softmax,
    /// Cosine times scale, with absolute thresholds.
    Logit,
}

impl Choice for RuleName {
    const WHAT: &'static str = "rule";
    const ALL: &'static [(RuleName, &'static str, &'static str)] = &[
        (
            RuleName::Softmax,
            "softmax",
            "Softmax over all classes; thresholds are relative to the uniform probability 1/C",
        ),
        (
            RuleName::Logit,
            "logit",
            "Cosine times scale; thresholds are absolute",
        ),
    ];
}

/// The contents of a thresholds file, read by [`ThresholdsFile::read`].
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdsFile {
    /// Path of the file, for messages.
    path: PathBuf,
    settings: SettingsFile,
}

impl ThresholdsFile {
    /// Reads a thresholds file. [`LabelSettings::resolve`] checks its classes.
    ///
    /// # Errors
    /// Returns [`LabelError::Settings`] if the file cannot be read, or has an unknown key or a value of a wrong type.
    pub fn read(path: &Path) -> Result<ThresholdsFile, LabelError> {
        let bad = |problem: String| bad_file(path, problem);
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let settings = toml::from_str(&text).map_err(|error| bad(error.to_string().trim().to_owned()))?;
        Ok(ThresholdsFile {
            path: path.to_owned(),
            settings,
        })
    }

    /// The settings, after a check that every class of the file is known.
    fn check(&self, classes: &[Arc<str>]) -> Result<SettingsFile, LabelError> {
        let (audio, visual) = (&self.settings.audio.classes, &self.settings.visual.classes);
        for (section, listed) in [("audio", audio), ("visual", visual)] {
            let is_unknown = |name: &&String| !classes.iter().any(|class| **class == ***name);
            if let Some(unknown) = listed.keys().find(is_unknown) {
                let nearest = nearest(unknown, classes.iter().map(|class| &**class)).unwrap_or_default();
                return Err(bad_file(
                    &self.path,
                    format!(
                        "[{section}.classes] has `{unknown}`, no class of the annotations (nearest: `{nearest}`)"
                    ),
                ));
            }
        }
        Ok(self.settings.clone())
    }
}

fn bad_file(path: &Path, problem: String) -> LabelError {
    LabelError::Settings(format!("thresholds file `{}`: {problem}", path.display()))
}

/// Settings that the command-line flags give. `None` takes the value of the file, or the default.
#[derive(Clone, Debug, Default)]
pub struct SettingsRequest {
    /// Rule of both modalities.
    pub rule: Option<RuleName>,
    /// Threshold of every visual class.
    pub visual_threshold: Option<f64>,
    /// Threshold of every audio class.
    pub audio_threshold: Option<f64>,
    /// Scale κ of the visual modality.
    pub visual_scale: Option<f64>,
    /// Scale κ of the audio modality.
    pub audio_scale: Option<f64>,
    /// Contents of a thresholds file: rule, scales and thresholds, also per class.
    pub file: Option<ThresholdsFile>,
    /// Whether the thresholds of all classes are fitted to the weak labels ([`crate::label::fit`]). Classes that cannot be
    /// fitted take the thresholds of the other fields. Only `label` and `run` fit.
    pub fit: bool,
    /// The classes that can be labelled in a video without a weak label. `None`: [`CandidateRule::Weak`], or the rule of the
    /// store in a change.
    pub candidates: Option<CandidateRule>,
    /// Shares of events for the fit, by modality; `None` lets the fit estimate the share.
    pub event_shares: EventShares,
}

impl SettingsRequest {
    /// Calls `of` for each modality, with the flags of the modality and its section of the file.
    fn each(
        &self,
        file: &SettingsFile,
        of: impl Fn(Modality, Flags, &ModalityFile) -> Result<ModalitySettings, LabelError>,
    ) -> Result<LabelSettings, LabelError> {
        let audio = (self.audio_threshold, self.audio_scale);
        let visual = (self.visual_threshold, self.visual_scale);
        Ok(LabelSettings {
            audio: of(Modality::Audio, audio, &file.audio)?,
            visual: of(Modality::Visual, visual, &file.visual)?,
            candidates: self.candidates.unwrap_or_default(),
        })
    }
}

/// Threshold and scale of a modality from the command-line flags.
type Flags = (Option<f64>, Option<f64>);

/// A thresholds file.
///
/// ```toml
/// rule = "softmax"          # or "logit"
/// [visual]
/// scale = 1.0
/// default = 1.025           # of classes that are not listed
/// [visual.classes]
/// "Speech" = 1.1
/// [audio]
/// default = 0.95
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleName>,
    #[serde(default)]
    audio: ModalityFile,
    #[serde(default)]
    visual: ModalityFile,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ModalityFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    classes: BTreeMap<String, f64>,
}

/// Rule and thresholds of one modality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModalitySettings {
    /// Rule and scale.
    pub rule: Rule,
    /// Threshold of each class as the user gives it; [`Rule::score_threshold`] converts it to a threshold of scores.
    pub thresholds: Vec<f64>,
}

impl ModalitySettings {
    fn rule_name(&self) -> RuleName {
        match self.rule {
            Rule::Softmax { .. } => RuleName::Softmax,
            Rule::Logit { .. } => RuleName::Logit,
        }
    }

    /// The threshold that the scores of a class are compared with.
    pub fn score_threshold(&self, class: ClassId) -> f64 {
        self.rule
            .score_threshold(self.thresholds[class.index()], self.thresholds.len())
    }
}

/// Rules and thresholds of both modalities.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelSettings {
    /// Settings of the audio modality.
    pub audio: ModalitySettings,
    /// Settings of the visual modality.
    pub visual: ModalitySettings,
    /// The classes that can be labelled in a video without a weak label. The hash of the settings of older programs has no
    /// such key.
    #[serde(skip_serializing_if = "is_weak")]
    pub candidates: CandidateRule,
}

fn is_weak(rule: &CandidateRule) -> bool {
    *rule == CandidateRule::Weak
}

impl LabelSettings {
    /// Determines rule, scale and the threshold of every class for both modalities.
    ///
    /// # Errors
    /// Returns [`LabelError::Settings`] if the file cannot be read, a key or class is unknown, a scale or threshold
    /// is not a valid number, or rule `logit` has no threshold for a class.
    pub fn resolve(request: &SettingsRequest, classes: &[Arc<str>]) -> Result<LabelSettings, LabelError> {
        let file = match &request.file {
            Some(file) => file.check(classes)?,
            None => SettingsFile::default(),
        };
        let rule = request.rule.or(file.rule).unwrap_or(RuleName::Softmax);
        let of = |modality, flags: Flags, file: &ModalityFile| {
            modality_settings(modality, rule, flags, file, classes, None)
        };
        request.each(&file, of)
    }

    /// The settings for the classes `classes`, changed by a request and by thresholds of single classes.
    ///
    /// Values that the request does not name stay: a file without `default` keeps the thresholds of the classes that
    /// it does not list. If the rule changes, its defaults replace the earlier values. `before` has the classes that
    /// `self` was made for.
    ///
    /// # Errors
    /// Returns the errors of [`LabelSettings::resolve`], and [`LabelError::Settings`] if a single threshold is of an
    /// unknown class.
    pub fn changed(
        &self,
        before: &[Arc<str>],
        classes: &[Arc<str>],
        request: &SettingsRequest,
        single: &[ClassThreshold],
    ) -> Result<LabelSettings, LabelError> {
        let file = match &request.file {
            Some(file) => file.check(classes)?,
            None => SettingsFile::default(),
        };
        let rule = request.rule.or(file.rule);
        let of = |modality, flags, file: &ModalityFile| {
            let now = self.of(modality);
            let name = now.rule_name();
            let rule = rule.unwrap_or(name);
            let base = (rule == name).then(|| Base {
                scale: now.rule.scale(),
                thresholds: classes
                    .iter()
                    .map(|class| Some(now.thresholds[before.iter().position(|known| known == class)?]))
                    .collect(),
            });
            let mut settings = modality_settings(modality, rule, flags, file, classes, base.as_ref())?;
            for change in single.iter().filter(|change| change.modality == modality) {
                let Some(position) = classes.iter().position(|class| *class == change.class) else {
                    return Err(LabelError::Settings(format!(
                        "threshold of {modality}: {}",
                        unknown_class(&change.class, classes)
                    )));
                };
                settings.thresholds[position] = finite(modality, &change.class, change.threshold)?;
            }
            Ok(settings)
        };
        let settings = request.each(&file, of)?;
        Ok(LabelSettings {
            candidates: request.candidates.unwrap_or(self.candidates),
            ..settings
        })
    }

    /// A thresholds file with these settings. If all classes have the same threshold, the file has one `default`;
    /// otherwise it has one threshold per class.
    pub fn to_toml(&self, classes: &[Arc<str>]) -> String {
        let file = |modality| {
            let own = self.of(modality);
            let mut file = ModalityFile {
                scale: Some(own.rule.scale()),
                ..ModalityFile::default()
            };
            match own.thresholds.split_first() {
                Some((first, others)) if others.iter().all(|other| other == first) => {
                    file.default = Some(*first)
                }
                _ => {
                    let names = classes.iter().map(|class| class.to_string());
                    file.classes = names.zip(own.thresholds.iter().copied()).collect();
                }
            }
            file
        };
        let file = SettingsFile {
            rule: Some(self.audio.rule_name()),
            audio: file(Modality::Audio),
            visual: file(Modality::Visual),
        };
        toml::to_string(&file).expect("numbers and names are TOML")
    }

    /// The settings of a modality.
    pub fn of(&self, modality: Modality) -> &ModalitySettings {
        match modality {
            Modality::Audio => &self.audio,
            Modality::Visual => &self.visual,
        }
    }
}

/// The threshold of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassThreshold {
    /// Modality that the threshold applies to.
    pub modality: Modality,
    /// Name of the class.
    pub class: Arc<str>,
    /// Threshold as the user gives it; see [`Rule::score_threshold`].
    pub threshold: f64,
}

/// Scale and thresholds before a change, which stay if the change does not name them. A new class has no threshold
/// here.
struct Base {
    scale: f64,
    thresholds: Vec<Option<f64>>,
}

fn modality_settings(
    modality: Modality,
    rule: RuleName,
    (threshold, scale): Flags,
    file: &ModalityFile,
    classes: &[Arc<str>],
    base: Option<&Base>,
) -> Result<ModalitySettings, LabelError> {
    let scale = scale.or(file.scale).or(base.map(|base| base.scale));
    let scale = scale.unwrap_or(match (rule, modality) {
        (RuleName::Softmax, _) => SOFTMAX_SCALE,
        (RuleName::Logit, Modality::Visual) => CLIP_SCALE,
        (RuleName::Logit, Modality::Audio) => CLAP_SCALE,
    });
    if !(scale.is_finite() && scale > 0.0) {
        return Err(LabelError::Settings(format!(
            "{modality} scale is {scale}, expected a number above 0"
        )));
    }
    let default = match (threshold.or(file.default), rule, modality) {
        (Some(threshold), ..) => Some(threshold),
        (None, RuleName::Softmax, Modality::Visual) => Some(VISUAL_THRESHOLD),
        (None, RuleName::Softmax, Modality::Audio) => Some(AUDIO_THRESHOLD),
        // Rule `logit` has no default threshold: the range of good logits differs from encoder to encoder.
        (None, RuleName::Logit, _) => None,
    };
    let mut thresholds = Vec::with_capacity(classes.len());
    for (position, class) in classes.iter().enumerate() {
        // The flag applies to every class, also to the classes that the file lists.
        let own = if threshold.is_some() {
            None
        } else {
            file.classes.get(&**class).copied()
        };
        let given = own.or(threshold.or(file.default));
        let kept = base.and_then(|base| base.thresholds[position]);
        let chosen = given.or(kept).or(default).ok_or_else(|| {
            LabelError::Settings(format!(
                "rule `logit` has no {modality} threshold for class `{class}`, expected --{modality}-threshold or a \
                 thresholds file"
            ))
        })?;
        thresholds.push(finite(modality, class, chosen)?);
    }
    let rule = match rule {
        RuleName::Softmax => Rule::Softmax { scale },
        RuleName::Logit => Rule::Logit { scale },
    };
    Ok(ModalitySettings { rule, thresholds })
}

fn finite(modality: Modality, class: &str, threshold: f64) -> Result<f64, LabelError> {
    if threshold.is_finite() {
        return Ok(threshold);
    }
    Err(LabelError::Settings(format!(
        "{modality} threshold of class `{class}` is {threshold}, expected a finite number"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<Arc<str>> {
        ["Speech", "Dog"].map(Arc::from).to_vec()
    }

    fn read(text: &str) -> Result<ThresholdsFile, LabelError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        ThresholdsFile::read(&path)
    }

    fn file(text: &str) -> SettingsRequest {
        SettingsRequest {
            file: Some(read(text).unwrap()),
            ..SettingsRequest::default()
        }
    }

    #[test]
    fn defaults_are_those_of_the_method() {
        let settings = LabelSettings::resolve(&SettingsRequest::default(), &classes()).unwrap();
        assert_eq!(settings.visual.thresholds, [1.025, 1.025]);
        assert_eq!(settings.audio.score_threshold(ClassId(1)), 0.475);
        assert_eq!(settings.visual.rule, Rule::Softmax { scale: 1.0 });
    }

    #[test]
    fn a_class_of_the_file_stands_over_its_default_and_a_flag_over_both() {
        let mut request = file("[visual]\ndefault = 1.5\n[visual.classes]\nDog = 2\n");
        let settings = LabelSettings::resolve(&request, &classes()).unwrap();
        assert_eq!(settings.visual.thresholds, [1.5, 2.0]);
        request.visual_threshold = Some(3.0);
        let settings = LabelSettings::resolve(&request, &classes()).unwrap();
        assert_eq!(settings.visual.thresholds, [3.0, 3.0]);
    }

    #[test]
    fn rule_logit_wants_thresholds_and_takes_the_encoders_scales() {
        let mut request = SettingsRequest {
            rule: Some(RuleName::Logit),
            ..SettingsRequest::default()
        };
        let refused = LabelSettings::resolve(&request, &classes())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("no audio threshold for class `Speech`"),
            "{refused}"
        );
        (request.audio_threshold, request.visual_threshold) = (Some(4.0), Some(21.0));
        let settings = LabelSettings::resolve(&request, &classes()).unwrap();
        assert_eq!(
            (settings.visual.rule.scale(), settings.audio.rule.scale()),
            (100.0, 18.66)
        );
        assert_eq!(settings.audio.score_threshold(ClassId(0)), 4.0);
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let request = file("[visual]\ndefault = 1.5\n[visual.classes]\nDog = 2\n");
        let before = LabelSettings::resolve(&request, &classes()).unwrap();
        let request = file("[visual.classes]\nSpeech = 1.25\n");
        let single = ClassThreshold {
            modality: Modality::Audio,
            class: "Dog".into(),
            threshold: 0.5,
        };
        let classes = classes();
        let after = before
            .changed(&classes, &classes, &request, std::slice::from_ref(&single))
            .unwrap();
        assert_eq!(after.visual.thresholds, [1.25, 2.0]);
        assert_eq!(after.audio.thresholds, [AUDIO_THRESHOLD, 0.5]);
        // A new class takes the default. A class that stays keeps its threshold, in any order of the classes.
        let more: Vec<Arc<str>> = ["Dog", "Cat", "Speech"].map(Arc::from).to_vec();
        let after = after
            .changed(&classes, &more, &SettingsRequest::default(), &[])
            .unwrap();
        assert_eq!(after.visual.thresholds, [2.0, VISUAL_THRESHOLD, 1.25]);
        // Another rule does not keep the earlier thresholds, because its scores have another range.
        let logit = SettingsRequest {
            rule: Some(RuleName::Logit),
            ..SettingsRequest::default()
        };
        let refused = after
            .changed(&more, &more, &logit, &[single])
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("no audio threshold for class `Dog`"),
            "{refused}"
        );
    }

    #[test]
    fn an_unknown_key_or_class_is_refused_with_what_would_do() {
        let refused = read("[visul]\ndefault = 1.5\n").unwrap_err().to_string();
        assert!(
            refused.contains("unknown field `visul`, expected one of `rule`, `audio`, `visual`"),
            "{refused}"
        );
        let request = file("[audio.classes]\nDgo = 1.5\n");
        let refused = LabelSettings::resolve(&request, &classes())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("[audio.classes] has `Dgo`, no class of the annotations (nearest: `Dog`)"),
            "{refused}"
        );
    }
}
