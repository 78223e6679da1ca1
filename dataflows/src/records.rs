//! The records of the dataflow: exact, totally ordered and cheap to clone.
//!
//! In differential, a retraction cancels only an equal insertion. No record therefore holds a bare float: scores are
//! computed once, before they enter the dataflow, and are then compared bit for bit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::ids::{floats_hash, video_hash};
use vaplan_schemas::{ClassId, Modality};

pub use crate::bits::Bits;
use crate::denoising::DenoisingRule;
pub use crate::score::{Cosine, Score};

/// The id of a video: the hash of its full name. The hash is the same in every process and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VideoId(pub u64);

impl VideoId {
    /// Returns the id of the video with this full name.
    pub fn of(name: &str) -> VideoId {
        VideoId(video_hash(name))
    }
}

/// The scores of one video and modality, for the classes of its weak label only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScoreRecord {
    segments: u32,
    classes: Vec<ClassId>,
    cosine: Vec<Cosine>,
    score: Vec<Score>,
}

impl ScoreRecord {
    /// Makes the record of one video and modality.
    ///
    /// # Shapes
    /// `cosine` and `score`: `[classes, segments]`, class-major; `classes` ascending.
    ///
    /// # Panics
    /// Panics if the lengths do not match or `classes` is not sorted. Both are bugs of the caller, not bad input.
    pub fn new(segments: u32, classes: Vec<ClassId>, cosine: Vec<Cosine>, score: Vec<Score>) -> ScoreRecord {
        let cells = segments as usize * classes.len();
        assert_eq!(
            (cosine.len(), score.len()),
            (cells, cells),
            "cells of {} classes",
            classes.len()
        );
        assert!(classes.is_sorted(), "classes ascend");
        ScoreRecord {
            segments,
            classes,
            cosine,
            score,
        }
    }

    /// The number of segments, T.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// The classes that have scores, ascending.
    pub fn classes(&self) -> &[ClassId] {
        &self.classes
    }

    /// Iterates over the classes with the cosines and scores of their segments.
    pub fn tracks(&self) -> impl Iterator<Item = (ClassId, &[Cosine], &[Score])> {
        (0..self.classes.len()).map(|at| (self.classes[at], self.cosine_of(at), self.score_of(at)))
    }

    /// Returns the scores of the class at position `at` of [`ScoreRecord::classes`].
    pub fn score_of(&self, at: usize) -> &[Score] {
        let segments = self.segments as usize;
        &self.score[at * segments..(at + 1) * segments]
    }

    fn cosine_of(&self, at: usize) -> &[Cosine] {
        let segments = self.segments as usize;
        &self.cosine[at * segments..(at + 1) * segments]
    }

    /// Returns a copy of the record with only the classes for which `keep` returns true.
    pub fn restricted(&self, keep: impl Fn(ClassId) -> bool) -> ScoreRecord {
        let kept: Vec<usize> = (0..self.classes.len())
            .filter(|&at| keep(self.classes[at]))
            .collect();
        ScoreRecord {
            segments: self.segments,
            classes: kept.iter().map(|&at| self.classes[at]).collect(),
            cosine: kept.iter().flat_map(|&at| self.cosine_of(at)).copied().collect(),
            score: kept.iter().flat_map(|&at| self.score_of(at)).copied().collect(),
        }
    }
}

/// Hash of the features of a video as they were read, before they are scored.
///
/// The program treats two copies of features as equal if and only if their hashes are equal. Scores cannot decide this,
/// because the matrix product can differ in the last bits between processors with different vector instructions.
///
/// ```
/// use vaplan_dataflows::FeatureHash;
/// assert_eq!(FeatureHash::of(&[0.5, 1.0]), FeatureHash::of(&[0.5, 1.0]));
/// assert_ne!(FeatureHash::of(&[0.5, 1.0]), FeatureHash::of(&[1.0, 0.5]));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeatureHash(u64);

impl FeatureHash {
    /// Hashes the bits of these values: the rows of one video, one after the other.
    pub fn of(features: &[f32]) -> FeatureHash {
        FeatureHash(floats_hash(features))
    }
}

/// One copy of the features of a video and modality, with their scores. [`admit`](mod@crate::admit) decides which
/// candidate counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Modality of the features.
    pub modality: Modality,
    /// File of the features.
    pub source: Arc<str>,
    /// Scores of the features.
    pub record: Arc<ScoreRecord>,
    /// Hash of the features. If the scores were read from a store version, the features were not read again, and this
    /// is the default hash. Such a candidate is the only one of its video and modality, so its hash is never compared.
    pub features: FeatureHash,
}

/// What set a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SetBy {
    /// Pseudo label generation set the label by comparing a score with a threshold.
    Plg,
    /// Pseudo label denoising flipped the label by the predictions of an epoch.
    Pld,
    /// A person set the label.
    User,
}

/// Labels of one class in a video and modality.
///
/// `pld` and `user` have length 0 if they would have no bit set. Equal labels are then equal records, as differential
/// needs them to be, and labels of PLG alone take less memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Track {
    /// Class of the labels.
    pub class: ClassId,
    /// The labels that count. A user label outranks a label that PLD flipped, which outranks the label of PLG.
    pub label: Bits,
    /// Segments whose label PLD flipped, without the segments whose label a person set.
    pub pld: Bits,
    /// Segments whose label a person set.
    pub user: Bits,
    /// What PLD compared to decide the flips; `None` if `pld` has no bit set.
    pub denoised: Option<Arc<Denoised>>,
}

impl Track {
    /// Makes a track with labels of PLG only.
    pub fn plg(class: ClassId, label: Bits) -> Track {
        Track {
            class,
            label,
            pld: Bits::default(),
            user: Bits::default(),
            denoised: None,
        }
    }

    /// Returns why PLD flipped the label of a segment; `None` if PLD did not flip the label, or a person set it.
    pub fn flip(&self, segment: usize) -> Option<Flip> {
        let denoised = self.denoised.as_ref().filter(|_| self.pld.get(segment))?;
        let nth = (0..segment).filter(|&before| self.pld.get(before)).count();
        Some(Flip {
            epoch: denoised.epoch,
            rule: denoised.rule,
            base: denoised.base,
            loss: denoised.losses[nth],
        })
    }

    /// Returns what set the label of a segment.
    pub fn set_by(&self, segment: usize) -> SetBy {
        if self.user.get(segment) {
            SetBy::User
        } else if self.pld.get(segment) {
            SetBy::Pld
        } else {
            SetBy::Plg
        }
    }
}

/// What PLD compared to decide the flips of a track.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Denoised {
    /// Epoch whose predictions were used.
    pub epoch: u64,
    /// Denoising rule that decided the flips.
    pub rule: DenoisingRule,
    /// The base μ of rule `pld`: the mean of the K smallest losses of the track; `None` for a rule without a base.
    pub base: Option<Score>,
    /// Forward losses of the segments that have a bit in [`Track::pld`], in order of segment.
    pub losses: Vec<Score>,
}

/// Why PLD flipped a label: the loss of the label is above α times the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flip {
    /// Epoch whose predictions were used.
    pub epoch: u64,
    /// Denoising rule that decided the flip.
    pub rule: DenoisingRule,
    /// The base μ of rule `pld`: the mean of the K smallest losses of the track; `None` for a rule without a base.
    pub base: Option<Score>,
    /// Forward loss of the label.
    pub loss: Score,
}

/// Labels of one video and modality, for the classes of its weak label.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelRecord {
    /// One track per class, classes ascending.
    pub tracks: Vec<Track>,
}

impl LabelRecord {
    /// Returns the track of a class; `None` if the class has no track.
    pub fn track(&self, class: ClassId) -> Option<&Track> {
        let at = self
            .tracks
            .binary_search_by_key(&class, |track| track.class)
            .ok()?;
        Some(&self.tracks[at])
    }

    /// Returns the number of labels that are set.
    pub fn ones(&self) -> u64 {
        let tracks = self.tracks.iter();
        tracks.map(|track| u64::from(track.label.ones())).sum()
    }

    /// Returns the labels that are set in both records: an audio-visual event is heard and seen (docs/method.md, grade C).
    ///
    /// The result does not tell what set the labels; every label counts as [`SetBy::Plg`]. The two records tell it.
    pub fn meet(&self, other: &LabelRecord) -> LabelRecord {
        let tracks = self.shared(other);
        LabelRecord {
            tracks: tracks.map(|(class, label)| Track::plg(class, label)).collect(),
        }
    }

    /// The labels that are set in both records, for each class that both have.
    pub fn shared<'a>(&'a self, other: &'a LabelRecord) -> impl Iterator<Item = (ClassId, Bits)> + 'a {
        self.tracks
            .iter()
            .filter_map(|track| Some((track.class, track.label.meet(&other.track(track.class)?.label))))
    }
}
