//! The buckets that one process labels and writes.

use vaplan_dataflows::placement::{BucketPlacement, Placement};

use super::passes::Pass;

/// The buckets that one process labels and writes. Every bucket belongs to one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketShare {
    process: usize,
    /// `None` if the process has all buckets.
    placement: Option<BucketPlacement>,
}

impl BucketShare {
    /// All buckets.
    pub const ALL: BucketShare = BucketShare {
        process: 0,
        placement: None,
    };

    /// The share of one of several processes, each with this number of workers, in a store of this number of buckets.
    pub fn of(process: usize, processes: usize, workers: usize, buckets: u32) -> BucketShare {
        BucketShare {
            process,
            placement: Some(BucketPlacement {
                bits: buckets.trailing_zeros(),
                processes: processes as u32,
                workers: workers as u32,
            }),
        }
    }

    /// Returns whether the process has this bucket.
    pub fn has(&self, bucket: u32) -> bool {
        let of = |placement: BucketPlacement| placement.process_of_bucket(bucket) == self.process;
        self.placement.is_none_or(of)
    }

    /// The buckets of a pass that the process has, ascending.
    pub fn of_pass(&self, pass: &Pass) -> Vec<u32> {
        pass.buckets.clone().filter(|bucket| self.has(*bucket)).collect()
    }

    /// The worker of each video.
    pub fn placement(&self) -> Placement {
        self.placement.map_or(Placement::Spread, Placement::Buckets)
    }

    /// The number of processes that write buckets.
    pub fn processes(&self) -> usize {
        self.placement.map_or(1, |placement| placement.processes as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_belongs_to_one_process_and_shares_differ_by_at_most_one() {
        for (processes, buckets) in [(1, 8), (2, 1), (3, 16), (20, 1024)] {
            let shares = (0..processes).map(|process| BucketShare::of(process, processes, 2, buckets));
            let held = |share: BucketShare| (0..buckets).filter(|bucket| share.has(*bucket)).count();
            let counts: Vec<usize> = shares.map(held).collect();
            assert_eq!(counts.iter().sum::<usize>(), buckets as usize);
            assert!(
                counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1,
                "{counts:?}"
            );
        }
        assert!((0..8).all(|bucket| BucketShare::ALL.has(bucket)));
    }
}
