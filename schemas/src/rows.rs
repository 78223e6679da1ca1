//! One typed row per table.
//!
//! A track is all segments of one video, modality and class, in order. A track is never empty. `scores` and `labels` have
//! one row per track, whose list columns have one value per segment. `predictions` has one row per segment on disk;
//! in memory, all segments of one epoch, video and modality are one [`PredictionTrack`].

use std::sync::Arc;

use crate::ids::Modality;

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
    /// The weak label, in the order of the classes.
    pub weak_labels: Vec<Arc<str>>,
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

/// A row of `labels`: the labels of one video, modality and class of the weak label; key (`video`, `modality`, `class`).
///
/// `labels`, `rules` and `scores` have one value per segment. [`LabelTrack::iter`] reads them segment by segment.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelTrack {
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Pseudo labels: whether the event occurs in the segment.
    pub labels: Vec<bool>,
    /// The rule that set each label.
    pub rules: Vec<LabelRule>,
    /// The score that was compared with the threshold; 0 and without meaning for rule `user`.
    pub scores: Vec<f64>,
    /// The number that the scores were compared with; `None` if a person set every label of the track.
    pub threshold: Option<f64>,
    /// Why labels were flipped, by segment, ascending. Few labels are flipped.
    pub flips: Vec<(u32, FlipReason)>,
}

/// One segment of a [`LabelTrack`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentLabel<'a> {
    /// Whether the event occurs.
    pub label: bool,
    /// The rule that set the label.
    pub rule: LabelRule,
    /// The score that was compared; `None` for rule `user`.
    pub score: Option<f64>,
    /// The number that the score was compared with; `None` for rule `user`.
    pub threshold: Option<f64>,
    /// Why the label was flipped; `None` for every rule but `pld`.
    pub why: Option<&'a FlipReason>,
}

impl LabelTrack {
    /// The labels that PLG gives these scores: set if the score is above the threshold.
    ///
    /// ```
    /// use vaplan_schemas::Modality;
    /// use vaplan_schemas::rows::{LabelRule, LabelTrack};
    /// let mut track = LabelTrack::plg("clip".into(), Modality::Audio, "Dog".into(), vec![0.2, 0.7], 0.5);
    /// assert_eq!(track.labels, [false, true]);
    /// track.set(0, true, LabelRule::User, None);
    /// assert_eq!((track.get(0).score, track.get(1).score), (None, Some(0.7)));
    /// ```
    pub fn plg(
        video: Arc<str>,
        modality: Modality,
        class: Arc<str>,
        scores: Vec<f64>,
        threshold: f64,
    ) -> LabelTrack {
        LabelTrack {
            video,
            modality,
            class,
            labels: scores.iter().map(|score| *score > threshold).collect(),
            rules: vec![LabelRule::Plg; scores.len()],
            threshold: (!scores.is_empty()).then_some(threshold),
            scores,
            flips: Vec::new(),
        }
    }

    /// Replaces the label of a segment, the rule that set it, and the reason of the flip.
    ///
    /// # Panics
    /// Panics if the track has no such segment.
    pub fn set(&mut self, segment: usize, label: bool, rule: LabelRule, why: Option<FlipReason>) {
        self.labels[segment] = label;
        self.rules[segment] = rule;
        self.flips.retain(|(at, _)| *at as usize != segment);
        if let Some(why) = why {
            let at = self.flips.partition_point(|(at, _)| (*at as usize) < segment);
            self.flips.insert(at, (segment as u32, why));
        }
        if !rule.compares() {
            self.scores[segment] = 0.0;
            self.threshold = self
                .threshold
                .filter(|_| self.rules.iter().any(|rule| rule.compares()));
        }
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.labels.len()
    }

    /// The label of a segment, and why it is so.
    ///
    /// # Panics
    /// Panics if the track has no such segment.
    pub fn get(&self, segment: usize) -> SegmentLabel<'_> {
        let rule = self.rules[segment];
        let compared = rule.compares();
        let flip = self.flips.binary_search_by_key(&segment, |(at, _)| *at as usize);
        SegmentLabel {
            label: self.labels[segment],
            rule,
            score: compared.then_some(self.scores[segment]),
            threshold: self.threshold.filter(|_| compared),
            why: flip.ok().map(|at| &self.flips[at].1),
        }
    }

    /// The labels of all segments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SegmentLabel<'_>> + Clone {
        (0..self.segments()).map(|segment| self.get(segment))
    }

    /// Number of labels that PLD set, and number of labels that PLD unset.
    pub fn flipped(&self) -> [u64; 2] {
        let mut flipped = [0, 0];
        for (label, rule) in self.labels.iter().zip(&self.rules) {
            if *rule == LabelRule::Pld {
                flipped[usize::from(!label)] += 1;
            }
        }
        flipped
    }
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

/// A row of `label_changes`: the segments of a track that a version set, or unset, by one rule. Key: (`version`, `video`,
/// `modality`, `class`, first of `segments`). Rows are only added.
///
/// A label that is not in `labels` counts as unset, so the changes up to version v add up to the set labels of
/// `labels` at v. [`LabelChangeTrack::group`] makes these rows from changes of single labels.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelChangeTrack {
    /// The store version that changed the labels.
    pub version: u64,
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The labels after the change. Before it, they were the opposite.
    pub to: bool,
    /// The rule that set the labels.
    pub rule: LabelRule,
    /// The segments, from 0, ascending; not empty.
    pub segments: Vec<u32>,
    /// Why PLD flipped the labels, one reason per segment; empty if no reason is known, and for every rule but `pld`.
    pub why: Vec<FlipReason>,
}

impl LabelChangeTrack {
    /// Groups changes of single labels into rows, in the order of the table. The changes of a track must be adjacent,
    /// and their segments must ascend.
    ///
    /// ```
    /// use vaplan_schemas::Modality;
    /// use vaplan_schemas::rows::{LabelChangeRow, LabelChangeTrack, LabelRule};
    /// let change = |segment, to: bool| LabelChangeRow {
    ///     version: 2,
    ///     video: "clip".into(),
    ///     modality: Modality::Audio,
    ///     class: "Dog".into(),
    ///     segment,
    ///     from: !to,
    ///     to,
    ///     rule: LabelRule::Plg,
    ///     why: None,
    /// };
    /// let changes = [change(0, true), change(1, false), change(3, true)];
    /// let rows = LabelChangeTrack::group(changes.clone());
    /// assert_eq!(rows.len(), 2);
    /// assert_eq!((rows[0].to, &rows[0].segments), (true, &vec![0, 3]));
    /// let mut again: Vec<_> = rows.iter().flat_map(LabelChangeTrack::changes).collect();
    /// again.sort_by_key(|change| change.segment);
    /// assert_eq!(again, changes);
    /// ```
    pub fn group(changes: impl IntoIterator<Item = LabelChangeRow>) -> Vec<LabelChangeTrack> {
        let mut rows: Vec<LabelChangeTrack> = Vec::new();
        // The rows from this one on are of the current track. A track has at most two labels, three rules, and changes
        // with and without a reason, so it has few rows.
        let mut current = 0;
        for change in changes {
            let of_track = |row: &LabelChangeTrack| {
                row.version == change.version
                    && row.modality == change.modality
                    && row.video == change.video
                    && row.class == change.class
            };
            if !rows.last().is_some_and(of_track) {
                current = rows.len();
            }
            let same = |row: &&mut LabelChangeTrack| {
                row.to == change.to && row.rule == change.rule && row.why.is_empty() == change.why.is_none()
            };
            match rows[current..].iter_mut().find(same) {
                Some(row) => {
                    row.segments.push(change.segment);
                    row.why.extend(change.why.map(|why| *why));
                }
                None => rows.push(LabelChangeTrack {
                    version: change.version,
                    video: change.video,
                    modality: change.modality,
                    class: change.class,
                    to: change.to,
                    rule: change.rule,
                    segments: vec![change.segment],
                    why: change.why.into_iter().map(|why| *why).collect(),
                }),
            }
        }
        rows
    }

    /// The changes of single labels, in order of their segment.
    pub fn changes(&self) -> impl Iterator<Item = LabelChangeRow> + '_ {
        self.segments
            .iter()
            .enumerate()
            .map(|(nth, segment)| LabelChangeRow {
                version: self.version,
                video: self.video.clone(),
                modality: self.modality,
                class: self.class.clone(),
                segment: *segment,
                from: !self.to,
                to: self.to,
                rule: self.rule,
                why: self.why.get(nth).copied().map(Box::new),
            })
    }
}

/// The change of one label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelChangeRow {
    /// The store version that changed the label.
    pub version: u64,
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The segment, from 0.
    pub segment: u32,
    /// The label before the change.
    pub from: bool,
    /// The label after the change; it differs from `from`.
    pub to: bool,
    /// The rule that set the label.
    pub rule: LabelRule,
    /// Why PLD flipped the label; `None` for every rule but `pld`.
    pub why: Option<Box<FlipReason>>,
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
    /// Whether the event occurs in the segment.
    pub present: bool,
    /// The store version whose labels the sample was drawn from.
    pub version: u64,
    /// What the sample was stratified by: `class`, `modality`, `rule` or `all`.
    pub strata: Arc<str>,
    /// The file that has the verdict.
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
