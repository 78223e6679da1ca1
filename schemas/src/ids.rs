//! The identifiers that all tables share: modality, class, store version and bucket.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of the two streams of a video.
///
/// ```
/// use vaplan_schemas::Modality;
/// assert_eq!("visual".parse(), Ok(Modality::Visual));
/// assert_eq!(Modality::Audio.as_str(), "audio");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// What the sound of the video contains.
    Audio,
    /// What the picture of the video shows.
    Visual,
}

impl Modality {
    /// Both modalities, in the order of the tables.
    pub const ALL: [Modality; 2] = [Modality::Audio, Modality::Visual];

    /// The index of the modality in an array with one value per modality, as in [`Modality::ALL`]: 0 for audio, 1 for
    /// visual.
    ///
    /// ```
    /// use vaplan_schemas::Modality;
    /// assert_eq!(Modality::ALL.map(Modality::index), [0, 1]);
    /// ```
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of the modality in tables and SQL: `audio` or `visual`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Modality::Audio => "audio",
            Modality::Visual => "visual",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Modality {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "audio" => Ok(Modality::Audio),
            "visual" => Ok(Modality::Visual),
            other => Err(format!("modality is `{other}`, expected `audio` or `visual`")),
        }
    }
}

/// The position of a class in the order of the `classes` table, from 0. The position is the column of the class in
/// every (T, C) matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassId(pub u32);

impl ClassId {
    /// The position as an array index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A store version: the number of a commit. Numbers start at 1, and each commit has a larger number than the commit
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreVersion(pub u64);

impl fmt::Display for StoreVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hashes a video's full name to 64 bits (XXH64, seed 0). The hash is the same on every machine and in every release.
pub fn video_hash(video: &str) -> u64 {
    twox_hash::XxHash64::oneshot(0, video.as_bytes())
}

/// Hashes the bits of the values to 64 bits (XXH3, seed 0). The hash is the same on every machine and in every
/// release.
pub fn floats_hash(values: &[f32]) -> u64 {
    let mut hasher = twox_hash::XxHash3_64::with_seed(0);
    let mut bytes = [0_u8; 4096];
    for values in values.chunks(bytes.len() / 4) {
        for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        hasher.write(&bytes[..4 * values.len()]);
    }
    hasher.finish()
}

/// Returns the bucket of a video among `buckets` buckets (a power of two, at least 1).
///
/// ```
/// use vaplan_schemas::bucket_of;
/// assert_eq!(bucket_of("BjCEufrlXm4_20_30", 1), 0);
/// assert!(bucket_of("BjCEufrlXm4_20_30", 16) < 16);
/// ```
pub fn bucket_of(video: &str, buckets: u32) -> u32 {
    debug_assert!(buckets.is_power_of_two());
    // The bucket is the top bits of the hash, so that doubling the number of buckets splits each bucket in two.
    let bits = buckets.trailing_zeros();
    if bits == 0 {
        0
    } else {
        (video_hash(video) >> (64 - bits)) as u32
    }
}
