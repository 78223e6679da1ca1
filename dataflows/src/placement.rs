//! Which worker holds the records of a video, and arrangements that do not move records between workers.
//!
//! ```text
//! inputs by video ──── to the worker of the video ───┐
//!                                                    ├─ all operators of the graph, each on the records of its worker
//! thresholds, rules ── to all workers ───────────────┘
//! ```
//!
//! Differential's own arrangements exchange records by a hash of each key. The graph has keys of several types, so that
//! a score record would cross the network once per class. The graph therefore moves each record once, at its inputs.

use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::{ContainerChunker, ValBatcher, ValBuilder, ValSpine};
use differential_dataflow::{AsCollection, Data, ExchangeData, VecCollection};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Exchange;
use timely::dataflow::operators::vec::Broadcast;
use timely::progress::Timestamp;

use crate::records::VideoId;

/// Assigns each video to a worker. All workers of a dataflow must use the same placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The id of a video selects one of all workers.
    #[default]
    Spread,
    /// The bucket of a video selects a process, and the id selects one of the workers of the process. The process that
    /// writes the data files of a bucket then has all records of the bucket.
    Buckets(BucketPlacement),
}

/// Assigns the buckets of a store to processes, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketPlacement {
    /// The number of buckets is 2 to the power of `bits`.
    pub bits: u32,
    /// Number of processes.
    pub processes: u32,
    /// Number of workers of each process.
    pub workers: u32,
}

impl BucketPlacement {
    /// Returns the process that holds a bucket.
    pub fn process_of_bucket(&self, bucket: u32) -> usize {
        (bucket % self.processes) as usize
    }

    /// Returns the process that holds a video.
    pub fn process(&self, video: VideoId) -> usize {
        let bucket = match self.bits {
            0 => 0,
            bits => (video.0 >> (64 - bits)) as u32,
        };
        self.process_of_bucket(bucket)
    }

    fn worker(&self, video: VideoId) -> u64 {
        let workers = u64::from(self.workers);
        // Timely numbers the workers of process 0 first, then those of process 1, and so on.
        self.process(video) as u64 * workers + video.0 % workers
    }
}

impl Placement {
    /// Returns a number that selects the worker of a video. Timely divides the number by the number of workers, and the
    /// remainder is the index of the worker.
    pub fn worker(&self, video: VideoId) -> u64 {
        match self {
            Placement::Spread => video.0,
            Placement::Buckets(buckets) => buckets.worker(video),
        }
    }

    /// Moves each record to the worker of its video.
    pub(crate) fn place<'scope, T: Timestamp + Lattice, D: ExchangeData>(
        self,
        records: VecCollection<'scope, T, D>,
        video: impl Fn(&D) -> VideoId + 'static,
    ) -> VecCollection<'scope, T, D> {
        let placed = records
            .inner
            .exchange(move |(record, _, _)| self.worker(video(record)));
        placed.as_collection()
    }
}

/// Copies each record to all workers.
pub(crate) fn everywhere<'scope, T: Timestamp + Lattice, D: ExchangeData>(
    records: VecCollection<'scope, T, D>,
) -> VecCollection<'scope, T, D> {
    records.inner.broadcast().as_collection()
}

/// An arrangement of `(K, V)` in this crate.
pub(crate) type ArrangedHere<'scope, K, V, T> = Arranged<'scope, TraceAgent<ValSpine<K, V, T, isize>>>;

/// Arranges the records of each worker by key. Records of one key on two workers are not brought together.
pub(crate) fn arrange_here<'scope, K: ExchangeData, V: ExchangeData, T: Timestamp + Lattice>(
    records: VecCollection<'scope, T, (K, V)>,
    name: &str,
) -> ArrangedHere<'scope, K, V, T> {
    type Chunker<K, V, T> = ContainerChunker<Vec<((K, V), T, isize)>>;
    arrange_core::<_, _, Chunker<K, V, T>, ValBatcher<_, _, _, _>, ValBuilder<_, _, _, _>, _>(
        records.inner,
        Pipeline,
        name,
    )
}

/// Applies differential's `reduce` to the records of each worker.
pub(crate) fn reduce_here<'scope, K: ExchangeData, V: ExchangeData, V2: Data, T: Timestamp + Lattice>(
    records: VecCollection<'scope, T, (K, V)>,
    name: &str,
    logic: impl FnMut(&K, &[(&V, isize)], &mut Vec<(V2, isize)>) + 'static,
) -> VecCollection<'scope, T, (K, V2)> {
    arrange_here(records, &format!("Arrange: {name}"))
        .reduce_abelian::<_, ValBuilder<_, _, _, _>, ValSpine<K, V2, _, _>, _, _>(
            name,
            logic,
            |rows, key, updates| {
                rows.clear();
                let updates = updates.drain(..);
                rows.extend(updates.map(|(value, time, diff)| ((key.clone(), value), time, diff)));
            },
        )
        .as_collection(|key, value| (key.clone(), value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_has_one_process_and_every_worker_of_it_has_videos() {
        for (bits, processes, workers) in [(0, 3, 2), (4, 3, 2), (10, 20, 8), (3, 1, 5)] {
            let placement = BucketPlacement {
                bits,
                processes,
                workers,
            };
            let mut seen = vec![false; (processes * workers) as usize];
            for n in 0..20_000_u64 {
                let video = VideoId(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let bucket = (u128::from(video.0) >> (64 - bits)) as u32;
                let worker = Placement::Buckets(placement).worker(video) as usize;
                assert_eq!(worker / workers as usize, placement.process_of_bucket(bucket));
                seen[worker] = true;
            }
            let used = (1_u32 << bits).min(processes) * workers;
            assert_eq!(seen.iter().filter(|seen| **seen).count() as u32, used);
        }
    }
}
