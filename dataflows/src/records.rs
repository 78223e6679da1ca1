//! What flows: records that are exact, totally ordered and cheap to clone.
//!
//! A retraction cancels only an equal insertion, so no record holds a bare float: scores enter as data, computed
//! once upstream, and are compared bit for bit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::ids::{floats_hash, video_hash};
use vaplan_schemas::{ClassId, Modality};

pub use crate::bits::Bits;
use crate::pld::Pld;
pub use crate::score::{Cosine, Score};

/// A video, by the hash of its full name: the same in every process and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VideoId(pub u64);

impl VideoId {
    /// Of a full name.
    pub fn of(name: &str) -> VideoId {
        VideoId(video_hash(name))
    }
}

/// Scores of one video and modality, for the classes of its weak label only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScoreRecord {
    segments: u32,
    classes: Vec<ClassId>,
    cosine: Vec<Cosine>,
    score: Vec<Score>,
}

impl ScoreRecord {
    /// # Shapes
    /// `cosine` and `score`: `[classes, segments]`, class-major; `classes` ascending.
    ///
    /// # Panics
    /// Where the lengths do not fit: the caller made them.
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

    /// T.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Classes scored, ascending.
    pub fn classes(&self) -> &[ClassId] {
        &self.classes
    }

    /// Per class: cosines and scores of its segments.
    pub fn tracks(&self) -> impl Iterator<Item = (ClassId, &[Cosine], &[Score])> {
        (0..self.classes.len()).map(|at| (self.classes[at], self.cosine_of(at), self.score_of(at)))
    }

    /// Scores of the class at a position of [`ScoreRecord::classes`].
    pub fn score_of(&self, at: usize) -> &[Score] {
        let segments = self.segments as usize;
        &self.score[at * segments..(at + 1) * segments]
    }

    fn cosine_of(&self, at: usize) -> &[Cosine] {
        let segments = self.segments as usize;
        &self.cosine[at * segments..(at + 1) * segments]
    }

    /// The same record without the classes that `keep` refuses.
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
/// Two copies of features are equal if and only if their hashes are equal. Scores cannot tell: the matrix product gives
/// other last bits on a processor with other vector instructions.
///
/// ```
/// use vaplan_dataflows::FeatureHash;
/// assert_eq!(FeatureHash::of(&[0.5, 1.0]), FeatureHash::of(&[0.5, 1.0]));
/// assert_ne!(FeatureHash::of(&[0.5, 1.0]), FeatureHash::of(&[1.0, 0.5]));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeatureHash(u64);

impl FeatureHash {
    /// The hash of these values: the rows of a video, one after the other, by their bits.
    pub fn of(features: &[f32]) -> FeatureHash {
        FeatureHash(floats_hash(features))
    }
}

/// Features of a video, scored: what a shard says of one video and modality.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Which of the two.
    pub modality: Modality,
    /// File it came from.
    pub source: Arc<str>,
    /// Its scores.
    pub record: Arc<ScoreRecord>,
    /// Hash of the features. The default hash stands for features that were not read again because the scores of a
    /// store version were; such a candidate is the only one of its video and modality.
    pub features: FeatureHash,
}

/// What set a cell's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SetBy {
    /// Pseudo label generation: a score and its cutoff.
    Plg,
    /// Pseudo label denoising: flipped after an epoch.
    Pld,
    /// A person.
    User,
}

/// Labels of one class in a video and modality.
///
/// `pld` and `user` are empty (of length 0) where they would have no bit set, so that equal labels are equal
/// records, and cost nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Track {
    /// Which class.
    pub class: ClassId,
    /// The labels that count: what a person set, else what PLD flipped, else what PLG gave.
    pub label: Bits,
    /// Cells whose label PLD flipped, but for those that a person set.
    pub pld: Bits,
    /// Cells whose label a person set.
    pub user: Bits,
    /// Where `pld` has a bit: what the flips were decided by.
    pub denoised: Option<Arc<Denoised>>,
}

impl Track {
    /// Labels of PLG alone.
    pub fn plg(class: ClassId, label: Bits) -> Track {
        Track {
            class,
            label,
            pld: Bits::default(),
            user: Bits::default(),
            denoised: None,
        }
    }

    /// Why PLD flipped the label of a segment; none: it did not, or a person set it.
    pub fn flip(&self, segment: usize) -> Option<Flip> {
        let denoised = self.denoised.as_ref().filter(|_| self.pld.get(segment))?;
        let nth = (0..segment).filter(|&before| self.pld.get(before)).count();
        Some(Flip {
            epoch: denoised.epoch,
            settings: denoised.settings,
            base: denoised.base,
            loss: denoised.losses[nth],
        })
    }

    /// What set the label of a segment.
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

/// What the flips of a track were decided by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Denoised {
    /// Epoch of the predictions.
    pub epoch: u64,
    /// K, α and guard.
    pub settings: Pld,
    /// μ, the mean of the K smallest losses of the track.
    pub base: Score,
    /// Forward losses of the segments that [`Track::pld`] sets, in their order.
    pub losses: Vec<Score>,
}

/// Why PLD flipped a label: its loss is above α times the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flip {
    /// Epoch of the predictions.
    pub epoch: u64,
    /// K, α and guard.
    pub settings: Pld,
    /// μ, the mean of the K smallest losses of the track.
    pub base: Score,
    /// Forward loss.
    pub loss: Score,
}

/// Labels of one video and modality, for the classes of its weak label.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelRecord {
    /// Per class, ascending: its segments.
    pub tracks: Vec<Track>,
}

impl LabelRecord {
    /// The track of a class, where it has one.
    pub fn track(&self, class: ClassId) -> Option<&Track> {
        let at = self
            .tracks
            .binary_search_by_key(&class, |track| track.class)
            .ok()?;
        Some(&self.tracks[at])
    }

    /// How many cells are set.
    pub fn ones(&self) -> u64 {
        let tracks = self.tracks.iter();
        tracks.map(|track| u64::from(track.label.ones())).sum()
    }

    /// Classes and segments that are in both: an audio-visual event is one that is heard and seen (METHOD.md, grade C).
    ///
    /// Labels only; what set them is said of the two.
    pub fn meet(&self, other: &LabelRecord) -> LabelRecord {
        let mut tracks = Vec::with_capacity(self.tracks.len());
        for track in &self.tracks {
            if let Some(other) = other.track(track.class) {
                tracks.push(Track::plg(track.class, track.label.meet(&other.label)));
            }
        }
        LabelRecord { tracks }
    }
}
