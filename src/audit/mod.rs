//! `vaplan audit`: how good labels are where there is no dense truth, by a sample of a person's verdicts.
//!
//! ```text
//! labels of a version ── strata (by, label) ── draw ─┬─ CSV ───────── a person ─┬─ verdicts ── table `verdicts`
//!                                                    └─ page (serve) ───────────┘                   │
//! labels of the latest version ── strata (by, labels of all versions with verdicts) ────────────────┴─ estimate ── report
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`population`] | the segments that can be judged, and the strata that they belong to |
//! | `draw` | the random sample of a seed |
//! | [`sheet`] | the CSV file of a sample, and verdicts read from it |
//! | [`estimate`] | precision, recall and their intervals |
//! | `report` | the estimates of a store version |

pub mod draw;
pub mod estimate;
pub mod population;
pub mod report;
pub mod sheet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::rows::VerdictRow;
use vaplan_schemas::store::{CommitInfo, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{Table, Verdicts};
use vaplan_schemas::{Modality, StoreError, StoreVersion};

pub use self::draw::{SampleRequest, SampledSegment, draw};
pub use self::population::AuditStrata;
pub use self::report::{AuditFrame, AuditReport, AuditRow, FrameBasis, report};
use crate::ingest::IngestError;

/// The reason why an audit fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of verdicts cannot be read, or the file of the sample cannot be written.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store has no labels to judge.
    #[error("version {version} has no labels{of}, expected at least one")]
    NoLabels {
        /// The store version.
        version: u64,
        /// What was asked for, such as " of split val".
        of: String,
    },
    /// The store has no verdicts.
    #[error(
        "version {version} has no verdicts, expected some: draw a sample by --sample and --out, fill in its column \
         `verdict`, and read the file by --verdicts"
    )]
    NoVerdicts {
        /// The store version.
        version: u64,
    },
}

/// The key of a verdict: video, modality, class and segment.
pub type VerdictKey = (Arc<str>, Modality, Arc<str>, u32);

/// The key of a verdict.
pub fn verdict_key(row: &VerdictRow) -> VerdictKey {
    (row.video.clone(), row.modality, row.class.clone(), row.segment)
}

/// A change of verdicts.
#[derive(Clone, Debug, Default)]
pub struct VerdictChange {
    /// Verdicts to add. A verdict replaces an earlier one on the same segment.
    pub added: Vec<VerdictRow>,
    /// Segments whose verdicts are taken back.
    pub withdrawn: BTreeSet<VerdictKey>,
    /// The command line, for column `command` of table `versions`.
    pub command: String,
    /// The person who made the verdicts, for column `author` of table `versions`.
    pub author: Option<Arc<str>>,
}

/// Changes the verdicts of the store, as one version that changes no label. Returns the new version, or the latest one if
/// nothing changes.
///
/// # Errors
/// Returns [`AuditError::Store`] if the store cannot be read or written.
pub fn change_verdicts(
    store: &Store,
    change: VerdictChange,
    on_wait: &mut dyn FnMut(&str),
) -> Result<StoreVersion, AuditError> {
    change_verdicts_if(store, change, on_wait, |_| Ok(()))
}

/// Like [`change_verdicts`], but first calls `check` with the verdicts of the latest version, while this process holds the
/// write lock. If `check` returns an error, nothing is committed.
///
/// # Errors
/// Returns the error of `check`, and the errors of [`change_verdicts`].
pub fn change_verdicts_if<E: From<AuditError>>(
    store: &Store,
    change: VerdictChange,
    on_wait: &mut dyn FnMut(&str),
    check: impl FnOnce(&[VerdictRow]) -> Result<(), E>,
) -> Result<StoreVersion, E> {
    let lock = store.lock(on_wait).map_err(AuditError::from)?;
    let latest = store.at_version(None).map_err(AuditError::from)?;
    let before = sorted(&latest).map_err(AuditError::from)?;
    check(&before)?;
    Ok(commit_verdicts(store, &lock, &latest, &before, change)?)
}

fn commit_verdicts(
    store: &Store,
    lock: &WriteLock,
    latest: &Snapshot,
    before: &[VerdictRow],
    change: VerdictChange,
) -> Result<StoreVersion, AuditError> {
    let mut all: BTreeMap<VerdictKey, VerdictRow> =
        before.iter().map(|row| (verdict_key(row), row.clone())).collect();
    all.retain(|key, _| !change.withdrawn.contains(key));
    all.extend(change.added.into_iter().map(|row| (verdict_key(&row), row)));
    let all: Vec<VerdictRow> = all.into_values().collect();
    if all == before {
        return Ok(StoreVersion(latest.version().version));
    }
    let version = latest.version();
    let info = CommitInfo {
        command: change.command,
        epoch: None,
        settings: version.settings.clone(),
        models: version.models.clone(),
        // The hash of the labels' inputs stays, so that `label` with the same inputs still finds that it is done.
        inputs: version.inputs.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        videos: 0,
        author: change.author,
        note: None,
    };
    let mut commit = store.begin(lock, info)?;
    commit.replace_all::<Verdicts>(&all)?;
    Ok(StoreVersion(commit.finish()?.version))
}

/// The verdicts of a version, sorted by key.
pub(crate) fn sorted(snapshot: &Snapshot) -> Result<Vec<VerdictRow>, StoreError> {
    let mut rows = snapshot.read::<Verdicts>()?;
    rows.sort_by(Verdicts::compare);
    Ok(rows)
}

#[cfg(test)]
mod tests;
