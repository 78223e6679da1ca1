//! The world of a store, which all labels depend on: classes, rule, thresholds, prompts, denoising and the paths of the
//! features.
//!
//! [`World::read`] reads these values from the tables `settings`, `classes` and `prompts` of a store version. A
//! change therefore needs the features, but none of the other files that the store was made from.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Display;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use vaplan_dataflows::denoising::{DenoisingRule, RuleParameters};
use vaplan_dataflows::pld::Pld;
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::similarity::{PromptEmbeddings, PromptError, PromptPair};
use vaplan_dataflows::{CandidateRule, Score};
use vaplan_schemas::rows::{ClassRow, LabelRule, PromptRow, SettingRow};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables;
use vaplan_schemas::{ClassId, Modality};

use super::Both;
use super::hash::{feed, hash};
use super::settings::{LabelSettings, ModalitySettings};
use crate::error::LabelError;
use crate::ingest::features::ColumnNames;
use crate::ingest::text::TextEmbeddings;

/// The name of a folder of imported labels begins with this text; the modality follows. Each import has a folder in that folder.
pub(crate) const IMPORT: &str = "import.";

/// Text embeddings of the classes for one modality.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSet {
    /// Number D of values per embedding.
    pub width: usize,
    /// Embeddings of shape `[C, width]`, row-major. No row is all zeros; the rows need not have length 1.
    pub data: Vec<f32>,
    /// The prompt of each class, if it is known.
    pub texts: Vec<Option<Arc<str>>>,
}

impl PromptSet {
    /// The embedding of a class.
    pub fn row(&self, class: ClassId) -> &[f32] {
        &self.data[class.index() * self.width..][..self.width]
    }
}

impl From<TextEmbeddings> for PromptSet {
    fn from(text: TextEmbeddings) -> PromptSet {
        let classes = text.data.len() / text.width.max(1);
        let mut texts = text.prompts;
        texts.resize(classes, None);
        PromptSet {
            width: text.width,
            data: text.data,
            texts,
        }
    }
}

/// Everything that labels depend on, except videos, features, user labels and predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Names of the classes in order. A [`ClassId`] is a position in this list.
    pub classes: Vec<Arc<str>>,
    /// Rule, scales and thresholds of both modalities.
    pub settings: LabelSettings,
    /// Text embeddings of the classes for each modality.
    pub prompts: Both<PromptSet>,
    /// Files and folders of features. The paths are absolute, except in stores of older programs.
    pub features: Both<Vec<PathBuf>>,
    /// The folders of the labels of another program that features were made of. `None` for other features, and in stores of
    /// older programs. Labels do not depend on them; messages name them.
    pub label_folders: Both<Option<PathBuf>>,
    /// Names of the columns of Parquet features.
    pub columns: ColumnNames,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// K, α and guard of each modality. `None` if PLD does not denoise the modality.
    pub denoising: Both<Option<DenoisingRule>>,
    /// The predictions that count. `None` if no prediction counts.
    pub active: Option<Active>,
    /// Hashes of the last deliveries that `vaplan watch` committed, oldest first. Labels do not depend on them.
    pub delivered: Vec<Arc<str>>,
    /// State of `vaplan run`, by name. Labels do not depend on it.
    pub run: BTreeMap<Arc<str>, Arc<str>>,
    /// Last fit of thresholds to weak labels, so that the features need not be read again for it. Labels do not depend on it.
    pub fitted: Option<KeptFit>,
}

/// A fit of thresholds to weak labels, as a store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptFit {
    /// SHA-256 of everything that the fit depends on, as hexadecimal text.
    pub inputs: Arc<str>,
    /// The fitted thresholds and notes, as JSON.
    pub result: Arc<str>,
}

/// The predictions that count: for each video and modality, the predictions of the latest of these epochs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Active {
    /// Epochs that count. The store can have predictions of other epochs.
    pub epochs: BTreeSet<u64>,
    /// Classes of the columns of the predictions, in order of the columns.
    pub classes: Vec<Arc<str>>,
}

/// The threshold of imported labels lies between their scores, 0 and 1.
pub(crate) const IMPORT_THRESHOLD: f64 = 0.5;

const SEGMENT_SECONDS: &str = "segment_seconds";
const ACTIVE_EPOCH: &str = "predictions.epoch";
const ACTIVE_SINCE: &str = "predictions.since";
const ACTIVE_CLASSES: &str = "predictions.classes";
const CANDIDATES: &str = "candidates";
const COLUMNS: &str = "features.columns";
const DELIVERED: &str = "inbox.delivered";
const RUN: &str = "run.";
const FIT_INPUTS: &str = "fit.inputs";
const FIT_RESULT: &str = "fit.result";
/// The setting `denoise.MODALITY.rule`; the other settings of this prefix are the parameters of the rule.
const DENOISING_RULE: &str = "rule";

fn features_name(modality: Modality) -> String {
    format!("features.{modality}")
}

fn label_folder_name(modality: Modality) -> String {
    format!("label_folder.{modality}")
}

fn denoise_name(modality: Modality, what: &str) -> String {
    format!("denoise.{modality}.{what}")
}

/// Whether features are labels of another program: they are below a folder that is named for it.
fn is_import(path: &Path, modality: Modality) -> bool {
    let folder = path.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    folder.and_then(|name| name.strip_prefix(IMPORT)) == Some(modality.as_str())
}

impl World {
    /// The rule of labels of a modality that neither a person nor PLD changed: `import` if the features are labels of another
    /// program ([`label::import`](crate::label::import)), otherwise `plg`.
    pub fn generated(&self, modality: Modality) -> LabelRule {
        let mut paths = self.features[modality.index()].iter();
        match paths.any(|path| is_import(path, modality)) {
            true => LabelRule::Import,
            false => LabelRule::Plg,
        }
    }

    /// The inputs of a modality as the user named them: files and folders of features, or a folder of labels.
    pub fn named_inputs(&self, modality: Modality) -> impl Iterator<Item = &Path> {
        let folder = self.label_folders[modality.index()].as_deref();
        let paths = self.features[modality.index()].iter();
        paths.map(move |path| match folder.filter(|_| is_import(path, modality)) {
            Some(folder) => folder,
            None => path.as_path(),
        })
    }

    /// Whether the labels of a modality are those of another program, as they were imported: no threshold was changed since.
    pub fn holds_imported(&self, modality: Modality) -> bool {
        let thresholds = &self.settings.of(modality).thresholds;
        self.generated(modality) == LabelRule::Import
            && thresholds.iter().all(|threshold| *threshold == IMPORT_THRESHOLD)
    }

    /// Reads the world of a store version.
    ///
    /// # Errors
    /// - Returns [`LabelError::Store`] if a table cannot be read.
    /// - Returns [`LabelError::World`] if a table lacks values, as tables of some older programs do.
    pub fn read(snapshot: &Snapshot) -> Result<World, LabelError> {
        let version = snapshot.version().version;
        let bad = |problem: String| LabelError::World { version, problem };
        let class_rows = snapshot.read::<tables::Classes>()?;
        let (classes, mut settings) = settings_of(&class_rows).map_err(bad)?;
        let mut named: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for row in snapshot.read::<tables::Settings>()? {
            named.entry(row.name).or_default().push(row.value);
        }
        let values = |name: &str| named.get(name).map_or(&[][..], |values| values);
        if let [rule, ..] = values(CANDIDATES) {
            let read = rule.parse();
            settings.candidates = read.map_err(|error: String| bad(format!("setting {error}")))?;
        }
        let texts = class_texts(&class_rows, classes.len());
        let rows = snapshot.read::<tables::Prompts>()?;
        let [audio, visual] = Modality::ALL.map(|modality| {
            prompt_set(&rows, modality, classes.len(), texts[modality.index()].clone()).map_err(bad)
        });
        let denoising = |modality| -> Result<Option<DenoisingRule>, LabelError> {
            let prefix = denoise_name(modality, "");
            let mut rule = None;
            let mut parameters = RuleParameters::new();
            for (name, values) in named.range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded)) {
                let (Some(what), [value, ..]) = (name.strip_prefix(&*prefix), values.as_slice()) else {
                    break;
                };
                match what {
                    DENOISING_RULE => rule = Some(value),
                    _ => drop(parameters.insert(what.to_owned(), number(value, name).map_err(bad)?)),
                }
            }
            // Programs that knew only rule `pld` recorded no rule.
            let name = match rule {
                None if parameters.is_empty() => return Ok(None),
                None => Pld::NAME,
                Some(name) => name,
            };
            let rule = DenoisingRule::new(name, &parameters);
            rule.map(Some).map_err(|error| bad(format!("{prefix}*: {error}")))
        };
        let epochs = values(ACTIVE_EPOCH)
            .iter()
            .map(|epoch| number(epoch, ACTIVE_EPOCH));
        let mut epochs = epochs.collect::<Result<BTreeSet<u64>, _>>().map_err(bad)?;
        // Older programs recorded only the first and the last epoch of a range. Every epoch of the range counts.
        if let ([since], Some(last)) = (values(ACTIVE_SINCE), epochs.last().copied()) {
            epochs.extend(number(since, ACTIVE_SINCE).map_err(bad)?..=last);
        }
        let active = (!epochs.is_empty()).then(|| Active {
            epochs,
            classes: values(ACTIVE_CLASSES).to_vec(),
        });
        let [seconds] = values(SEGMENT_SECONDS) else {
            return Err(bad(format!(
                "table `settings` has no `{SEGMENT_SECONDS}`: run `vaplan label` once with this program"
            )));
        };
        Ok(World {
            settings,
            prompts: [audio?, visual?],
            features: Modality::ALL.map(|modality| {
                let paths = values(&features_name(modality)).iter();
                paths.map(|path| PathBuf::from(&**path)).collect()
            }),
            label_folders: Modality::ALL.map(|modality| {
                let folder = values(&label_folder_name(modality)).first();
                folder.map(|folder| PathBuf::from(&**folder))
            }),
            columns: match values(COLUMNS) {
                [names, ..] => names.parse().map_err(bad)?,
                [] => ColumnNames::default(),
            },
            segment_seconds: number(seconds, SEGMENT_SECONDS).map_err(bad)?,
            denoising: [denoising(Modality::Audio)?, denoising(Modality::Visual)?],
            active,
            delivered: values(DELIVERED).to_vec(),
            run: (named.iter())
                .filter_map(|(name, values)| Some((name.strip_prefix(RUN)?.into(), values.first()?.clone())))
                .collect(),
            fitted: match (values(FIT_INPUTS), values(FIT_RESULT)) {
                ([inputs, ..], [result, ..]) => Some(KeptFit {
                    inputs: inputs.clone(),
                    result: result.clone(),
                }),
                _ => None,
            },
            classes,
        })
    }

    /// The rows of table `settings`.
    pub fn setting_rows(&self) -> Vec<SettingRow> {
        let mut rows = Vec::new();
        let mut push = |name: String, position: usize, value: String| {
            rows.push(SettingRow {
                name: name.into(),
                position: position as u32,
                value: value.into(),
            });
        };
        push(SEGMENT_SECONDS.to_owned(), 0, self.segment_seconds.to_string());
        if let Some(active) = &self.active {
            for (position, epoch) in active.epochs.iter().enumerate() {
                push(ACTIVE_EPOCH.to_owned(), position, epoch.to_string());
            }
            for (position, class) in active.classes.iter().enumerate() {
                push(ACTIVE_CLASSES.to_owned(), position, class.to_string());
            }
        }
        // Stores with the default rule have no such row, as those of older programs.
        if self.settings.candidates != CandidateRule::Weak {
            push(CANDIDATES.to_owned(), 0, self.settings.candidates.to_string());
        }
        // Stores with the default names have no such row, as those of older programs.
        if self.columns != ColumnNames::default() {
            push(COLUMNS.to_owned(), 0, self.columns.to_string());
        }
        for (position, delivery) in self.delivered.iter().enumerate() {
            push(DELIVERED.to_owned(), position, delivery.to_string());
        }
        for (name, value) in &self.run {
            push(format!("{RUN}{name}"), 0, value.to_string());
        }
        if let Some(fit) = &self.fitted {
            push(FIT_INPUTS.to_owned(), 0, fit.inputs.to_string());
            push(FIT_RESULT.to_owned(), 0, fit.result.to_string());
        }
        for modality in Modality::ALL {
            for (position, path) in self.features[modality.index()].iter().enumerate() {
                push(features_name(modality), position, path.display().to_string());
            }
            if let Some(folder) = &self.label_folders[modality.index()] {
                push(label_folder_name(modality), 0, folder.display().to_string());
            }
            if let Some(rule) = &self.denoising[modality.index()] {
                push(denoise_name(modality, DENOISING_RULE), 0, rule.name().to_owned());
                for (name, value) in rule.parameters() {
                    push(denoise_name(modality, &name), 0, value.to_string());
                }
            }
        }
        rows
    }

    /// The rows of table `classes`.
    pub fn class_rows(&self) -> Vec<ClassRow> {
        self.each_class(|class, position, modality| {
            let own = self.settings.of(modality);
            ClassRow {
                class: class.clone(),
                position: position.0,
                modality,
                prompt: self.prompts[modality.index()].texts[position.index()].clone(),
                rule: own.rule.name().into(),
                scale: own.rule.scale(),
                threshold: own.thresholds[position.index()],
                score_threshold: own.score_threshold(position),
            }
        })
    }

    /// The rows of table `prompts`.
    pub fn prompt_rows(&self) -> Vec<PromptRow> {
        self.each_class(|class, position, modality| PromptRow {
            class: class.clone(),
            position: position.0,
            modality,
            embedding: self.prompts[modality.index()].row(position).to_vec(),
        })
    }

    fn each_class<R>(&self, row: impl Fn(&Arc<str>, ClassId, Modality) -> R) -> Vec<R> {
        let mut rows = Vec::with_capacity(2 * self.classes.len());
        for (position, class) in self.classes.iter().enumerate() {
            for modality in Modality::ALL {
                rows.push(row(class, ClassId(position as u32), modality));
            }
        }
        rows
    }

    /// Prompt embeddings of both modalities, prepared for scoring.
    ///
    /// # Errors
    /// Returns the modality and [`PromptError`] if the embeddings of a modality are not valid.
    pub fn prompt_pair(&self) -> Result<PromptPair, (Modality, PromptError)> {
        let of = |modality: Modality| {
            let set = &self.prompts[modality.index()];
            PromptEmbeddings::new(&set.data, set.width, self.settings.of(modality).rule)
                .map_err(|error| (modality, error))
        };
        Ok(PromptPair {
            audio: of(Modality::Audio)?,
            visual: of(Modality::Visual)?,
        })
    }

    /// The threshold of scores, for each modality and class.
    pub fn thresholds(&self) -> Vec<((Modality, ClassId), Score)> {
        self.each_class(|_, class, modality| {
            let score_threshold = self.settings.of(modality).score_threshold(class);
            (
                (modality, class),
                Score::new(score_threshold).expect("thresholds are finite"),
            )
        })
    }

    /// Whether the candidates of a video with this weak label come from its scores.
    pub fn guesses(&self, weak: &[ClassId]) -> bool {
        self.settings.candidates.guesses(weak)
    }

    /// The classes that features of a video with this weak label are scored for: those of the weak label, or all classes if
    /// the candidates come from the scores.
    pub fn scored(&self, weak: &Arc<[ClassId]>) -> Arc<[ClassId]> {
        match self.guesses(weak) {
            true => (0..self.classes.len() as u32).map(ClassId).collect(),
            false => weak.clone(),
        }
    }

    /// Position of the class with this name. `None` if no class has this name.
    pub fn class_id(&self, name: &str) -> Option<ClassId> {
        let position = self.classes.iter().position(|class| &**class == name)?;
        Some(ClassId(position as u32))
    }

    /// SHA-256 of rules, thresholds and denoising, as hexadecimal text.
    pub fn settings_hash(&self) -> String {
        let mut rows = self.setting_rows();
        rows.retain(|row| row.name.starts_with("denoise."));
        let text = serde_json::to_string(&self.settings).expect("settings are plain numbers and names");
        hash(|sum| {
            feed(sum, [&*text]);
            rows.iter().for_each(|row| feed(sum, [&*row.name, &*row.value]));
        })
    }

    /// SHA-256 of the text embeddings of both modalities, as hexadecimal text.
    pub fn models_hash(&self) -> String {
        hash(|sum| {
            for modality in Modality::ALL {
                feed(sum, [&*self.prompts_hash(modality)]);
            }
        })
    }

    /// SHA-256 of the text embeddings of one modality in order of the classes, as hexadecimal text.
    pub fn prompts_hash(&self, modality: Modality) -> String {
        use sha2::Digest;
        let set = &self.prompts[modality.index()];
        hash(|sum| {
            sum.update((set.width as u64).to_le_bytes());
            set.data.iter().for_each(|value| sum.update(value.to_le_bytes()));
        })
    }
}

/// Names of the classes in order, with rule, scale and thresholds of each modality.
fn settings_of(rows: &[ClassRow]) -> Result<(Vec<Arc<str>>, LabelSettings), String> {
    let mut classes: Vec<Arc<str>> = Vec::new();
    let mut own: Both<Option<ModalitySettings>> = [None, None];
    let mut rows: Vec<&ClassRow> = rows.iter().collect();
    rows.sort_by_key(|row| (row.position, row.modality));
    for row in rows {
        let position = row.position as usize;
        if position == classes.len() {
            classes.push(row.class.clone());
        }
        let scale = row.scale;
        let rule = match &*row.rule {
            "softmax" => Rule::Softmax { scale },
            "logit" => Rule::Logit { scale },
            other => {
                return Err(format!(
                    "class `{}` has rule `{other}`, expected `softmax` or `logit`",
                    row.class
                ));
            }
        };
        let settings = own[row.modality.index()].get_or_insert_with(|| ModalitySettings {
            rule,
            thresholds: Vec::new(),
        });
        if settings.rule != rule
            || settings.thresholds.len() != position
            || classes.get(position) != Some(&row.class)
        {
            return Err(format!(
                "table `classes`: class `{}`, {}, position {position} does not follow the row before",
                row.class, row.modality
            ));
        }
        settings.thresholds.push(row.threshold);
    }
    let [Some(audio), Some(visual)] = own else {
        return Err("table `classes` lacks a modality".to_owned());
    };
    if audio.thresholds.len() != visual.thresholds.len() {
        return Err("table `classes` has a class of one modality only".to_owned());
    }
    let settings = LabelSettings {
        audio,
        visual,
        candidates: CandidateRule::Weak,
    };
    Ok((classes, settings))
}

fn class_texts(rows: &[ClassRow], classes: usize) -> Both<Vec<Option<Arc<str>>>> {
    let mut texts = [vec![None; classes], vec![None; classes]];
    for row in rows {
        texts[row.modality.index()][row.position as usize] = row.prompt.clone();
    }
    texts
}

fn prompt_set(
    rows: &[PromptRow],
    modality: Modality,
    classes: usize,
    texts: Vec<Option<Arc<str>>>,
) -> Result<PromptSet, String> {
    let mut own: Vec<&PromptRow> = rows.iter().filter(|row| row.modality == modality).collect();
    own.sort_by_key(|row| row.position);
    let width = own.first().map_or(0, |row| row.embedding.len());
    if own.len() != classes || own.iter().any(|row| row.embedding.len() != width) {
        return Err(format!(
            "table `prompts` has {} {modality} embeddings, expected {classes} of one width: run `vaplan label` once with \
             this program",
            own.len()
        ));
    }
    Ok(PromptSet {
        width,
        data: own.iter().flat_map(|row| row.embedding.iter().copied()).collect(),
        texts,
    })
}

fn number<N: FromStr<Err: Display>>(text: &str, name: &str) -> Result<N, String> {
    text.parse()
        .map_err(|error| format!("setting `{name}` is `{text}`: {error}"))
}
