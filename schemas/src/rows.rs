//! One typed row per table.
//!
//! `scores` and `labels` are kept on disk one row per segment, and in memory as tracks: all segments of one video,
//! modality and class, in order. A track is never empty.

use std::sync::Arc;

use crate::ids::Modality;

pub use crate::reject::{RejectKind, RejectRow, Severity};

/// Part of a data set a video belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Weak labels only.
    Train,
    /// Dense truth, for choosing.
    Val,
    /// Dense truth, for reporting.
    Test,
}

impl Split {
    /// All three, in order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// As tables and flags write it.
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

/// What set a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelRule {
    /// Pseudo label generation: a score above its threshold.
    Plg,
    /// Pseudo label denoising: flipped after an epoch.
    Pld,
    /// A person.
    User,
}

impl LabelRule {
    /// As tables write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            LabelRule::Plg => "plg",
            LabelRule::Pld => "pld",
            LabelRule::User => "user",
        }
    }
}

/// `classes`: key (`position`, `modality`).
#[derive(Clone, Debug, PartialEq)]
pub struct ClassRow {
    /// Name, as in annotations, tables and SQL.
    pub class: Arc<str>,
    /// Order among the classes, from 0: the column of every (T, C) matrix.
    pub position: u32,
    /// Modality the prompt and threshold are for.
    pub modality: Modality,
    /// Text that was embedded, where known.
    pub prompt: Option<Arc<str>>,
    /// `softmax` or `logit`.
    pub rule: Arc<str>,
    /// κ, what the cosine is multiplied with.
    pub scale: f64,
    /// As asked for: r, relative to uniform, of rule `softmax`; θ of rule `logit`.
    pub threshold: f64,
    /// What scores are compared with: r / C of rule `softmax`; θ of rule `logit`.
    pub cutoff: f64,
}

/// `videos`: key `video`.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoRow {
    /// Full name (LLP: `filename`).
    pub video: Arc<str>,
    /// Part of the data set.
    pub split: Split,
    /// Number of segments T; 0 where no features were readable.
    pub segments: u32,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// Weak label, in the order of the classes.
    pub weak_labels: Vec<Arc<str>>,
    /// File the weak label came from.
    pub source: Arc<str>,
    /// File or shard of the audio features; none: missing or rejected.
    pub audio_source: Option<Arc<str>>,
    /// File or shard of the visual features; none: missing or rejected.
    pub visual_source: Option<Arc<str>>,
}

/// `truth`: key (`video`, `modality`, `class`, `onset`, `offset`); dense annotation, val and test only.
#[derive(Clone, Debug, PartialEq)]
pub struct TruthRow {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Where the event is.
    pub modality: Modality,
    /// What the event is.
    pub class: Arc<str>,
    /// First segment.
    pub onset: u32,
    /// First segment after the event; greater than `onset`.
    pub offset: u32,
}

/// `scores`: one track; on disk key (`video`, `modality`, `class`, `segment`), for classes of the weak label.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTrack {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Cosine of segment and prompt, per segment.
    pub cosine: Vec<f32>,
    /// What is compared with the cutoff, per segment: probability over all C classes, or scaled cosine.
    pub score: Vec<f64>,
}

/// `labels`: one track; on disk key (`video`, `modality`, `class`, `segment`), for classes of the weak label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelTrack {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Pseudo label, its reason beside it, per segment.
    pub cells: Vec<LabelCell>,
}

/// Why denoising flipped a label: the struct column `why` of `labels` and `label_changes`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlipReason {
    /// Epoch of the predictions that contradicted the label, from 1.
    pub epoch: u64,
    /// Forward loss of the label; `None` in `label_changes` of a program that did not store it.
    pub loss: Option<f64>,
    /// What the loss was compared with; `None` in tables of a program that did not store it.
    pub limit: Option<FlipLimit>,
}

/// What PLD compared a forward loss with: the loss of a flipped label is above `alpha` times `base`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlipLimit {
    /// Mean of the K smallest losses of the track.
    pub base: f64,
    /// Factor on the base.
    pub alpha: f64,
    /// K, from 1.
    pub k: u32,
}

/// A label and why it is so.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelCell {
    /// Is the event there.
    pub label: bool,
    /// What set it.
    pub rule: LabelRule,
    /// Score that was compared; none for rule `user`.
    pub score: Option<f64>,
    /// What it was compared with; none for rule `user`.
    pub threshold: Option<f64>,
    /// Why it was flipped; `None` for every rule but `pld`. Boxed, because few labels are flipped.
    pub why: Option<Box<FlipReason>>,
}

/// `label_changes`: key (`version`, `video`, `modality`, `class`, `segment`); append only.
///
/// A cell that is not in `labels` counts as 0, so the changes up to version v add up to the 1s of `labels` at v.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelChangeRow {
    /// Store version that changed it.
    pub version: u64,
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Segment, from 0.
    pub segment: u32,
    /// Label before.
    pub from: bool,
    /// Label after; differs from `from`.
    pub to: bool,
    /// What set it.
    pub rule: LabelRule,
    /// Why it was flipped; `None` for every rule but `pld`.
    pub why: Option<Box<FlipReason>>,
}

/// `prompts`: key (`position`, `modality`); what segments are compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptRow {
    /// Name of the class.
    pub class: Arc<str>,
    /// Order among the classes, from 0.
    pub position: u32,
    /// Modality the prompt is for.
    pub modality: Modality,
    /// Text embedding `[D]`, as given: of any length but zero.
    pub embedding: Vec<f32>,
}

/// `settings`: key (`name`, `position`); what was asked that is of no class, video or epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingRow {
    /// Dotted name, such as `features.audio`.
    pub name: Arc<str>,
    /// From 0; a list has one row per item.
    pub position: u32,
    /// As one would type it.
    pub value: Arc<str>,
}

/// `candidates`: key (`video`, `modality`, `source`); features that were read and do not count: a second copy, a
/// conflict, another length than the other modality's. Those that count are named in `videos`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CandidateRow {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// File of the features.
    pub source: Arc<str>,
}

/// `user_labels`: key (`video`, `modality`, `class`, `segment`); what a person set, until it is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLabelRow {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Segment, from 0.
    pub segment: u32,
    /// Is the event there.
    pub label: bool,
    /// File that said so.
    pub source: Arc<str>,
}

/// `predictions`: one track; on disk key (`epoch`, `video`, `modality`, `segment`).
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionTrack {
    /// Epoch, from 1.
    pub epoch: u64,
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// C; not 0.
    pub classes: u32,
    /// Probabilities `[T, C]`, in the order of the classes.
    pub probability: Vec<f32>,
}

impl PredictionTrack {
    /// T.
    pub fn segments(&self) -> u32 {
        (self.probability.len() / self.classes as usize) as u32
    }
}

/// `video_predictions`: key (`epoch`, `video`).
#[derive(Clone, Debug, PartialEq)]
pub struct VideoPredictionRow {
    /// Epoch, from 1.
    pub epoch: u64,
    /// Full name of the video.
    pub video: Arc<str>,
    /// Probability of each class in the video, p `[C]`.
    pub probability: Vec<f32>,
    /// Probability of each class in its audio, p^a `[C]`.
    pub audio: Vec<f32>,
    /// Probability of each class in its picture, p^v `[C]`.
    pub visual: Vec<f32>,
}

/// `epochs`: key `epoch`; append only.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRow {
    /// From 1, over all trainings of the store.
    pub epoch: u64,
    /// SHA-256 of what the training was asked, hex.
    pub run: Arc<str>,
    /// From 1 within the training.
    pub run_epoch: u64,
    /// Store version whose labels it learnt.
    pub labels: u64,
    /// Videos it learnt from.
    pub videos: u64,
    /// Labels flipped after it, where that was looked at.
    pub flips: Option<u64>,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Seconds it took, with validation.
    pub seconds: f64,
    /// Mean over the batches of each term of the loss, not weighted, and of their weighted sum, `total`.
    pub losses: Vec<(Arc<str>, f64)>,
    /// Scores in percent, named `<split>.<protocol>.<level>.<score>`.
    pub metrics: Vec<(Arc<str>, f64)>,
}

/// `versions`: key `version`; append only, committed last.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionRow {
    /// Store version, from 1.
    pub version: u64,
    /// Delta version of each table, sorted by table; a table of no rows yet is absent.
    pub tables: Vec<(String, u64)>,
    /// Epoch, where the commit carries one.
    pub epoch: Option<u64>,
    /// SHA-256 of the settings, hex.
    pub settings: String,
    /// SHA-256 of what embeds: text embeddings and models, hex.
    pub models: String,
    /// SHA-256 of every input of the run, hex: a second run of the same is recognised by it.
    pub inputs: String,
    /// Version of the program.
    pub program: String,
    /// What was asked, as a command line.
    pub command: String,
    /// When it was committed, milliseconds since 1970 UTC.
    pub committed_at: i64,
}
