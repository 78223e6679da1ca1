//! Segments of several videos, gathered to batches of one size.
//!
//! Where a batch ends depends on the order of the videos alone, not on what is cached or how fast threads are: a
//! model's last bits depend on what else is in its batch, and a run that goes on after a kill is to give the same.

use std::sync::Arc;

use vaplan_schemas::Modality;

use super::cache::{Key, Piece};

/// Prepared segments on their way to a model.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Whose rows these are, in order.
    pub pieces: Vec<Piece>,
    /// Names of the pieces' videos.
    pub names: Vec<Arc<str>>,
    /// Videos that end here, and how many segments they have.
    pub totals: Vec<(Key, u32)>,
    /// Prepared values, row by row.
    pub values: Vec<f32>,
}

impl Batch {
    /// Segments.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.count as usize).sum()
    }

    /// Video and segment of every row.
    pub fn places(&self) -> impl Iterator<Item = (&Arc<str>, &Piece, u32)> {
        self.pieces.iter().zip(&self.names).flat_map(|(piece, name)| {
            (piece.first..piece.first + piece.count).map(move |segment| (name, piece, segment))
        })
    }
}

/// Gathers the segments of one modality of a group of videos.
pub struct Batcher<'a> {
    modality: Modality,
    size: usize,
    position: usize,
    batch: Batch,
    send: &'a mut dyn FnMut(Modality, Batch),
}

impl<'a> Batcher<'a> {
    /// Of batches of `size`.
    pub fn new(modality: Modality, size: usize, send: &'a mut dyn FnMut(Modality, Batch)) -> Batcher<'a> {
        Batcher {
            modality,
            size,
            position: 0,
            batch: Batch::default(),
            send,
        }
    }

    /// The next segment, which is cached: it only takes its place.
    pub fn skip(&mut self) {
        self.place();
    }

    /// The next segment; `fill` appends its values.
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

    /// A video has so many segments.
    pub fn total(&mut self, key: &str, segments: u32) {
        self.batch.totals.push((key.to_owned(), segments));
    }

    /// All that is left.
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

    /// Batches of three videos of 3, 4 and 2 segments, of which some are cached, as `key first count`.
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
