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
/// Number of classes of an epoch that are listed, those with the most flips.
const CLASSES: usize = 50;

/// The flips of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochFlips {
    /// Epoch of the predictions.
    pub epoch: u64,
    /// Labels that PLD set, and labels that PLD unset, of all classes.
    pub flips: [u64; 2],
    /// The classes with the most flips.
    pub classes: Vec<ClassFlips>,
}

/// The flips of an epoch in one class and modality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassFlips {
    /// Class.
    pub class: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Labels that PLD set, and labels that PLD unset.
    pub flips: [u64; 2],
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
    pub fn read(&self, snapshot: &Snapshot) -> Result<Vec<EpochFlips>, LabelError> {
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
        Ok(by_epoch(sum))
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

fn by_epoch(sum: FlipCounts) -> Vec<EpochFlips> {
    let mut epochs: BTreeMap<u64, EpochFlips> = BTreeMap::new();
    for ((epoch, class, modality), flips) in sum {
        let own = epochs.entry(epoch).or_insert_with(|| EpochFlips {
            epoch,
            flips: [0, 0],
            classes: Vec::new(),
        });
        own.flips = [own.flips[0] + flips[0], own.flips[1] + flips[1]];
        own.classes.push(ClassFlips {
            class,
            modality,
            flips,
        });
    }
    let skipped = epochs.len().saturating_sub(EPOCHS);
    let most_first = |mut epoch: EpochFlips| {
        let total = |flips: &ClassFlips| flips.flips[0] + flips.flips[1];
        epoch.classes.sort_by_key(|flips| std::cmp::Reverse(total(flips)));
        epoch.classes.truncate(CLASSES);
        epoch
    };
    epochs.into_values().skip(skipped).map(most_first).collect()
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
    fn only_flips_count_and_the_most_come_first() {
        let rows = [
            change("Cat", true, LabelRule::Pld, &[3]),
            change("Dog", false, LabelRule::Pld, &[3, 3, 4]),
            change("Dog", true, LabelRule::Plg, &[]),
        ];
        let epochs = by_epoch(count(&rows));
        assert_eq!(
            epochs
                .iter()
                .map(|own| (own.epoch, own.flips))
                .collect::<Vec<_>>(),
            [(3, [1, 2]), (4, [0, 1])]
        );
        assert_eq!(&*epochs[0].classes[0].class, "Dog");
    }
}
