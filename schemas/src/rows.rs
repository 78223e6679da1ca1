//! One typed row per table.
//!
//! A track is all segments of one video, modality and class, in order. A track is never empty. `scores` and `labels` have
//! one row per track, whose list columns have one value per segment. `predictions` has one row per segment on disk;
//! in memory, all segments of one epoch, video and modality are one [`PredictionTrack`].

mod label_changes;
mod labels;

use std::sync::Arc;

use crate::ids::Modality;

pub use self::label_changes::{LabelChangeRow, LabelChangeTrack};
pub use self::labels::{FlipLimit, FlipReason, LabelBitTrack, LabelTrack, SegmentLabel};
pub use crate::reject::{RejectKind, RejectRow, Severity};

/// The split of a data set that a video belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Videos to train on; they have weak labels only.
    Train,
    /// Videos with dense truth, for choosing thresholds, settings and epochs.
    Val,
    /// Videos with dense truth, for reporting scores.
    Test,
}

impl Split {
    /// All three splits, in order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// The name of the split in tables and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Split::ALL
            .into_iter()
            .find(|split| split.as_str() == text)
            .ok_or_else(|| format!("split is `{text}`, expected `train`, `val` or `test`"))
    }
}

/// The rule that set a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelRule {
    /// Pseudo label generation: a score above its threshold.
    Plg,
    /// Another program made the label: `label --pseudo-labels` read it from a file. The score is the label, 0 or 1.
    Import,
    /// Pseudo label denoising: PLD flipped the label after an epoch.
    Pld,
    /// A person set the label.
    User,
}

impl LabelRule {
    /// The name of the rule in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            LabelRule::Plg => "plg",
            LabelRule::Import => "import",
            LabelRule::Pld => "pld",
            LabelRule::User => "user",
        }
    }

    /// Whether the rule compares a score with a threshold: every rule but `user` does.
    pub fn compares(self) -> bool {
        self != LabelRule::User
    }
}

/// A row of `classes`; key (`position`, `modality`).
#[derive(Clone, Debug, PartialEq)]
pub struct ClassRow {
    /// The name, as in annotations, tables and SQL.
    pub class: Arc<str>,
    /// The position among the classes, from 0: the column of every (T, C) matrix.
    pub position: u32,
    /// The modality of the prompt and the threshold.
    pub modality: Modality,
    /// The text that was embedded, if known.
    pub prompt: Option<Arc<str>>,
    /// The rule that turns cosines into scores: `softmax` or `logit`.
    pub rule: Arc<str>,
    /// κ, the factor by which the cosine is multiplied.
    pub scale: f64,
    /// The threshold as requested: r, relative to uniform, for rule `softmax`; θ for rule `logit`.
    pub threshold: f64,
    /// The number that scores must exceed: r / C for rule `softmax`; θ for rule `logit`.
    pub score_threshold: f64,
}

/// A row of `videos`; key `video`.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoRow {
    /// The full name (LLP: `filename`).
    pub video: Arc<str>,
    /// The split of the video.
    pub split: Split,
    /// T, the number of segments; 0 if no features could be read.
    pub segments: u32,
    /// The length of a segment in seconds.
    pub segment_seconds: f64,
    /// The weak label, in the order of the classes. If `guessed`, the candidates that the scores gave.
    pub weak_labels: Vec<Arc<str>>,
    /// Whether the video has no weak label, and its candidates were guessed from its scores.
    pub guessed: bool,
    /// The file of the weak label.
    pub source: Arc<str>,
    /// The file or shard of the audio features; `None` if they are missing or rejected.
    pub audio_source: Option<Arc<str>>,
    /// The file or shard of the visual features; `None` if they are missing or rejected.
    pub visual_source: Option<Arc<str>>,
}

/// A row of `truth`; key (`video`, `modality`, `class`, `onset`, `offset`). Dense annotation, of val and test videos
/// only.
#[derive(Clone, Debug, PartialEq)]
pub struct TruthRow {
    /// The full name of the video.
    pub video: Arc<str>,
    /// The modality of the event.
    pub modality: Modality,
    /// The class of the event.
    pub class: Arc<str>,
    /// The first segment of the event.
    pub onset: u32,
    /// The first segment after the event; greater than `onset`.
    pub offset: u32,
}

/// A row of `scores`, for a class of the weak label; key (`video`, `modality`, `class`).
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTrack {
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The cosine of segment and prompt, per segment.
    pub cosine: Vec<f32>,
    /// The score of each segment, which is compared with the threshold: a probability over all C classes, or a scaled
    /// cosine.
    pub score: Vec<f64>,
}

/// A row of `prompts`; key (`position`, `modality`). Segments are compared with its embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptRow {
    /// The name of the class.
    pub class: Arc<str>,
    /// The position among the classes, from 0.
    pub position: u32,
    /// The modality of the prompt.
    pub modality: Modality,
    /// The text embedding `[D]`, as given. Its norm may be any but 0.
    pub embedding: Vec<f32>,
}

/// A row of `settings`; key (`name`, `position`). A setting of the store that does not belong to a class, video or
/// epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingRow {
    /// The dotted name, such as `features.audio`.
    pub name: Arc<str>,
    /// The position, from 0; a list has one row per item.
    pub position: u32,
    /// The value, in the form in which a user types it.
    pub value: Arc<str>,
}

/// A row of `candidates`; key (`video`, `modality`, `source`). Features that were read, but do not count: a second
/// copy, a conflict, or another length than the other modality. `videos` names the features that count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CandidateRow {
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// The file of the features.
    pub source: Arc<str>,
}

/// A row of `user_labels`; key (`video`, `modality`, `class`, `segment`). A label that a person set and did not
/// withdraw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLabelRow {
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The segment, from 0.
    pub segment: u32,
    /// Whether the event occurs in the segment.
    pub label: bool,
    /// The file that has the user label.
    pub source: Arc<str>,
}

/// A row of `verdicts`; key (`video`, `modality`, `class`, `segment`). What a person said about the truth of one segment. A
/// verdict is about the video, not about a label, so that it judges every later label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictRow {
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The segment, from 0.
    pub segment: u32,
    /// Whether the event occurs in the segment. `None`: the person is unsure.
    pub present: Option<bool>,
    /// The store version whose labels the sample was drawn from.
    pub version: u64,
    /// What the sample was stratified by: `class`, `modality`, `rule` or `all`.
    pub strata: Arc<str>,
    /// The file that has the verdict, or the review page and its author.
    pub source: Arc<str>,
}

/// A track of `predictions`. On disk, each segment is a row with the key (`epoch`, `video`, `modality`, `segment`).
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionTrack {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// C, the number of classes; not 0.
    pub classes: u32,
    /// The probabilities `[T, C]`, in the order of the classes.
    pub probability: Vec<f32>,
}

impl PredictionTrack {
    /// T, the number of segments.
    pub fn segments(&self) -> u32 {
        (self.probability.len() / self.classes as usize) as u32
    }
}

/// A row of `video_predictions`; key (`epoch`, `video`).
#[derive(Clone, Debug, PartialEq)]
pub struct VideoPredictionRow {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The full name of the video.
    pub video: Arc<str>,
    /// The probability of each class in the video, p `[C]`.
    pub probability: Vec<f32>,
    /// The probability of each class in its audio, p^a `[C]`.
    pub audio: Vec<f32>,
    /// The probability of each class in its picture, p^v `[C]`.
    pub visual: Vec<f32>,
}

/// A row of `epochs`; key `epoch`. Rows are added, and only `flips` is written again.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRow {
    /// The number of the epoch, from 1, counted over all trainings of the store.
    pub epoch: u64,
    /// The SHA-256, in hex, of all inputs that the training depends on.
    pub run: Arc<str>,
    /// The number of the epoch within its training, from 1.
    pub run_epoch: u64,
    /// The store version of the labels that the epoch trained on.
    pub labels: u64,
    /// The number of videos that the epoch trained on.
    pub videos: u64,
    /// The number of labels that PLD flipped after the epoch; `None` if PLD did not run on the epoch.
    pub flips: Option<u64>,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The duration of the epoch in seconds, with validation.
    pub seconds: f64,
    /// The losses: the weighted sum `total` and each term without its weight, as means over the videos, and
    /// `gradient_norm`, the mean over the steps.
    pub losses: Vec<(Arc<str>, f64)>,
    /// The scores in percent, named `<split>.<protocol>.<level>.<score>`.
    pub metrics: Vec<(Arc<str>, f64)>,
}

/// A row of `versions`; key `version`. Rows are only added. A commit writes its row last.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionRow {
    /// The store version, from 1.
    pub version: u64,
    /// The Delta version of each table, sorted by table. A table that has never had rows is absent.
    pub tables: Vec<(String, u64)>,
    /// The epoch, if the commit stores the result of an epoch.
    pub epoch: Option<u64>,
    /// The SHA-256 of the settings, in hex.
    pub settings: String,
    /// The SHA-256 of the text embeddings of both modalities, in hex.
    pub models: String,
    /// The SHA-256 of all inputs of the run, in hex. A second run with the same inputs is recognised by this hash.
    pub inputs: String,
    /// The version of the program.
    pub program: String,
    /// The command line.
    pub command: String,
    /// The number of labels that the version changed; `None` in rows of a program that did not count them.
    pub changed_labels: Option<u64>,
    /// The time of the commit, in milliseconds since 1970 UTC.
    pub committed_at: i64,
    /// The person who made the version; `None` if the program was not told.
    pub author: Option<Arc<str>>,
    /// What the person says about the version; `None` if nothing.
    pub note: Option<Arc<str>>,
}
