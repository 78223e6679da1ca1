//! Divides the videos of a run into passes. A pass is a range of neighbouring buckets whose videos are loaded, labelled
//! and written together, so that memory holds the rows of a few passes, and not the rows of all videos.
//!
//! ```text
//! ids of videos     0 ─────────────────────────────────────────── 2^64       the top bits of an id give the bucket
//! buckets           │ 0 │ 1 │ 2 │ 3 │ 4 │ 5 │ 6 │ 7 │ ...                    one data file per table
//! groups            │   0   │   1   │   2   │   3   │ ...                    one section per staged shard
//! passes            │       0       │       1       │ ...                    whole buckets and whole groups
//! ```

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};
use vaplan_dataflows::VideoId;

use super::plan::Plan;

/// Largest number of videos of a pass, unless a single bucket or group has more. Smaller passes need less memory, but
/// each pass starts a dataflow and opens every staged shard.
const PASS_VIDEOS: usize = 8192;
/// Largest number of bits of a group. A staged shard has an index entry of 32 bytes for each of its 2^bits groups.
const MOST_GROUP_BITS: u32 = 10;

/// The passes of a run, in order. All processes of a cluster use the passes of process 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passes {
    buckets: u32,
    /// The first bucket of each pass, ascending.
    firsts: Vec<u32>,
    /// The bucket after each pass; `None` if each pass ends where the next one begins, and the last one at the end.
    ends: Option<Vec<u32>>,
}

/// A range of neighbouring buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The buckets of the pass.
    pub buckets: Range<u32>,
    /// The number of buckets of the store.
    of: u32,
}

impl Passes {
    /// Divides the buckets of a store. `before` has the number of videos of each bucket in the version before, because
    /// labelling also loads the labels of that version. The processes divide the
    /// buckets of a pass, so that the memory of a process falls with the number of processes.
    pub fn new(plan: &Plan, buckets: u32, processes: usize, before: &BTreeMap<u32, u64>) -> Passes {
        let mut videos = vec![0_u64; buckets as usize];
        for video in plan.videos.ids() {
            videos[top_bits(video, buckets.trailing_zeros()) as usize] += 1;
        }
        for (bucket, rows) in before {
            let own = &mut videos[*bucket as usize];
            *own = (*own).max(*rows);
        }
        let groups = 1 << group_bits(plan.videos.len());
        Passes::of_counts(&videos, groups, pass_videos() as u64, processes as u32)
    }

    /// Divides buckets with these numbers of videos into passes of at most `most` videos. A pass begins and ends at the
    /// border of one of `groups` groups, so that it has whole groups only. A pass has at least `least` buckets, so that every
    /// process has a bucket to write; the last pass and a store with fewer buckets can have less.
    fn of_counts(videos: &[u64], groups: u32, most: u64, least: u32) -> Passes {
        let buckets = videos.len() as u32;
        let step = (buckets / groups).max(1);
        let (mut firsts, mut held) = (vec![0], 0);
        for (first, own) in (0..).step_by(step as usize).zip(videos.chunks(step as usize)) {
            let own: u64 = own.iter().sum();
            let begun = firsts.last().copied().unwrap_or_default();
            if held > 0 && held + own > most && first - begun >= least {
                firsts.push(first);
                held = 0;
            }
            held += own;
        }
        Passes {
            buckets,
            firsts,
            ends: None,
        }
    }

    /// One pass for each of these buckets.
    #[cfg(test)]
    pub(super) fn in_tests(buckets: u32) -> Passes {
        Passes {
            buckets,
            firsts: (0..buckets).collect(),
            ends: None,
        }
    }

    /// One pass for each of these ranges of buckets, of a store with so many buckets. The other buckets are not labelled.
    #[cfg(feature = "encode")]
    pub(crate) fn of_ranges(ranges: Vec<Range<u32>>, buckets: u32) -> Passes {
        Passes {
            buckets,
            ends: Some(ranges.iter().map(|range| range.end).collect()),
            firsts: ranges.into_iter().map(|range| range.start).collect(),
        }
    }

    /// The number of passes.
    pub fn count(&self) -> usize {
        self.firsts.len()
    }

    /// Iterates over the passes, in order of bucket.
    pub fn iter(&self) -> impl Iterator<Item = Pass> + '_ {
        let next = || {
            self.firsts
                .iter()
                .skip(1)
                .copied()
                .chain([self.buckets])
                .collect()
        };
        let ends: Vec<u32> = self.ends.clone().unwrap_or_else(next);
        self.firsts.iter().zip(ends).map(|(&first, end)| Pass {
            buckets: first..end,
            of: self.buckets,
        })
    }
}

impl Pass {
    /// The ids of the videos of the pass.
    pub fn ids(&self) -> RangeInclusive<VideoId> {
        let start = |bucket: u32| u128::from(bucket) << (64 - self.of.trailing_zeros());
        let last = start(self.buckets.end) - 1;
        VideoId(start(self.buckets.start) as u64)..=VideoId(last as u64)
    }

    /// The bucket of a video.
    pub fn bucket_of(&self, video: VideoId) -> u32 {
        top_bits(video, self.of.trailing_zeros())
    }

    /// The groups of the pass, if ids are divided into 2^`bits` groups.
    pub fn groups(&self, bits: u32) -> Range<u32> {
        let ids = self.ids();
        top_bits(*ids.start(), bits)..top_bits(*ids.end(), bits) + 1
    }
}

/// The number of bits of a group in the staged shards of a plan of this number of videos: a group has at most a quarter
/// of a pass, as far as `MOST_GROUP_BITS` allows.
pub fn group_bits(videos: usize) -> u32 {
    let wanted = videos.div_ceil((pass_videos() / 4).max(1)).max(1);
    wanted.next_power_of_two().trailing_zeros().min(MOST_GROUP_BITS)
}

/// The first `bits` bits of an id, as a number.
pub fn top_bits(video: VideoId, bits: u32) -> u32 {
    match bits {
        0 => 0,
        bits => (video.0 >> (64 - bits)) as u32,
    }
}

/// The number of videos for which a new store gets its buckets. It is the number of videos of the plan, except in a test
/// with small passes: the store then gets small buckets, too, because a pass has whole buckets.
pub fn bucketed_videos(videos: usize) -> usize {
    match small_passes() {
        Some(small) => videos * PASS_VIDEOS.div_ceil(small),
        None => videos,
    }
}

fn pass_videos() -> usize {
    small_passes().unwrap_or(PASS_VIDEOS)
}

/// The number of videos of a pass in a test. The environment variable `VAPLAN_PASS_VIDEOS` gives the number, and counts in
/// builds with debug assertions only.
fn small_passes() -> Option<usize> {
    if !cfg!(debug_assertions) {
        return None;
    }
    let wanted = std::env::var("VAPLAN_PASS_VIDEOS").ok()?.parse().ok()?;
    (1..PASS_VIDEOS).contains(&wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_have_whole_groups_and_every_id_is_in_one_pass() {
        for bits in 0..7 {
            for groups in [1_u32, 2, 8, 64] {
                for most in [1, 3, 10, 1000] {
                    let videos: Vec<u64> = (0..1 << bits).map(|bucket| (bucket * 7) % 5).collect();
                    let passes = Passes::of_counts(&videos, groups, most, 1);
                    let what = format!("{} buckets, {groups} groups, {most} videos", 1 << bits);
                    let mut next = Some(0);
                    for pass in passes.iter() {
                        let ids = pass.ids();
                        assert_eq!(Some(ids.start().0), next, "{what}");
                        next = ids.end().0.checked_add(1);
                        assert_eq!(pass.bucket_of(*ids.start()), pass.buckets.start, "{what}");
                        assert_eq!(pass.bucket_of(*ids.end()), pass.buckets.end - 1, "{what}");
                        let own = pass.groups(groups.trailing_zeros());
                        let other = |id: Option<u64>| {
                            let id = id.map(|id| top_bits(VideoId(id), groups.trailing_zeros()));
                            id.is_some_and(|group| own.contains(&group))
                        };
                        assert!(!other(ids.start().0.checked_sub(1)) && !other(next), "{what}");
                        // A pass with more videos has a single group or bucket with videos.
                        let own = &videos[pass.buckets.start as usize..pass.buckets.end as usize];
                        let step = (videos.len() / groups as usize).max(1);
                        let held = own.chunks(step).map(|unit| unit.iter().sum::<u64>());
                        let (total, filled) =
                            (held.clone().sum::<u64>(), held.filter(|unit| *unit > 0).count());
                        assert!(total <= most || filled == 1, "{what}: {total}");
                    }
                    assert_eq!(next, None, "{what}: the last pass ends at the last id");
                }
            }
        }
    }

    #[test]
    fn a_pass_has_a_bucket_for_each_process() {
        for processes in [2, 3, 5, 16] {
            let passes = Passes::of_counts(&[100; 64], 16, 50, processes);
            let sizes: Vec<usize> = passes.iter().map(|pass| pass.buckets.len()).collect();
            let (last, all) = sizes.split_last().unwrap();
            assert!(all.iter().all(|size| *size >= processes as usize), "{sizes:?}");
            assert!(*last > 0 && sizes.iter().sum::<usize>() == 64, "{sizes:?}");
        }
        assert_eq!(Passes::of_counts(&[100; 2], 1, 50, 3).count(), 1);
    }

    #[test]
    fn a_group_has_at_most_a_quarter_of_a_pass_as_far_as_the_index_allows() {
        assert_eq!(group_bits(0), 0);
        assert_eq!(group_bits(2048), 0);
        assert_eq!(group_bits(2049), 1);
        assert_eq!(group_bits(400_000), 8);
        assert_eq!(group_bits(40_000_000), MOST_GROUP_BITS);
    }
}
