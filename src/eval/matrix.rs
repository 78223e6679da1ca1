//! Labels of one video and modality as bits: classes by segments.

/// A matrix of C×T bits. Row `c` tells in which segments class `c` occurs.
///
/// A row has `ceil(T / 64)` words, so that rows are compared and counted 64 segments at a time. C and T can have any
/// value.
///
/// ```
/// use vaplan::eval::BitMatrix;
///
/// let mut matrix = BitMatrix::new(25, 10);
/// matrix.set_range(3, 2, 5);
/// matrix.set_range(3, 8, 99); // clipped at T
/// assert!(matrix.get(3, 4) && !matrix.get(3, 5));
/// assert_eq!(matrix.runs(3).collect::<Vec<_>>(), [(2, 5), (8, 10)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitMatrix {
    classes: usize,
    segments: usize,
    words_per_row: usize,
    /// Words of shape `[classes, words_per_row]`. Segment `t` is bit `t % 64` of word `t / 64`. Bits from T on are
    /// always 0.
    words: Vec<u64>,
}

impl BitMatrix {
    /// A matrix of shape `[classes, segments]` with all bits 0.
    pub fn new(classes: usize, segments: usize) -> BitMatrix {
        let words_per_row = segments.div_ceil(64);
        let words = classes
            .checked_mul(words_per_row)
            .expect("a matrix of bits fits into memory");
        BitMatrix {
            classes,
            segments,
            words_per_row,
            words: vec![0; words],
        }
    }

    /// The matrix of an array `[segments, classes]`, row-major. A bit is 1 if `set` of the value is true.
    ///
    /// ```
    /// use vaplan::eval::BitMatrix;
    /// let matrix = BitMatrix::of_cells(2, &[0, 1, 1, 1], |value| value == 1);
    /// assert_eq!((matrix.segments(), matrix.get(0, 0), matrix.get(0, 1), matrix.get(1, 0)), (2, false, true, true));
    /// ```
    ///
    /// # Panics
    /// Panics if the number of values is not a multiple of `classes`.
    pub fn of_cells<V: Copy>(classes: usize, cells: &[V], mut set: impl FnMut(V) -> bool) -> BitMatrix {
        let segments = cells.len().checked_div(classes).unwrap_or(0);
        assert_eq!(segments * classes, cells.len(), "whole segments");
        let mut matrix = BitMatrix::new(classes, segments);
        for (segment, row) in cells.chunks_exact(classes.max(1)).enumerate() {
            let put = |(word, cell): (&mut u64, &V)| *word |= u64::from(set(*cell)) << (segment % 64);
            // With one word per class, the words are neighbours, so that the compiler computes several of them at once.
            match matrix.words_per_row {
                1 => matrix.words.iter_mut().zip(row).for_each(put),
                step => {
                    let words = matrix.words[segment / 64..].iter_mut().step_by(step);
                    words.zip(row).for_each(put);
                }
            }
        }
        matrix
    }

    /// Number C of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number T of segments.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Whether `class` occurs in `segment`.
    ///
    /// # Panics
    /// Panics if `class` or `segment` lies outside the matrix.
    pub fn get(&self, class: usize, segment: usize) -> bool {
        self.check(class, segment);
        self.words[class * self.words_per_row + segment / 64] >> (segment % 64) & 1 == 1
    }

    /// Sets the bit of `class` in `segment` to 1.
    ///
    /// # Panics
    /// Panics if `class` or `segment` lies outside the matrix.
    pub fn set(&mut self, class: usize, segment: usize) {
        self.check(class, segment);
        self.words[class * self.words_per_row + segment / 64] |= 1 << (segment % 64);
    }

    /// Sets the bit of `class` in `segment` to `there`.
    ///
    /// # Panics
    /// Panics if `class` or `segment` lies outside the matrix.
    pub fn put(&mut self, class: usize, segment: usize, there: bool) {
        self.check(class, segment);
        let word = &mut self.words[class * self.words_per_row + segment / 64];
        *word = *word & !(1 << (segment % 64)) | u64::from(there) << (segment % 64);
    }

    /// Sets the bits of `class` from segment `onset` to before segment `offset` to 1.
    ///
    /// Segments from T on are ignored, and `onset >= offset` sets no bit. The slices of numpy in the public evaluator
    /// behave the same way.
    ///
    /// # Panics
    /// Panics if the matrix has no such class and the range is not empty.
    pub fn set_range(&mut self, class: usize, onset: usize, offset: usize) {
        for segment in onset..offset.min(self.segments) {
            self.set(class, segment);
        }
    }

    /// The words of a row. Bits from T on are 0.
    ///
    /// # Panics
    /// Panics if the matrix has no such class.
    pub fn row(&self, class: usize) -> &[u64] {
        assert!(class < self.classes, "class {class} of {}", self.classes);
        &self.words[class * self.words_per_row..][..self.words_per_row]
    }

    /// The maximal runs of 1s of a row as (onset, offset), in order. The offset is the first segment after the run.
    ///
    /// # Panics
    /// Panics if the matrix has no such class.
    pub fn runs(&self, class: usize) -> impl Iterator<Item = (usize, usize)> {
        runs(self.row(class))
    }

    fn check(&self, class: usize, segment: usize) {
        assert!(
            class < self.classes && segment < self.segments,
            "class {class}, segment {segment} of a {}x{} matrix",
            self.classes,
            self.segments
        );
    }
}

/// The maximal runs of 1s of a row of words as (onset, offset), in order.
pub(super) fn runs(row: &[u64]) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let onset = next(row, from, 0)?;
        let offset = next(row, onset, u64::MAX).unwrap_or(row.len() * 64);
        from = offset;
        Some((onset, offset))
    })
}

/// Position of the first bit from `from` on that differs from the bits of `fill` (0 or all ones).
fn next(row: &[u64], from: usize, fill: u64) -> Option<usize> {
    let first = from / 64;
    let mut mask = u64::MAX << (from % 64);
    for (index, word) in row.iter().enumerate().skip(first) {
        let differs = (word ^ fill) & mask;
        if differs != 0 {
            return Some(index * 64 + differs.trailing_zeros() as usize);
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cross_words_and_reach_the_end() {
        let mut matrix = BitMatrix::new(2, 128);
        matrix.set_range(0, 60, 70);
        matrix.set_range(0, 71, 128);
        assert_eq!(matrix.runs(0).collect::<Vec<_>>(), [(60, 70), (71, 128)]);
        assert_eq!(matrix.runs(1).count(), 0);
    }

    #[test]
    fn a_range_is_cut_at_the_end_and_may_be_empty() {
        let mut matrix = BitMatrix::new(1, 10);
        matrix.set_range(0, 7, 7);
        matrix.set_range(0, 9, 3);
        matrix.set_range(0, 12, 15);
        assert_eq!(matrix.runs(0).count(), 0);
        matrix.set_range(0, 8, 15);
        assert_eq!(matrix.runs(0).collect::<Vec<_>>(), [(8, 10)]);
    }

    #[test]
    fn cells_of_many_segments_are_read_by_segment_and_class() {
        let (classes, segments) = (3, 130);
        let set = |class: usize, segment: usize| (7 * segment + 3 * class).is_multiple_of(5);
        let cells: Vec<f64> = (0..segments * classes)
            .map(|cell| f64::from(u8::from(set(cell % classes, cell / classes))))
            .collect();
        let matrix = BitMatrix::of_cells(classes, &cells, |cell| cell != 0.0);
        for class in 0..classes {
            for segment in 0..segments {
                assert_eq!(
                    matrix.get(class, segment),
                    set(class, segment),
                    "{class}, {segment}"
                );
            }
        }
        let none: [bool; 0] = [];
        assert_eq!(BitMatrix::of_cells(0, &none, |cell| cell).segments(), 0);
        assert_eq!(BitMatrix::of_cells(4, &none, |cell| cell).segments(), 0);
    }

    #[test]
    fn a_video_of_no_segments_has_empty_rows() {
        let matrix = BitMatrix::new(3, 0);
        assert_eq!(matrix.row(2), [0u64; 0]);
        assert_eq!(matrix.runs(0).count(), 0);
    }

    #[test]
    #[should_panic(expected = "class 0, segment 10 of a 1x10 matrix")]
    fn a_segment_past_the_end_is_a_bug() {
        BitMatrix::new(1, 10).set(0, 10);
    }
}
