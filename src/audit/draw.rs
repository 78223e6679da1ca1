//! The random sample of a seed.
//!
//! Each segment has a random number: a hash of the seed and its key. The sample of a stratum has the segments with the
//! smallest numbers. The sample therefore depends on the seed and the labels only, and not on the order of files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vaplan_schemas::rows::{LabelTrack, Split, VerdictRow};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::{Modality, StoreError};

use super::population::{AuditStrata, groups, of_videos};

/// A segment that a person shall judge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampledSegment {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Segment, from 0.
    pub segment: u32,
    /// The label of the segment.
    pub label: bool,
    /// The rule that set the label.
    pub rule: &'static str,
}

/// The strata of a population: by the key of `by` and the label.
type Strata = BTreeMap<(String, bool), Stratum>;

#[derive(Default)]
struct Stratum {
    /// Number of segments without a verdict.
    size: u64,
    /// The segments with the smallest random numbers, at most as many as the whole sample has.
    chosen: BTreeSet<(u64, SampledSegment)>,
}

/// The request of a sample. The sample is a function of the request, the labels of the version and the earlier verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleRequest {
    /// What the sample is stratified by, beside the label.
    pub by: AuditStrata,
    /// Number of segments to draw.
    pub count: usize,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Splits whose videos are sampled.
    pub splits: Vec<Split>,
}

/// Draws segments of a version that have no verdict in `judged`, sorted by key. Half of them have a set label, so that
/// precision and recall rest on equally many verdicts. Within each half, a stratum has a share in proportion to its size, and
/// at least 2 if it has as many.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn draw(
    snapshot: &Snapshot,
    judged: &[VerdictRow],
    request: &SampleRequest,
) -> Result<Vec<SampledSegment>, StoreError> {
    let judged: BTreeSet<(&str, Modality, &str, u32)> = judged
        .iter()
        .map(|row| (&*row.video, row.modality, &*row.class, row.segment))
        .collect();
    let mut strata = Strata::new();
    for group in groups(snapshot, &request.splits)? {
        for track in of_videos(snapshot, group)?.values() {
            for segment in 0..track.segments() {
                let key = (&*track.video, track.modality, &*track.class, segment as u32);
                if !judged.contains(&key) {
                    offer(&mut strata, track, segment, request);
                }
            }
        }
    }
    Ok(choose(&strata, request.count as u64))
}

/// Counts a segment in its stratum, and keeps the segment if its random number is among the smallest.
fn offer(strata: &mut Strata, track: &LabelTrack, segment: usize, request: &SampleRequest) {
    let label = track.labels[segment];
    let stratum = strata
        .entry((request.by.of(track, segment).to_owned(), label))
        .or_default();
    stratum.size += 1;
    let key = (&*track.video, track.modality, &*track.class, segment as u32);
    let number = random(request.seed, key);
    let full = stratum.chosen.len() >= request.count;
    let largest = stratum.chosen.last();
    if full && largest.is_none_or(|(largest, _)| number > *largest) {
        return;
    }
    let own = SampledSegment {
        video: track.video.clone(),
        modality: track.modality,
        class: track.class.clone(),
        segment: segment as u32,
        label,
        rule: track.rules[segment].as_str(),
    };
    stratum.chosen.insert((number, own));
    if full {
        stratum.chosen.pop_last();
    }
}

/// The sample: `wanted` segments, divided among the strata.
fn choose(strata: &Strata, wanted: u64) -> Vec<SampledSegment> {
    let half = |label: bool| -> Vec<&Stratum> {
        let own = strata.iter().filter(|(key, _)| key.1 == label);
        own.map(|(_, own)| own).collect()
    };
    let all = |label: bool| -> u64 { half(label).iter().map(|own| own.size).sum() };
    let (set, unset) = (all(true), all(false));
    // If one half has too few segments, the other half takes the rest.
    let of_set = (wanted.div_ceil(2)).max(wanted.saturating_sub(unset)).min(set);
    let mut sample = Vec::new();
    for (label, wanted) in [(true, of_set), (false, (wanted - of_set).min(unset))] {
        let own = half(label);
        let sizes: Vec<u64> = own.iter().map(|stratum| stratum.size).collect();
        for (stratum, share) in own.iter().zip(shares(&sizes, wanted)) {
            let chosen = stratum.chosen.iter().take(share as usize);
            sample.extend(chosen.map(|(_, segment)| segment.clone()));
        }
    }
    sample.sort();
    sample
}

/// Divides `wanted` among strata in proportion to their sizes, by largest remainder. Each stratum first gets 2, or its size
/// if that is less, as long as `wanted` lasts; the largest strata come first.
fn shares(sizes: &[u64], wanted: u64) -> Vec<u64> {
    let mut shares = vec![0; sizes.len()];
    let mut left = wanted.min(sizes.iter().sum());
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(sizes[at]), at));
    for &at in &order {
        shares[at] = sizes[at].min(2).min(left);
        left -= shares[at];
    }
    while left > 0 {
        // The stratum that is furthest below its proportional share gets the next segment.
        let open = order.iter().copied().filter(|&at| shares[at] < sizes[at]);
        let next = open.min_by(|&a, &b| {
            let filled = |at: usize| shares[at] as f64 / sizes[at] as f64;
            filled(a).total_cmp(&filled(b))
        });
        let Some(next) = next else { break };
        shares[next] += 1;
        left -= 1;
    }
    shares
}

fn random(seed: u64, (video, modality, class, segment): (&str, Modality, &str, u32)) -> u64 {
    let mut sum = Sha256::new();
    sum.update(seed.to_le_bytes());
    for text in [video, modality.as_str(), class] {
        sum.update((text.len() as u64).to_le_bytes());
        sum.update(text);
    }
    sum.update(segment.to_le_bytes());
    let bytes = sum.finalize();
    u64::from_le_bytes(bytes[..8].try_into().expect("a sum has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn strata_get_two_each_and_then_their_proportion() {
        assert_eq!(shares(&[100, 300, 600], 100), [10, 30, 60]);
        assert_eq!(shares(&[1, 5, 994], 20), [1, 2, 17]);
        assert_eq!(shares(&[3, 3], 100), [3, 3], "no more than there are");
        assert_eq!(shares(&[10, 20, 30], 3), [0, 1, 2], "the largest come first");
        assert_eq!(shares(&[], 5), [0; 0]);
    }
}
