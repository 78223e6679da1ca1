//! A change of a store as data: rows, settings, and the paths of features.
//!
//! [`ChangeRows`](crate::ingest::changes::ChangeRows) reads rows from files; a server or another program makes them itself.
//! [`Resolved::new`](super::resolve::Resolved::new) checks the rows against the classes and videos of the store.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use vaplan_schemas::Modality;

pub use crate::ingest::changes::{
    ChangeRows, EpochPredictions, Origin, PredictedRow, PromptEdit, UserEditRow, WeakEdit, WeakEditRow,
};
use crate::world::Both;
use crate::world::settings::{ClassThreshold, SettingsRequest};

/// A change of a store; the default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Rule, scales and thresholds of modalities, and a TOML file of them.
    pub settings: SettingsRequest,
    /// Thresholds of single classes, which have precedence over `settings`.
    pub thresholds: Vec<ClassThreshold>,
    /// Weak labels, user labels, classes, text embeddings and predictions.
    pub rows: ChangeRows,
    /// Features that are new, and features whose files changed or were removed since they were read.
    pub features: Both<Vec<PathBuf>>,
    /// Inputs that are taken out of the store, whether or not their files exist.
    pub removed: Both<Vec<PathBuf>>,
    /// The only epoch whose predictions count; the store has its predictions.
    pub epoch: Option<u64>,
    /// Denoising.
    pub denoising: DenoiseRequest,
    /// Store version whose rule, thresholds, prompts and denoising are taken.
    pub to_version: Option<u64>,
    /// Hashes of the deliveries to an inbox that make up the change; the new store version records them.
    pub delivered: Vec<Arc<str>>,
}

/// K, α, guard and modalities of denoising; a field that is none keeps the value of the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DenoiseRequest {
    /// K.
    pub k: Option<u32>,
    /// α.
    pub alpha: Option<f64>,
    /// Guard.
    pub guard: Option<f64>,
    /// Exactly these modalities. None keeps those of the store; the first epoch of a store then denoises visual labels
    /// (METHOD.md, PLD, grade P).
    pub modalities: Option<Vec<Modality>>,
}

impl Changes {
    /// Whether the change changes nothing.
    pub fn is_empty(&self) -> bool {
        let settings = &self.settings;
        let settings = settings.rule.is_none()
            && settings.file.is_none()
            && [
                settings.visual_threshold,
                settings.audio_threshold,
                settings.visual_scale,
                settings.audio_scale,
            ]
            .iter()
            .all(Option::is_none);
        settings
            && self.thresholds.is_empty()
            && self.rows.is_empty()
            && self.features.iter().chain(&self.removed).all(Vec::is_empty)
            && self.epoch.is_none()
            && self.denoising == DenoiseRequest::default()
            && self.to_version.is_none()
    }
}

/// Reads `MODALITY/CLASS=VALUE`; a class may hold `/` and `=`.
///
/// ```
/// use vaplan::world::changes::of_class;
/// let (modality, class, value) = of_class::<f64>("visual/Dog=1.5").unwrap();
/// assert_eq!((modality.as_str(), &*class, value), ("visual", "Dog", 1.5));
/// assert!(of_class::<f64>("Dog=1.5").unwrap_err().contains("expected MODALITY/CLASS=VALUE"));
/// ```
///
/// # Errors
/// What was found and expected.
pub fn of_class<V: FromStr>(text: &str) -> Result<(Modality, Arc<str>, V), String>
where
    V::Err: std::fmt::Display,
{
    let form = || format!("`{text}`, expected MODALITY/CLASS=VALUE, such as `visual/Dog=1.1`");
    let (modality, rest) = text.split_once('/').ok_or_else(form)?;
    let (class, value) = rest.rsplit_once('=').ok_or_else(form)?;
    let modality = modality.parse().map_err(|_| form())?;
    let value = value.parse().map_err(|error| format!("`{value}`: {error}"))?;
    Ok((modality, class.into(), value))
}
