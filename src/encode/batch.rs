//! Gathers the segments of several videos into batches of one size.
//!
//! The order of the videos alone decides where a batch ends: cached segments count too, and the speed of threads does
//! not matter. The last bits of a model's output depend on the other rows of the batch. A run that continues after a
//! kill must therefore form the same batches, so that it gives the same features.

use std::sync::Arc;

use vaplan_schemas::Modality;

use super::cache::{CacheKey, Piece};

/// Prepared segments that a model will encode together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The segments of the rows, in the order of the rows.
    pub pieces: Vec<Piece>,
    /// For each piece, the name of its video.
    pub names: Vec<Arc<str>>,
    /// For each video that ends in this batch: its key, and its number of segments.
    pub totals: Vec<(CacheKey, u32)>,
    /// Prepared values, row by row.
    pub values: Vec<f32>,
}

impl Batch {
    /// Number of segments in the batch.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.count as usize).sum()
    }

    /// Returns the video name, the piece and the segment of every row.
    pub fn places(&self) -> impl Iterator<Item = (&Arc<str>, &Piece, u32)> {
        self.pieces.iter().zip(&self.names).flat_map(|(piece, name)| {
            (piece.first..piece.first + piece.count).map(move |segment| (name, piece, segment))
        })
    }
}

/// Gathers the segments of one modality of a group of videos into batches.
pub struct Batcher<'a> {
    modality: Modality,
    size: usize,
    position: usize,
    batch: Batch,
    send: &'a mut dyn FnMut(Modality, Batch),
}

impl<'a> Batcher<'a> {
    /// Makes a batcher that passes batches of at most `size` segments to `send`.
    pub fn new(modality: Modality, size: usize, send: &'a mut dyn FnMut(Modality, Batch)) -> Batcher<'a> {
        Batcher {
            modality,
            size,
            position: 0,
            batch: Batch::default(),
            send,
        }
    }

    /// Counts the next segment without adding it, because its embedding is in the cache. The segment must be counted so
    /// that the batches end at the same segments as in a run without a cache.
    pub fn skip(&mut self) {
        self.place();
    }

    /// Adds the next segment; `fill` appends its prepared values.
    pub fn add(&mut self, name: &Arc<str>, key: &str, segment: u32, fill: impl FnOnce(&mut Vec<f32>)) {
        self.place();
        fill(&mut self.batch.values);
        if let Some(last) = self.batch.pieces.last_mut()
            && *last.key == *key
            && last.first + last.count == segment
        {
            last.count += 1;
            return;
        }
        self.batch.names.push(name.clone());
        self.batch.pieces.push(Piece {
            key: key.to_owned(),
            first: segment,
            count: 1,
        });
    }

    /// Records that the video with this key has this number of segments.
    pub fn total(&mut self, key: &str, segments: u32) {
        self.batch.totals.push((key.to_owned(), segments));
    }

    /// Sends the last batch, which may have less than `size` segments.
    pub fn finish(mut self) {
        self.flush();
    }

    fn place(&mut self) {
        if self.position > 0 && self.position.is_multiple_of(self.size) {
            self.flush();
        }
        self.position += 1;
    }

    fn flush(&mut self) {
        if !self.batch.pieces.is_empty() || !self.batch.totals.is_empty() {
            (self.send)(self.modality, std::mem::take(&mut self.batch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the batches of three videos with 3, 4 and 2 segments, each piece as `key first count`. The segments in
    /// `cached` are skipped.
    fn batches(cached: &[(&str, u32)]) -> Vec<Vec<String>> {
        let mut sent = Vec::new();
        let mut send = |_: Modality, batch: Batch| {
            assert_eq!(batch.rows(), batch.values.len());
            let pieces = batch.pieces.iter();
            sent.push(
                pieces
                    .map(|piece| format!("{} {} {}", piece.key, piece.first, piece.count))
                    .collect(),
            );
        };
        let mut batcher = Batcher::new(Modality::Visual, 4, &mut send);
        for (key, segments) in [("a", 3), ("b", 4), ("c", 2)] {
            for segment in 0..segments {
                if cached.contains(&(key, segment)) {
                    batcher.skip();
                } else {
                    batcher.add(&key.into(), key, segment, |values| values.push(0.0));
                }
            }
        }
        batcher.finish();
        sent
    }

    #[test]
    fn batches_cross_videos_and_end_where_they_would_without_a_cache() {
        let all = [vec!["a 0 3", "b 0 1"], vec!["b 1 3", "c 0 1"], vec!["c 1 1"]];
        assert_eq!(batches(&[]), all);
        let first = [("a", 0), ("a", 1), ("a", 2), ("b", 0)];
        assert_eq!(batches(&first), all[1..]);
        assert_eq!(
            batches(&[("b", 1), ("b", 2), ("b", 3), ("c", 0)]),
            [all[0].clone(), all[2].clone()]
        );
    }
}
