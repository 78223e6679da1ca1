//! What flows: records that are exact, totally ordered and cheap to clone.
//!
//! A retraction cancels only an equal insertion, so no record holds a bare float: scores enter as data, computed
//! once upstream, and are compared bit for bit.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::ids::video_hash;
use vaplan_schemas::{ClassId, Modality};

/// A video, by the hash of its full name: the same in every process and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VideoId(pub u64);

impl VideoId {
    /// Of a full name.
    pub fn of(name: &str) -> VideoId {
        VideoId(video_hash(name))
    }
}

/// A score that is compared with a cutoff: a finite or infinite f64, never NaN, as bits in the order of the number.
///
/// ```
/// use vaplan_dataflows::Score;
/// let low = Score::new(-0.5).unwrap();
/// let high = Score::new(0.25).unwrap();
/// assert!(low < high);
/// assert_eq!(high.get(), 0.25);
/// assert!(Score::new(f64::NAN).is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Score(u64);

impl Score {
    const SIGN: u64 = 1 << 63;

    /// None for NaN; -0 is 0.
    pub fn new(value: f64) -> Option<Score> {
        if value.is_nan() {
            return None;
        }
        let bits = (value + 0.0).to_bits();
        Some(Score(if bits & Self::SIGN == 0 {
            bits | Self::SIGN
        } else {
            !bits
        }))
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(if self.0 & Self::SIGN == 0 {
            !self.0
        } else {
            self.0 & !Self::SIGN
        })
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Score({})", self.get())
    }
}

/// Cosine of a segment and a prompt, by its bits; the order is not that of the numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cosine(u32);

impl Cosine {
    /// By its bits.
    pub fn new(value: f32) -> Cosine {
        Cosine(value.to_bits())
    }

    /// The number.
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl fmt::Debug for Cosine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosine({})", self.get())
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

/// Features of a video, scored: what a shard says of one video and modality.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Which of the two.
    pub modality: Modality,
    /// File it came from.
    pub source: Arc<str>,
    /// Its scores.
    pub record: Arc<ScoreRecord>,
}

/// A bit per segment.
///
/// ```
/// use vaplan_dataflows::Bits;
/// let bits: Bits = [true, false, true].into_iter().collect();
/// assert!(bits.get(2) && !bits.get(1));
/// assert_eq!(bits.ones(), 2);
/// assert_eq!(bits.meet(&[true, true, false].into_iter().collect()).ones(), 1);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bits {
    len: u32,
    // Most videos have at most 64 segments: those cost no allocation.
    first: u64,
    rest: Vec<u64>,
}

impl Bits {
    /// Segments.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// No segment at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bit of a segment; false behind the end.
    pub fn get(&self, segment: usize) -> bool {
        let word = match segment / 64 {
            0 => self.first,
            word => self.rest.get(word - 1).copied().unwrap_or(0),
        };
        word >> (segment % 64) & 1 == 1
    }

    /// How many are set.
    pub fn ones(&self) -> u32 {
        self.first.count_ones() + self.rest.iter().map(|word| word.count_ones()).sum::<u32>()
    }

    /// Segment by segment: set in both. As long as the longer, whose end is unset.
    pub fn meet(&self, other: &Bits) -> Bits {
        let words = self.rest.len().max(other.rest.len());
        let word = |bits: &Bits, at: usize| bits.rest.get(at).copied().unwrap_or(0);
        Bits {
            len: self.len.max(other.len),
            first: self.first & other.first,
            rest: (0..words).map(|at| word(self, at) & word(other, at)).collect(),
        }
    }

    /// Every segment, in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> {
        (0..self.len()).map(|segment| self.get(segment))
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Bits {
        let mut made = Bits {
            len: 0,
            first: 0,
            rest: Vec::new(),
        };
        for bit in bits {
            let at = made.len as usize;
            if at >= 64 && at.is_multiple_of(64) {
                made.rest.push(0);
            }
            let word = if at < 64 {
                &mut made.first
            } else {
                &mut made.rest[at / 64 - 1]
            };
            *word |= u64::from(bit) << (at % 64);
            made.len += 1;
        }
        made
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter()
            .try_for_each(|bit| f.write_str(if bit { "1" } else { "0" }))
    }
}

/// Labels of one video and modality, for the classes of its weak label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelRecord {
    /// Per class, ascending: its segments.
    pub tracks: Vec<(ClassId, Bits)>,
}

impl LabelRecord {
    /// The track of a class, where it has one.
    pub fn track(&self, class: ClassId) -> Option<&Bits> {
        let at = self
            .tracks
            .binary_search_by_key(&class, |(class, _)| *class)
            .ok()?;
        Some(&self.tracks[at].1)
    }

    /// How many cells are set.
    pub fn ones(&self) -> u64 {
        self.tracks.iter().map(|(_, bits)| u64::from(bits.ones())).sum()
    }

    /// Classes and segments that are in both: an audio-visual event is one that is heard and seen (METHOD.md, grade C).
    pub fn meet(&self, other: &LabelRecord) -> LabelRecord {
        let tracks = self.tracks.iter();
        LabelRecord {
            tracks: tracks
                .filter_map(|(class, bits)| Some((*class, bits.meet(other.track(*class)?))))
                .collect(),
        }
    }
}
