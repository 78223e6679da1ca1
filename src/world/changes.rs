//! A change of a store as data: rows, settings, and the paths of features.
//!
//! [`ChangeRows`](crate::ingest::changes::ChangeRows) can be read from files; a server or another program can also
//! build the rows itself. [`Resolved::new`](super::resolve::Resolved::new) checks the rows against the classes and
//! videos of the store.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use vaplan_dataflows::denoising::RuleParameters;
use vaplan_schemas::Modality;
use vaplan_schemas::storage::is_url;
use vaplan_schemas::store::{Filter, RowsAhead};
use vaplan_schemas::tables::{Candidates, Labels, Scores, UserLabels, Videos};

pub use crate::ingest::changes::{
    ChangeRows, EpochPredictions, Origin, PredictedRow, PromptEdit, UserEditRow, UserSpan, WeakEdit,
    WeakEditRow,
};
use crate::world::Both;
use crate::world::settings::{ClassThreshold, SettingsRequest};

/// A change of a store. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// New rule, scales and thresholds of the modalities, and the path of a TOML file with them.
    pub settings: SettingsRequest,
    /// New thresholds of single classes. They take precedence over `settings`.
    pub thresholds: Vec<ClassThreshold>,
    /// New and removed weak labels, user labels, classes, text embeddings and predictions.
    pub rows: ChangeRows,
    /// Paths of features that are new, and of features that were changed or removed since the store read them.
    pub features: Both<Vec<PathBuf>>,
    /// Inputs to take out of the store, whether or not their files still exist.
    pub removed: Both<Vec<PathBuf>>,
    /// After the change, only the predictions of this epoch count. The store must already have predictions of this
    /// epoch.
    pub epoch: Option<u64>,
    /// New settings of denoising.
    pub denoising: DenoiseRequest,
    /// The rule, thresholds, prompts and denoising of this store version become those of the new version.
    pub to_version: Option<u64>,
    /// Hashes of the deliveries to an inbox that make up the change; the new store version records them.
    pub delivered: Vec<Arc<str>>,
    /// Whether the change is committed also if most videos lose the labels of a modality, because their features are
    /// missing or cannot be used.
    pub allow_missing: bool,
    /// The person who makes the change, for column `author` of table `versions`.
    pub author: Option<Arc<str>>,
    /// What the person says about the change, for column `note` of table `versions`.
    pub note: Option<Arc<str>>,
}

/// New rule, parameters and modalities of denoising. What is not given keeps the value of the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DenoiseRequest {
    /// New rule, by a name of [`RULES`](vaplan_dataflows::denoising::RULES). Its parameters start from their defaults
    /// if the store had another rule.
    pub rule: Option<String>,
    /// New values of parameters of the rule, such as `alpha` of rule `pld`.
    pub parameters: RuleParameters,
    /// The program denoises exactly these modalities. `None` keeps the modalities of the store; the first epoch of a
    /// store that denoises no modality then turns on the denoising of visual labels (docs/method.md, PLD, grade P).
    pub modalities: Option<Vec<Modality>>,
}

impl Changes {
    /// Whether the change asks for nothing. The fields `delivered`, `allow_missing`, `author`
    /// and `note` are not considered.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.has_only_rows()
    }

    /// Whether the change asks for user labels and for nothing else.
    pub(crate) fn has_only_user_labels(&self) -> bool {
        !self.rows.user.is_empty() && self.asks_at_most_for_user_labels()
    }

    /// Whether the change asks for nothing beside user labels. Its files may have no user label at all.
    pub(crate) fn asks_at_most_for_user_labels(&self) -> bool {
        self.rows.has_no_other_rows() && self.has_only_rows()
    }

    /// Whether the change names files of user labels that hold no user label.
    pub(crate) fn has_no_correction(&self) -> bool {
        self.rows.user.is_empty() && self.asks_at_most_for_user_labels()
    }

    /// The rows of a store that the change reads first, as far as the change names their videos. Of a store on a local disk no rows
    /// are read ahead.
    pub(crate) fn rows_ahead(&self, store: &Path) -> RowsAhead {
        let rows = &self.rows;
        if !is_url(store) || !rows.name_only_videos() || !self.has_only_rows() {
            return RowsAhead::default();
        }
        let user = rows.user.iter().map(|row| row.video.clone());
        let weak = || rows.weak.iter().map(|row| row.video.clone());
        let videos = Filter::videos(user.chain(weak()));
        let ahead = RowsAhead::default()
            .and::<Labels>(videos.clone())
            .and::<UserLabels>(videos);
        if rows.weak.is_empty() {
            return ahead;
        }
        let videos = Filter::videos(weak());
        ahead
            .and::<Videos>(videos.clone())
            .and::<Scores>(videos.clone())
            .and::<Candidates>(videos)
    }

    fn has_only_rows(&self) -> bool {
        let settings = &self.settings;
        let settings = settings.rule.is_none()
            && settings.candidates.is_none()
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
            && self.features.iter().chain(&self.removed).all(Vec::is_empty)
            && self.epoch.is_none()
            && self.denoising == DenoiseRequest::default()
            && self.to_version.is_none()
    }
}

/// Reads `MODALITY/CLASS=VALUE`. The name of the class may contain `/` and `=`.
///
/// ```
/// use vaplan::world::changes::of_class;
/// let (modality, class, value) = of_class::<f64>("visual/Dog=1.5").unwrap();
/// assert_eq!((modality.as_str(), &*class, value), ("visual", "Dog", 1.5));
/// assert!(of_class::<f64>("Dog=1.5").unwrap_err().contains("expected MODALITY/CLASS=VALUE"));
/// ```
///
/// # Errors
/// Returns a message with the text found and the form expected, if the text does not have this form.
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
