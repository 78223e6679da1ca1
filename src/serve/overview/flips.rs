//! Labels that PLD changed, by epoch and class.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelChangeTrack, LabelRule};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{LabelChanges, Table};

use crate::error::LabelError;

/// Number of epochs that are listed, the latest.
const EPOCHS: usize = 100;
/// Largest number of counts (epochs × tracks), so that the overview stays a small answer.
const MOST_COUNTS: usize = 20_000;

/// The flips of all epochs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PldFlips {
    /// The last epochs that flipped labels, the first epoch first.
    pub epochs: Vec<EpochFlips>,
    /// The tracks that these epochs flipped, those with the most flips first.
    pub tracks: Vec<TrackFlips>,
    /// Number of tracks that these epochs flipped, also of those that are not listed.
    pub tracks_in_all: usize,
}

/// The flips of an epoch, of all classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochFlips {
    /// Epoch of the predictions.
    pub epoch: u64,
    /// Labels that PLD set, and labels that PLD unset.
    pub flips: [u64; 2],
}

/// The flips of a track: a class and modality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrackFlips {
    /// Class.
    pub class: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Labels that PLD set, by epoch, in the order of the epochs.
    pub set: Vec<u64>,
    /// Labels that PLD unset, by epoch, in the order of the epochs.
    pub unset: Vec<u64>,
}

type FlipKey = (u64, Arc<str>, Modality);
type FlipCounts = BTreeMap<FlipKey, [u64; 2]>;

/// Reads flips, and keeps the counts of each data file. Files of `label_changes` never change, so that a later version reads
/// only its new files.
#[derive(Debug, Default)]
pub struct FlipReader(Mutex<BTreeMap<PathBuf, Arc<FlipCounts>>>);

impl FlipReader {
    /// The flips of every epoch up to a version.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn read(&self, snapshot: &Snapshot) -> Result<PldFlips, LabelError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let files = snapshot.files(LabelChanges::NAME)?;
        let mut kept = BTreeMap::new();
        let mut sum = FlipCounts::new();
        for file in files {
            // Rows are only removed from a file if their video is removed, which is rare: read such a file again.
            let counts = match known.get(&file.path).filter(|_| file.deleted.is_none()) {
                Some(counts) => counts.clone(),
                None => {
                    let rows = snapshot.read_some::<LabelChanges>(|other| other.path == file.path)?;
                    Arc::new(count(&rows))
                }
            };
            for (key, flips) in &*counts {
                let own = sum.entry(key.clone()).or_default();
                *own = [own[0] + flips[0], own[1] + flips[1]];
            }
            kept.insert(file.path, counts);
        }
        *known = kept;
        Ok(PldFlips::of(&sum))
    }
}

fn count(rows: &[LabelChangeTrack]) -> FlipCounts {
    let mut counts = FlipCounts::new();
    for row in rows.iter().filter(|row| row.rule == LabelRule::Pld) {
        for why in &row.why {
            let own = counts
                .entry((why.epoch, row.class.clone(), row.modality))
                .or_default();
            own[usize::from(!row.to)] += 1;
        }
    }
    counts
}

impl PldFlips {
    fn of(sum: &FlipCounts) -> PldFlips {
        let mut epochs: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
        for ((epoch, ..), flips) in sum {
            let own = epochs.entry(*epoch).or_default();
            *own = [own[0] + flips[0], own[1] + flips[1]];
        }
        let skipped = epochs.len().saturating_sub(EPOCHS);
        let epochs: Vec<EpochFlips> = epochs
            .into_iter()
            .skip(skipped)
            .map(|(epoch, flips)| EpochFlips { epoch, flips })
            .collect();
        let mut tracks: BTreeMap<(&Arc<str>, Modality), TrackFlips> = BTreeMap::new();
        for ((epoch, class, modality), flips) in sum {
            let Ok(at) = epochs.binary_search_by_key(epoch, |own| own.epoch) else {
                continue;
            };
            let own = tracks.entry((class, *modality)).or_insert_with(|| TrackFlips {
                class: class.clone(),
                modality: *modality,
                set: vec![0; epochs.len()],
                unset: vec![0; epochs.len()],
            });
            own.set[at] += flips[0];
            own.unset[at] += flips[1];
        }
        let mut tracks: Vec<TrackFlips> = tracks.into_values().collect();
        let tracks_in_all = tracks.len();
        let total = |own: &TrackFlips| own.set.iter().chain(&own.unset).sum::<u64>();
        tracks.sort_by_key(|own| std::cmp::Reverse(total(own)));
        tracks.truncate((MOST_COUNTS / epochs.len().max(1)).max(1));
        PldFlips {
            epochs,
            tracks,
            tracks_in_all,
        }
    }
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::FlipReason;

    use super::*;

    fn change(class: &str, to: bool, rule: LabelRule, epochs: &[u64]) -> LabelChangeTrack {
        let reason = |epoch: &u64| FlipReason {
            epoch: *epoch,
            loss: None,
            limit: None,
        };
        LabelChangeTrack {
            version: 2,
            video: "clip".into(),
            modality: Modality::Visual,
            class: class.into(),
            to,
            rule,
            segments: (0..epochs.len().max(1) as u32).collect(),
            why: epochs.iter().map(reason).collect(),
        }
    }

    #[test]
    fn only_flips_count_by_class_and_epoch_and_the_most_come_first() {
        let rows = [
            change("Cat", true, LabelRule::Pld, &[3]),
            change("Dog", false, LabelRule::Pld, &[3, 3, 4]),
            change("Dog", true, LabelRule::Pld, &[4]),
            change("Dog", true, LabelRule::Plg, &[]),
        ];
        let flips = PldFlips::of(&count(&rows));
        let epochs = flips.epochs.iter().map(|own| (own.epoch, own.flips));
        assert_eq!(epochs.collect::<Vec<_>>(), [(3, [1, 2]), (4, [1, 1])]);
        let [dog, cat] = &flips.tracks[..] else {
            panic!("two tracks: {:?}", flips.tracks)
        };
        assert_eq!(
            (&*dog.class, &dog.set[..], &dog.unset[..]),
            ("Dog", &[0, 1][..], &[2, 1][..])
        );
        assert_eq!(
            (&*cat.class, &cat.set[..], &cat.unset[..]),
            ("Cat", &[1, 0][..], &[0, 0][..])
        );
        assert_eq!(flips.tracks_in_all, 2);
    }

    #[test]
    fn many_classes_and_epochs_stay_a_small_answer() {
        let of_epoch = |epoch: u64| {
            (0..1000).map(move |class| change(&format!("class{class:03}"), true, LabelRule::Pld, &[epoch]))
        };
        let rows: Vec<LabelChangeTrack> = (1..=EPOCHS as u64 + 7).flat_map(of_epoch).collect();
        let flips = PldFlips::of(&count(&rows));
        assert_eq!((flips.epochs.len(), flips.epochs[0].epoch), (EPOCHS, 8));
        assert_eq!(
            (flips.tracks.len(), flips.tracks_in_all),
            (MOST_COUNTS / EPOCHS, 1000)
        );
        assert!(flips.tracks[0].set.iter().all(|count| *count == 1));
    }
}
