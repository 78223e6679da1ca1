//! `vaplan audit`: how good labels are where there is no dense truth, by a sample of a person's verdicts.
//!
//! ```text
//! labels of a version ── strata (by, label) ── draw ── CSV ── a person ── verdicts ── table `verdicts`
//!                                                                                       │
//! labels of the latest version ── strata (by, labels of all versions with verdicts) ────┴─ estimate ── report
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

use vaplan_schemas::rows::VerdictRow;
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{Table, Verdicts};
use vaplan_schemas::{StoreError, StoreVersion};

pub use self::draw::{SampledSegment, draw};
pub use self::population::AuditStrata;
pub use self::report::{AuditReport, AuditRow, report};
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

/// Adds verdicts to the store, as one version that changes no label. A verdict replaces an earlier one on the same segment.
/// Returns the new version, or the latest one if nothing changes.
///
/// # Errors
/// Returns [`AuditError::Store`] if the store cannot be read or written.
pub fn add_verdicts(
    store: &Store,
    rows: Vec<VerdictRow>,
    command: &str,
    on_wait: &mut dyn FnMut(&str),
) -> Result<StoreVersion, AuditError> {
    let lock = store.lock(on_wait)?;
    let latest = store.at_version(None)?;
    let before = sorted(&latest)?;
    // Later rows replace earlier ones of the same key.
    let mut all = before.clone();
    all.extend(rows);
    all.reverse();
    all.sort_by(Verdicts::compare);
    all.dedup_by(|a, b| Verdicts::compare(a, b).is_eq());
    if all == before {
        return Ok(StoreVersion(latest.version().version));
    }
    let version = latest.version();
    let info = CommitInfo {
        command: command.to_owned(),
        epoch: None,
        settings: version.settings.clone(),
        models: version.models.clone(),
        // The hash of the labels' inputs stays, so that `label` with the same inputs still finds that it is done.
        inputs: version.inputs.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        videos: 0,
        author: None,
        note: None,
    };
    let mut commit = store.begin(&lock, info)?;
    commit.replace_all::<Verdicts>(&all)?;
    Ok(StoreVersion(commit.finish()?.version))
}

/// The verdicts of a version, sorted by key.
fn sorted(snapshot: &Snapshot) -> Result<Vec<VerdictRow>, StoreError> {
    let mut rows = snapshot.read::<Verdicts>()?;
    rows.sort_by(Verdicts::compare);
    Ok(rows)
}

#[cfg(test)]
mod tests;
