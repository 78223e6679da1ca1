//! Rule, scales and thresholds: flags over file over defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::rule::Rule;
use vaplan_schemas::{ClassId, Modality};

use crate::choice::Choice;
use crate::error::LabelError;
use crate::ingest::annotations::unknown_class;

/// Threshold of rule `softmax` relative to uniform, visual (METHOD.md, PLG 3, grade D: 0.041 at C = 25).
pub const VISUAL_THRESHOLD: f64 = 1.025;
/// Threshold of rule `softmax` relative to uniform, audio (grade D: 0.038 at C = 25).
pub const AUDIO_THRESHOLD: f64 = 0.95;
/// Scale of rule `softmax` (grade D).
pub const SOFTMAX_SCALE: f64 = 1.0;
/// Logit scale of OpenAI's CLIP (ENCODERS.md).
pub const CLIP_SCALE: f64 = 100.0;
/// Logit scale of LAION's clap-htsat-unfused (ENCODERS.md, reported).
pub const CLAP_SCALE: f64 = 18.66;

/// Name of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleName {
    /// Softmax over the classes; thresholds relative to uniform.
    Softmax,
    /// Scaled cosine; absolute thresholds.
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

/// What flags say; none: the file, or the default.
#[derive(Clone, Debug, Default)]
pub struct SettingsRequest {
    /// Rule of both modalities.
    pub rule: Option<RuleName>,
    /// Threshold of every visual class.
    pub visual_threshold: Option<f64>,
    /// Threshold of every audio class.
    pub audio_threshold: Option<f64>,
    /// κ of visual.
    pub visual_scale: Option<f64>,
    /// κ of audio.
    pub audio_scale: Option<f64>,
    /// TOML with thresholds per class.
    pub file: Option<PathBuf>,
}

impl SettingsRequest {
    /// Both modalities, each of its threshold and scale of the flags and its part of the file.
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
        })
    }
}

/// Threshold and scale that flags say of a modality.
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
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleName>,
    #[serde(default)]
    audio: ModalityFile,
    #[serde(default)]
    visual: ModalityFile,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ModalityFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    classes: BTreeMap<String, f64>,
}

/// How one modality is labelled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModalitySettings {
    /// Rule and scale.
    pub rule: Rule,
    /// Threshold of each class, as a user gives it: see [`Rule::cutoff`].
    pub thresholds: Vec<f64>,
}

impl ModalitySettings {
    fn rule_name(&self) -> RuleName {
        match self.rule {
            Rule::Softmax { .. } => RuleName::Softmax,
            Rule::Logit { .. } => RuleName::Logit,
        }
    }

    /// What the scores of a class are compared with.
    pub fn cutoff(&self, class: ClassId) -> f64 {
        self.rule
            .cutoff(self.thresholds[class.index()], self.thresholds.len())
    }
}

/// How both modalities are labelled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelSettings {
    /// Of audio.
    pub audio: ModalitySettings,
    /// Of visual.
    pub visual: ModalitySettings,
}

impl LabelSettings {
    /// Settles every class of both modalities.
    ///
    /// # Errors
    /// [`LabelError::Settings`] for a file that cannot be read, an unknown key or class, a number that is none, or
    /// rule `logit` without thresholds.
    pub fn resolve(request: &SettingsRequest, classes: &[Arc<str>]) -> Result<LabelSettings, LabelError> {
        let file = match &request.file {
            Some(path) => read(path, classes)?,
            None => SettingsFile::default(),
        };
        let rule = request.rule.or(file.rule).unwrap_or(RuleName::Softmax);
        let of = |modality, flags: Flags, file: &ModalityFile| {
            modality_settings(modality, rule, flags, file, classes, None)
        };
        request.each(&file, of)
    }

    /// These settings for other classes, and with what a request and single thresholds say otherwise.
    ///
    /// What is not named stays: a file without `default` leaves the classes it does not list. Another rule takes the
    /// defaults of that rule. `before` are the classes that these settings are for.
    ///
    /// # Errors
    /// As [`Settings::resolve`], and for a threshold of an unknown class.
    pub fn changed(
        &self,
        before: &[Arc<str>],
        classes: &[Arc<str>],
        request: &SettingsRequest,
        single: &[ClassThreshold],
    ) -> Result<LabelSettings, LabelError> {
        let file = match &request.file {
            Some(path) => read(path, classes)?,
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
        request.each(&file, of)
    }

    /// A thresholds file that says them: one threshold where all classes have the same, else one for each.
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

    /// Of a modality.
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
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// As a user gives it: see [`Rule::cutoff`].
    pub threshold: f64,
}

/// What holds where nothing else is said.
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
        // What a good logit is differs from model to model: no number of ours would do.
        (None, RuleName::Logit, _) => None,
    };
    let mut thresholds = Vec::with_capacity(classes.len());
    for (position, class) in classes.iter().enumerate() {
        // A flag says it for every class, the file's list included.
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

fn read(path: &Path, classes: &[Arc<str>]) -> Result<SettingsFile, LabelError> {
    let bad =
        |problem: String| LabelError::Settings(format!("thresholds file `{}`: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let file: SettingsFile =
        toml::from_str(&text).map_err(|error| bad(error.to_string().trim().to_owned()))?;
    for (section, listed) in [("audio", &file.audio.classes), ("visual", &file.visual.classes)] {
        if let Some(unknown) = listed
            .keys()
            .find(|name| !classes.iter().any(|class| **class == ***name))
        {
            let nearest = nearest(unknown, classes).unwrap_or_default();
            return Err(bad(format!(
                "[{section}.classes] has `{unknown}`, no class of the annotations (nearest: `{nearest}`)"
            )));
        }
    }
    Ok(file)
}

fn nearest<'a>(name: &str, classes: &'a [Arc<str>]) -> Option<&'a str> {
    let likeness = |class: &str| strsim::jaro_winkler(name, class);
    classes
        .iter()
        .map(|class| &**class)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<Arc<str>> {
        ["Speech", "Dog"].map(Arc::from).to_vec()
    }

    fn file(text: &str) -> (tempfile::TempDir, SettingsRequest) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        (
            folder,
            SettingsRequest {
                file: Some(path),
                ..SettingsRequest::default()
            },
        )
    }

    #[test]
    fn defaults_are_those_of_the_method() {
        let settings = LabelSettings::resolve(&SettingsRequest::default(), &classes()).unwrap();
        assert_eq!(settings.visual.thresholds, [1.025, 1.025]);
        assert_eq!(settings.audio.cutoff(ClassId(1)), 0.475);
        assert_eq!(settings.visual.rule, Rule::Softmax { scale: 1.0 });
    }

    #[test]
    fn a_class_of_the_file_stands_over_its_default_and_a_flag_over_both() {
        let (_folder, mut request) = file("[visual]\ndefault = 1.5\n[visual.classes]\nDog = 2\n");
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
        assert_eq!(settings.audio.cutoff(ClassId(0)), 4.0);
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let (_folder, request) = file("[visual]\ndefault = 1.5\n[visual.classes]\nDog = 2\n");
        let before = LabelSettings::resolve(&request, &classes()).unwrap();
        let (_other, request) = file("[visual.classes]\nSpeech = 1.25\n");
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
        // A class that is new takes the default, one that stays its own, in whatever order.
        let more: Vec<Arc<str>> = ["Dog", "Cat", "Speech"].map(Arc::from).to_vec();
        let after = after
            .changed(&classes, &more, &SettingsRequest::default(), &[])
            .unwrap();
        assert_eq!(after.visual.thresholds, [2.0, VISUAL_THRESHOLD, 1.25]);
        // Another rule has thresholds of its own.
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
        let (_folder, request) = file("[visul]\ndefault = 1.5\n");
        let refused = LabelSettings::resolve(&request, &classes())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("unknown field `visul`, expected one of `rule`, `audio`, `visual`"),
            "{refused}"
        );
        let (_folder, request) = file("[audio.classes]\nDgo = 1.5\n");
        let refused = LabelSettings::resolve(&request, &classes())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("[audio.classes] has `Dgo`, no class of the annotations (nearest: `Dog`)"),
            "{refused}"
        );
    }
}
