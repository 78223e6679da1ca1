//! Makes the prompts of each class and modality.
//!
//! ```toml
//! [visual]
//! templates = ["A photo of {class}.", "A picture of {class}."]   # several: the mean of their embeddings is used
//! [visual.classes]
//! Baby_cry_infant_cry = "A photo of a crying baby."               # replaces the templates; can be a list
//! [audio]
//! templates = ["This is a sound of {class}."]
//! ```
//!
//! `{class}` is replaced by the name of the class in words: `Frying_(food)` becomes `frying food`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use vaplan_schemas::Modality;

use crate::ingest::annotations::unknown_class;

/// Default templates: one for visual, one for audio.
const VISUAL: &str = "A photo of {class}.";
const AUDIO: &str = "This is a sound of {class}.";

/// The reason why a prompts file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("prompts `{path}`: {problem}")]
pub struct PromptsError {
    /// Path of the prompts file.
    pub path: PathBuf,
    /// What was found, and what was expected.
    pub problem: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptsFile {
    #[serde(default)]
    audio: ModalityPrompts,
    #[serde(default)]
    visual: ModalityPrompts,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModalityPrompts {
    templates: Option<OneOrMore>,
    #[serde(default)]
    classes: BTreeMap<String, OneOrMore>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn list(&self) -> Vec<String> {
        match self {
            OneOrMore::One(text) => vec![text.clone()],
            OneOrMore::More(texts) => texts.clone(),
        }
    }
}

/// The prompts of every class, in the order of the classes. Each class has one prompt or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassPrompts {
    /// Prompts for the audio model.
    pub audio: Vec<Vec<String>>,
    /// Prompts for the vision model.
    pub visual: Vec<Vec<String>>,
}

impl ClassPrompts {
    /// Reads the prompts of a file; without a file, makes the default prompts.
    ///
    /// # Errors
    /// Returns [`PromptsError`] if the file cannot be read, has an unknown key or class, or gives a class an empty
    /// prompt or none.
    pub fn read(file: Option<&Path>, classes: &[Arc<str>]) -> Result<ClassPrompts, PromptsError> {
        ClassPrompts::read_with(file, classes, AUDIO)
    }

    /// Does the same as [`ClassPrompts::read`], except that the default audio prompt is the name of the class alone. A
    /// classifier of sound needs this, because its scores have names and not sentences.
    ///
    /// # Errors
    /// Returns the errors of [`ClassPrompts::read`].
    pub fn read_names(file: Option<&Path>, classes: &[Arc<str>]) -> Result<ClassPrompts, PromptsError> {
        ClassPrompts::read_with(file, classes, "{class}")
    }

    fn read_with(
        file: Option<&Path>,
        classes: &[Arc<str>],
        audio: &str,
    ) -> Result<ClassPrompts, PromptsError> {
        let Some(path) = file else {
            return Ok(
                ClassPrompts::new(PromptsFile::default(), classes, audio).expect("the defaults are right")
            );
        };
        let bad = |problem: String| PromptsError {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
        let file = toml::from_str(&text).map_err(|error| bad(error.to_string().trim().to_owned()))?;
        ClassPrompts::new(file, classes, audio).map_err(bad)
    }

    fn new(file: PromptsFile, classes: &[Arc<str>], audio: &str) -> Result<ClassPrompts, String> {
        Ok(ClassPrompts {
            audio: of("audio", &file.audio, audio, classes)?,
            visual: of("visual", &file.visual, VISUAL, classes)?,
        })
    }

    /// Returns the prompts of a modality.
    pub fn of(&self, modality: Modality) -> &[Vec<String>] {
        match modality {
            Modality::Audio => &self.audio,
            Modality::Visual => &self.visual,
        }
    }
}

fn of(
    section: &str,
    settings: &ModalityPrompts,
    default: &str,
    classes: &[Arc<str>],
) -> Result<Vec<Vec<String>>, String> {
    if let Some(class) = settings
        .classes
        .keys()
        .find(|name| !classes.iter().any(|class| **class == ***name))
    {
        return Err(format!("[{section}.classes]: {}", unknown_class(class, classes)));
    }
    let templates = settings
        .templates
        .as_ref()
        .map_or_else(|| vec![default.to_owned()], OneOrMore::list);
    classes
        .iter()
        .map(|class| {
            let own = settings
                .classes
                .get(&**class)
                .map_or_else(|| templates.clone(), OneOrMore::list);
            let prompts: Vec<String> = own
                .iter()
                .map(|prompt| prompt.replace("{class}", &words(class)))
                .collect();
            match prompts.iter().any(|prompt| prompt.trim().is_empty()) || prompts.is_empty() {
                true => Err(format!(
                    "[{section}]: class `{class}` has an empty prompt, expected text"
                )),
                false => Ok(prompts),
            }
        })
        .collect()
}

/// Turns the name of a class into words in lower case, without brackets and underscores.
fn words(class: &str) -> String {
    let plain: String = class
        .chars()
        .map(|c| if c == '_' { ' ' } else { c })
        .filter(|c| !"()".contains(*c))
        .collect();
    plain
        .to_lowercase()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<Arc<str>> {
        ["Frying_(food)", "Baby_cry_infant_cry"].map(Arc::from).to_vec()
    }

    fn read(text: &str) -> Result<ClassPrompts, PromptsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.toml");
        std::fs::write(&path, text).unwrap();
        ClassPrompts::read(Some(&path), &classes())
    }

    #[test]
    fn defaults_name_the_class_in_words() {
        let prompts = ClassPrompts::read(None, &classes()).unwrap();
        assert_eq!(
            prompts.visual,
            [["A photo of frying food."], ["A photo of baby cry infant cry."]]
        );
        assert_eq!(
            prompts.of(Modality::Audio)[0],
            ["This is a sound of frying food."]
        );
    }

    #[test]
    fn a_class_stands_over_templates_and_these_over_the_default() {
        let prompts = read(
            "[visual]\ntemplates = [\"a {class}\", \"the {class}\"]\n[visual.classes]\n\
             Baby_cry_infant_cry = \"a crying baby\"\n",
        )
        .unwrap();
        assert_eq!(prompts.visual[0], ["a frying food", "the frying food"]);
        assert_eq!(prompts.visual[1], ["a crying baby"]);
        assert_eq!(prompts.audio[1], ["This is a sound of baby cry infant cry."]);
    }

    #[test]
    fn unknown_classes_and_empty_prompts_are_refused() {
        let unknown = read("[audio.classes]\nBaby_cry = \"x\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            unknown.contains("[audio.classes]") && unknown.contains("Baby_cry_infant_cry"),
            "{unknown}"
        );
        let empty = read("[audio]\ntemplates = []\n").unwrap_err().to_string();
        assert!(
            empty.ends_with("[audio]: class `Frying_(food)` has an empty prompt, expected text"),
            "{empty}"
        );
        let key = read("[audio]\ntemplate = \"x\"\n").unwrap_err().to_string();
        assert!(key.contains("unknown field `template`"), "{key}");
    }
}
