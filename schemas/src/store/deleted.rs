//! Rows that a data file still holds, but that are no longer in its table: Delta's deletion vectors, inline in the
//! log.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use roaring::RoaringTreemap;

/// The first four bytes of a vector: Delta's magic number of the portable format (PROTOCOL.md, Deletion Vector
/// Format).
const MAGIC: u32 = 1_681_511_377;

/// The deleted rows of a data file, counted from 0. The set is never empty.
#[derive(Clone, PartialEq)]
pub struct Deleted {
    rows: Arc<RoaringTreemap>,
}

// Two vectors are equal if they have the same row numbers. Row numbers equal themselves, so this equality is total.
impl Eq for Deleted {}

impl fmt::Debug for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deleted").field(&self.ranges()).finish()
    }
}

impl Deleted {
    /// The number of deleted rows.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> u64 {
        self.rows.len()
    }

    /// The largest deleted row number.
    pub fn last(&self) -> u64 {
        self.rows.max().unwrap_or_default()
    }

    /// The deleted rows as runs, in order. No two runs touch.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for row in self.rows.iter() {
            match ranges.last_mut() {
                Some(last) if last.end == row => last.end += 1,
                _ => ranges.push(row..row + 1),
            }
        }
        ranges
    }

    /// Adds the rows `gone` to the rows that were deleted before. Returns `None` if the result has no rows.
    ///
    /// # Panics
    /// Panics if a row was deleted before. A caller that deletes a row twice holds a [`Place`](super::Place) of
    /// another version.
    pub(super) fn with(
        before: Option<&Deleted>,
        gone: impl IntoIterator<Item = Range<u64>>,
    ) -> Option<Deleted> {
        let mut rows = before.map_or_else(RoaringTreemap::new, |before| before.rows.as_ref().clone());
        for range in gone {
            let (start, wanted) = (range.start, range.end - range.start);
            assert_eq!(
                rows.insert_range(range),
                wanted,
                "rows from {start} are taken away twice"
            );
        }
        rows.optimize();
        (!rows.is_empty()).then(|| Deleted { rows: Arc::new(rows) })
    }

    /// The bytes of the vector: the magic number and the portable bitmap.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        self.rows
            .serialize_into(&mut bytes)
            .expect("a Vec takes everything");
        bytes
    }

    /// The size of the vector in bytes, before it is encoded as text in the log.
    pub(super) fn size(&self) -> usize {
        MAGIC.to_le_bytes().len() + self.rows.serialized_size()
    }

    /// The vector as text, as the log has it.
    pub(super) fn text(&self) -> String {
        self.descriptor().path_or_inline_dv
    }

    /// Reads a vector of `rows` rows from its text. Returns `None` for an empty vector.
    ///
    /// # Errors
    /// Returns a text that says what is wrong with the vector.
    pub(super) fn of_text(text: &str, rows: u64) -> Result<Option<Deleted>, String> {
        Deleted::read(&DeletionVectorDescriptor {
            storage_type: StorageType::Inline,
            path_or_inline_dv: text.to_owned(),
            offset: None,
            size_in_bytes: 0,
            cardinality: i64::try_from(rows).unwrap_or(i64::MAX),
        })
    }

    /// The descriptor of the vector for the log.
    pub(super) fn descriptor(&self) -> DeletionVectorDescriptor {
        let mut bytes = self.bytes();
        let size = bytes.len();
        // Z85 encodes four bytes as five characters, so the size must be a multiple of 4. Readers stop where the
        // bitmap ends.
        bytes.resize(size.next_multiple_of(4), 0);
        DeletionVectorDescriptor {
            storage_type: StorageType::Inline,
            path_or_inline_dv: z85::encode(&bytes),
            offset: None,
            size_in_bytes: i32::try_from(size).unwrap_or(i32::MAX),
            cardinality: i64::try_from(self.len()).unwrap_or(i64::MAX),
        }
    }

    /// Reads a vector from the log. Returns `None` for an empty vector.
    ///
    /// # Errors
    /// Returns a text that says what is wrong with the vector.
    pub(super) fn read(descriptor: &DeletionVectorDescriptor) -> Result<Option<Deleted>, String> {
        if descriptor.storage_type != StorageType::Inline {
            let kind = descriptor.storage_type.as_ref();
            return Err(format!(
                "deletion vector is stored as `{kind}`, expected `i`: inline"
            ));
        }
        let bytes = z85::decode(&descriptor.path_or_inline_dv)
            .map_err(|error| format!("deletion vector is no Z85 text: {error}"))?;
        let Some((magic, bitmap)) = bytes.split_first_chunk() else {
            return Err(format!(
                "deletion vector has {} bytes, expected 4 or more",
                bytes.len()
            ));
        };
        let magic = u32::from_le_bytes(*magic);
        if magic != MAGIC {
            return Err(format!("deletion vector begins with {magic}, expected {MAGIC}"));
        }
        let rows = RoaringTreemap::deserialize_from(bitmap)
            .map_err(|error| format!("deletion vector does not read back: {error}"))?;
        if i64::try_from(rows.len()) != Ok(descriptor.cardinality) {
            return Err(format!(
                "deletion vector has {} rows, expected {}",
                rows.len(),
                descriptor.cardinality
            ));
        }
        Ok((!rows.is_empty()).then(|| Deleted { rows: Arc::new(rows) }))
    }
}

/// Removes the deleted rows from runs of rows.
pub(super) fn without(runs: Vec<Range<usize>>, deleted: Option<&Deleted>) -> Vec<Range<usize>> {
    let Some(deleted) = deleted else { return runs };
    let gone = deleted.ranges();
    let mut gone = gone
        .iter()
        .map(|range| range.start as usize..range.end as usize)
        .peekable();
    let mut left = Vec::with_capacity(runs.len());
    for run in runs {
        let mut start = run.start;
        while let Some(hole) = gone.next_if(|hole| hole.end <= run.end) {
            if hole.start > start {
                left.push(start..hole.start);
            }
            start = start.max(hole.end);
        }
        // A run of deleted rows that reaches beyond the end of this run can also cut the next run, so it is not
        // consumed here.
        let end = gone
            .peek()
            .map_or(run.end, |hole| hole.start.clamp(start, run.end));
        if end > start {
            left.push(start..end);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_reads_back_as_written() {
        let deleted = Deleted::with(None, [3..10, 70_000..70_001, (1 << 33)..(1 << 33) + 5]).unwrap();
        assert_eq!(deleted.len(), 13);
        assert_eq!(Deleted::read(&deleted.descriptor()).unwrap().unwrap(), deleted);
        assert_eq!(deleted.bytes().len(), deleted.size());
        let more = Deleted::with(Some(&deleted), [10..12, 12..20]).unwrap();
        assert_eq!(more.ranges(), [3..20, 70_000..70_001, (1 << 33)..(1 << 33) + 5]);
        assert_eq!(Deleted::with(None, []), None);
    }

    /// The example of delta-kernel's tests, which Spark wrote.
    #[test]
    fn a_vector_of_another_writer_is_read() {
        let descriptor = DeletionVectorDescriptor {
            storage_type: StorageType::Inline,
            path_or_inline_dv: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L".to_owned(),
            offset: None,
            size_in_bytes: 44,
            cardinality: 6,
        };
        let deleted = Deleted::read(&descriptor).unwrap().unwrap();
        assert_eq!(deleted.ranges(), [3..5, 7..8, 11..12, 18..19, 29..30]);
    }

    #[test]
    fn a_damaged_vector_is_refused_with_what_is_wrong() {
        let good = Deleted::with(None, [3..5, 5..10]).unwrap().descriptor();
        let refused = |change: &dyn Fn(&mut DeletionVectorDescriptor)| {
            let mut bad = good.clone();
            change(&mut bad);
            Deleted::read(&bad).unwrap_err()
        };
        let said = refused(&|bad| bad.cardinality = 8);
        assert_eq!(said, "deletion vector has 7 rows, expected 8");
        let said = refused(&|bad| bad.storage_type = StorageType::AbsolutePath);
        assert!(said.contains("stored as `p`"), "{said}");
        assert!(refused(&|bad| bad.path_or_inline_dv.truncate(3)).contains("Z85"));
        assert!(refused(&|bad| bad.path_or_inline_dv.truncate(0)).contains("0 bytes"));
        assert!(refused(&|bad| bad.path_or_inline_dv.truncate(10)).contains("does not read back"));
        let said = refused(&|bad| bad.path_or_inline_dv.replace_range(0..1, "0"));
        assert!(said.contains("begins with"), "{said}");
    }

    #[test]
    fn runs_lose_what_is_deleted_and_nothing_else() {
        let deleted = Deleted::with(None, [0..2, 5..9, 12..13, 20..30]).unwrap();
        let oracle = |runs: &[Range<usize>]| -> Vec<usize> {
            let gone = |row: usize| deleted.ranges().iter().any(|range| range.contains(&(row as u64)));
            runs.iter().cloned().flatten().filter(|&row| !gone(row)).collect()
        };
        for runs in [
            vec![0..30, 30..40],
            vec![],
            vec![1..6, 8..25],
            vec![6..7, 7..8, 10..11, 12..13, 29..31],
            vec![0..1, 1..2, 2..3],
        ] {
            let left: Vec<usize> = without(runs.clone(), Some(&deleted))
                .into_iter()
                .flatten()
                .collect();
            assert_eq!(left, oracle(&runs), "{runs:?}");
        }
    }
}
