//! One bit per segment.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One bit per segment.
///
/// ```
/// use vaplan_dataflows::Bits;
/// let bits: Bits = [true, false, true].into_iter().collect();
/// assert!(bits.get(2) && !bits.get(1));
/// assert_eq!(bits.ones(), 2);
/// assert_eq!(bits.meet(&[true, true, false].into_iter().collect()).ones(), 1);
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bits {
    len: u32,
    // Most videos have at most 64 segments, and such a video needs no allocation. This matters because each label track
    // holds three `Bits`.
    first: u64,
    #[expect(
        clippy::box_collection,
        reason = "8 bytes where a slice takes 16, and nearly always none"
    )]
    rest: Option<Box<Vec<u64>>>,
}

impl Bits {
    /// Makes this number of bits, none of which is set.
    pub fn zeros(len: usize) -> Bits {
        let words = len.div_ceil(64).saturating_sub(1);
        Bits {
            len: len as u32,
            first: 0,
            rest: (words > 0).then(|| Box::new(vec![0; words])),
        }
    }

    /// The number of segments.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bit of a segment; false beyond the last segment.
    pub fn get(&self, segment: usize) -> bool {
        let word = match segment / 64 {
            0 => self.first,
            word => self.rest().get(word - 1).copied().unwrap_or(0),
        };
        word >> (segment % 64) & 1 == 1
    }

    /// Returns the number of bits that are set.
    pub fn ones(&self) -> u32 {
        self.first.count_ones() + self.rest().iter().map(|word| word.count_ones()).sum::<u32>()
    }

    /// Returns the bits that are set in both. The result has the length of the longer one.
    pub fn meet(&self, other: &Bits) -> Bits {
        let words = self.rest().len().max(other.rest().len());
        let word = |bits: &Bits, at: usize| bits.rest().get(at).copied().unwrap_or(0);
        let rest: Vec<u64> = (0..words).map(|at| word(self, at) & word(other, at)).collect();
        Bits {
            len: self.len.max(other.len),
            first: self.first & other.first,
            rest: (!rest.is_empty()).then(|| Box::new(rest)),
        }
    }

    /// Iterates over the bits of all segments, in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> {
        (0..self.len()).map(|segment| self.get(segment))
    }

    fn rest(&self) -> &[u64] {
        self.rest.as_ref().map_or(&[], |rest| rest.as_slice())
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Bits {
        let mut made = Bits::default();
        for bit in bits {
            let at = made.len as usize;
            let word = if at < 64 {
                &mut made.first
            } else {
                let rest = made.rest.get_or_insert_default();
                if at.is_multiple_of(64) {
                    rest.push(0);
                }
                &mut rest[at / 64 - 1]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_hold_what_was_collected_at_every_length_around_a_word() {
        for len in [0, 1, 63, 64, 65, 127, 128, 129, 300] {
            let pattern: Vec<bool> = (0..len).map(|at| at % 3 == 0).collect();
            let bits: Bits = pattern.iter().copied().collect();
            assert_eq!(bits.iter().collect::<Vec<bool>>(), pattern, "{len}");
            assert_eq!(bits.ones() as usize, pattern.iter().filter(|bit| **bit).count());
            assert_eq!(Bits::zeros(len), vec![false; len].into_iter().collect(), "{len}");
            assert!(!bits.get(len), "false behind the end");
            assert_eq!(bits.meet(&bits), bits, "{len}");
        }
    }

    #[test]
    fn a_track_of_bits_is_small() {
        assert_eq!(size_of::<Bits>(), 24);
    }
}
