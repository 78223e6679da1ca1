//! Numbers in the records of the graph: two numbers are equal if and only if their bits are equal, and all numbers are
//! totally ordered.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A score, a threshold, or another f64 that is not NaN. The bits are stored so that their order is the order of the
/// numbers.
///
/// ```
/// use vaplan_dataflows::Score;
/// let low = Score::new(-0.5).unwrap();
/// let high = Score::new(0.25).unwrap();
/// assert!(low < high);
/// assert_eq!(high.get(), 0.25);
/// assert!(Score::new(f64::NAN).is_none());
/// ```
///
/// Serialized, a score is the f64. Formats with variable-length integers, such as postcard, would need 10 bytes for the
/// bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct Score(u64);

impl Score {
    const SIGN: u64 = 1 << 63;

    /// Returns `None` if `value` is NaN. The value -0 becomes 0, so that the two are equal.
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

    /// Returns the number.
    pub fn get(self) -> f64 {
        f64::from_bits(if self.0 & Self::SIGN == 0 {
            !self.0
        } else {
            self.0 & !Self::SIGN
        })
    }
}

impl From<Score> for f64 {
    fn from(score: Score) -> f64 {
        score.get()
    }
}

impl TryFrom<f64> for Score {
    type Error = &'static str;

    fn try_from(value: f64) -> Result<Score, &'static str> {
        Score::new(value).ok_or("a score is NaN, expected a number")
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Score({})", self.get())
    }
}

/// The cosine of a segment and a prompt, stored as its bits. The order of this type is not the order of the numbers.
///
/// Serialized, a cosine is the f32, as [`Score`] is the f64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "f32", from = "f32")]
pub struct Cosine(u32);

impl Cosine {
    /// Stores the bits of `value`.
    pub fn new(value: f32) -> Cosine {
        Cosine(value.to_bits())
    }

    /// Returns the number.
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl From<Cosine> for f32 {
    fn from(cosine: Cosine) -> f32 {
        cosine.get()
    }
}

impl From<f32> for Cosine {
    fn from(value: f32) -> Cosine {
        Cosine::new(value)
    }
}

impl fmt::Debug for Cosine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosine({})", self.get())
    }
}
