//! The numbers and plots of a whole store version.
//!
//! | part | read from |
//! |---|---|
//! | counts, classes, histogram of losses | the index, which is in memory |
//! | flips by class and epoch | `label_changes`; the counts of a file are kept, because files never change |
//! | scores of predictions by epoch and class | `predictions` and `truth` of these videos; the scores of an epoch are kept |
//! | scores of the labels, threshold sweep | `truth`, `scores` and `labels` of at most [`quality::MOST_VIDEOS`] videos |
//! | epochs, versions | `epochs`, `versions` |

pub mod classes;
pub mod epochs;
pub mod flips;
pub mod quality;

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{EpochRow, Severity};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Epochs, Rejects};

use self::classes::{ClassCounts, LossHistogram, SplitCounts};
use self::epochs::EpochScoreReader;
use self::flips::{FlipReader, PldFlips};
use self::quality::{SplitQuality, ThresholdSweep};
use super::history::ShownVersion;
use super::index::ReviewIndex;
use crate::error::LabelError;

/// Number of versions that are listed, the latest.
const VERSIONS: usize = 200;
/// Number of epochs that are listed, the latest.
const EPOCHS: usize = 200;

/// The overview of a store version.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// Store version.
    pub version: u64,
    /// Number of versions.
    pub versions_in_all: usize,
    /// The last versions, from the first of them to the latest.
    pub versions: Vec<ShownVersion>,
    /// Counts of each split.
    pub splits: Vec<SplitCounts>,
    /// Number of rejected rows.
    pub rejects: usize,
    /// Counts of each class and modality: for each class in order, audio and then visual.
    pub classes: Vec<ClassCounts>,
    /// Epoch that the labels are compared with.
    pub epoch: Option<u64>,
    /// Highest forward loss of each track, as a histogram.
    pub losses: Option<LossHistogram>,
    /// Labels that PLD changed, by epoch and class.
    pub flips: PldFlips,
    /// The last epochs of the parser.
    pub epochs: Vec<ShownEpoch>,
    /// Scores of the labels and of the predictions on each split with truth.
    pub quality: Vec<SplitQuality>,
    /// Thresholds tried on a split.
    pub sweeps: Vec<ThresholdSweep>,
}

/// An epoch, as the page shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownEpoch {
    /// Number of the epoch.
    pub epoch: u64,
    /// Number of the training, from 1, among those of the listed epochs.
    pub training: usize,
    /// Labels that PLD flipped by this epoch.
    pub flips: Option<u64>,
    /// Weighted sum of the losses, as a mean over the videos.
    pub loss: Option<f64>,
    /// Scores in percent by name.
    pub metrics: Vec<(Arc<str>, f64)>,
}

/// The last epochs, in order.
fn shown_epochs(mut rows: Vec<EpochRow>) -> Vec<ShownEpoch> {
    rows.sort_by_key(|row| row.epoch);
    let mut training = 0;
    let mut run: Option<Arc<str>> = None;
    let first = rows.len().saturating_sub(EPOCHS);
    let shown = rows.into_iter().skip(first).map(|row| {
        if run.as_ref() != Some(&row.run) {
            training += 1;
            run = Some(row.run);
        }
        let total = row.losses.iter().find(|(name, _)| &**name == "total");
        ShownEpoch {
            epoch: row.epoch,
            training,
            flips: row.flips,
            loss: total.map(|(_, value)| *value).filter(|value| value.is_finite()),
            metrics: row
                .metrics
                .into_iter()
                .filter(|(_, value)| value.is_finite())
                .collect(),
        }
    });
    shown.collect()
}

/// Readers that keep what they read, so that the overview of a later version reads only what is new.
#[derive(Debug, Default)]
pub struct OverviewReaders {
    flips: FlipReader,
    epochs: EpochScoreReader,
}

impl Overview {
    /// Makes the overview of a version. `index` must be of the same version.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn read(
        snapshot: &Snapshot,
        index: &ReviewIndex,
        readers: &OverviewReaders,
    ) -> Result<Overview, LabelError> {
        let version = snapshot.version().version;
        let mut versions = snapshot.store().versions()?;
        versions.retain(|row| row.version <= version);
        let versions_in_all = versions.len();
        let shown = &versions[versions_in_all.saturating_sub(VERSIONS)..];
        let rejects = snapshot.read::<Rejects>()?;
        let (quality, sweeps) = quality::read(snapshot, index, &readers.epochs)?;
        Ok(Overview {
            version,
            versions_in_all,
            versions: shown.iter().map(ShownVersion::from).collect(),
            splits: classes::splits(index),
            rejects: rejects
                .iter()
                .filter(|row| row.severity == Severity::Reject)
                .count(),
            classes: classes::count(index),
            epoch: index.epoch,
            losses: index.epoch.map(|_| LossHistogram::of(index)),
            flips: readers.flips.read(snapshot)?,
            epochs: shown_epochs(snapshot.read::<Epochs>()?),
            quality,
            sweeps,
        })
    }
}

/// Keeps the last overview, and makes that of a later version in the background.
#[derive(Clone, Debug, Default)]
pub(super) struct OverviewCache(Arc<CachedOverview>);

#[derive(Debug, Default)]
struct CachedOverview {
    last: Mutex<Option<Arc<Overview>>>,
    /// Only one overview is made at a time.
    making: Mutex<()>,
    readers: OverviewReaders,
}

impl OverviewCache {
    /// The overview of the version of `index`. If an overview of an earlier version is there, returns that one at once, and
    /// makes the new one on another thread: the caller sees by its version that it can ask again.
    pub(super) fn get(&self, store: &Store, index: &Arc<ReviewIndex>) -> Result<Arc<Overview>, LabelError> {
        match self.last() {
            Some(last) if last.version >= index.version => Ok(last),
            Some(last) => {
                let (own, store, index) = (self.clone(), store.clone(), index.clone());
                std::thread::spawn(move || {
                    if let Err(error) = own.make(&store, &index, true) {
                        tracing::warn!(%error, "the overview of a version cannot be made");
                    }
                });
                Ok(last)
            }
            None => self.make(store, index, false),
        }
    }

    fn last(&self) -> Option<Arc<Overview>> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes an overview. With `or_leave`, leaves it to another thread that is making one.
    fn make(&self, store: &Store, index: &ReviewIndex, or_leave: bool) -> Result<Arc<Overview>, LabelError> {
        let making = match (self.0.making.try_lock(), self.last()) {
            (Ok(making), _) => making,
            (Err(_), Some(last)) if or_leave => return Ok(last),
            (Err(_), _) => self.0.making.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if let Some(last) = self.last().filter(|last| last.version >= index.version) {
            return Ok(last);
        }
        let snapshot = store.at_version(Some(StoreVersion(index.version)))?;
        let made = Arc::new(Overview::read(&snapshot, index, &self.0.readers)?);
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        drop(making);
        Ok(made)
    }
}
