//! `vaplan denoise`: flips the labels that an epoch of the store contradicts, and commits one store version.
//!
//! ```text
//! epoch ─ named, or the best with predictions of train videos ─┐
//! K, α, guard, modalities ─────────────────────────────────────┴─ relabel ─┬─▶ flips by class and direction
//!                                     labels before, label changes, truth ─┴─▶ F-scores before and after
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`quality`] | F-scores of the labels before and after a change |

pub mod quality;

use std::path::PathBuf;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::{Snapshot, Store};

use crate::engine::Listener;
use crate::engine::cluster::outcome::ClusterOutcome;
use crate::engine::cluster::settings::ClusterSettings;
use crate::error::LabelError;
use crate::eval::EvalError;
use crate::relabel::{self, RelabelRequest, RelabelSummary};
use crate::world::changes::{Changes, DenoiseRequest};
use crate::world::epochs;
use quality::Quality;

/// A denoising of a store, as a caller requests it.
#[derive(Clone, Debug)]
pub struct DenoisingRequest {
    /// Store to change.
    pub store: PathBuf,
    /// Epoch whose predictions PLD reads. `None`: the epoch that [`epochs::best`] returns.
    pub epoch: Option<u64>,
    /// K, α, guard and modalities.
    pub denoising: DenoiseRequest,
    /// Number of timely workers.
    pub workers: usize,
    /// Whether to compute the changes without a commit.
    pub dry_run: bool,
    /// Command line of the change, for the `versions` table.
    pub command: String,
}

/// Result of a denoising.
#[derive(Clone, Debug)]
pub struct DenoiseSummary {
    /// Epoch whose predictions PLD reads.
    pub epoch: u64,
    /// The change of the store. Its flips are all flips of PLD, including those that the labels had before.
    pub summary: RelabelSummary,
    /// Scores of each split with dense truth, before and after.
    pub quality: Vec<Quality>,
}

/// Error of a denoising.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DenoiseError {
    /// The store cannot be read, or the change is refused.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The labels cannot be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// Denoises the labels of the latest version of a store.
///
/// # Errors
/// Returns [`DenoiseError`] if the store cannot be denoised or scored. If the change fails, the store has no new
/// version.
pub fn run(request: &DenoisingRequest, listener: &Listener) -> Result<DenoiseSummary, DenoiseError> {
    let (latest, epoch) = epoch(request)?;
    let summary = relabel::run(&change(request, epoch), listener)?;
    report(request, latest, epoch, summary)
}

/// Denoises as one of several processes. All processes must get the same request, except for its `command`.
///
/// A failed run leaves threads that wait, so the process must end after an error.
///
/// # Errors
/// Returns the same errors as [`run`], and [`LabelError::Cluster`] if the processes do not meet in time, have different
/// requests or secrets, or lose a process.
pub fn run_in_cluster(
    request: &DenoisingRequest,
    settings: &ClusterSettings,
    listener: &Listener,
) -> Result<ClusterOutcome<DenoiseSummary>, DenoiseError> {
    let (latest, epoch) = epoch(request)?;
    Ok(
        match relabel::cluster::run(&change(request, epoch), settings, listener)? {
            ClusterOutcome::Led(summary) => {
                ClusterOutcome::Led(Box::new(report(request, latest, epoch, *summary)?))
            }
            ClusterOutcome::Followed { version, rejects } => ClusterOutcome::Followed { version, rejects },
        },
    )
}

/// The latest version, and the epoch whose predictions PLD reads.
fn epoch(request: &DenoisingRequest) -> Result<(Snapshot, u64), LabelError> {
    let latest = Store::open(&request.store)?.at_version(None)?;
    let epoch = match request.epoch {
        Some(epoch) => epoch,
        None => {
            let best = epochs::best(&latest, Split::Train)?;
            best.ok_or_else(|| epochs::missing(&latest, Split::Train, None))?
        }
    };
    Ok((latest, epoch))
}

fn change(request: &DenoisingRequest, epoch: u64) -> RelabelRequest {
    RelabelRequest {
        store: request.store.clone(),
        changes: Changes {
            epoch: Some(epoch),
            denoising: request.denoising.clone(),
            ..Changes::default()
        },
        workers: request.workers,
        dry_run: request.dry_run,
        command: request.command.clone(),
    }
}

/// Compares the labels before and after.
fn report(
    request: &DenoisingRequest,
    latest: Snapshot,
    epoch: u64,
    mut summary: RelabelSummary,
) -> Result<DenoiseSummary, DenoiseError> {
    let before = match &summary.version {
        // Another process may have committed a version since the epoch was chosen. Compare with the version directly
        // before the new one.
        Some(version) => {
            let before = StoreVersion(version.version - 1);
            let store = Store::open(&request.store).map_err(LabelError::from)?;
            summary.changes = relabel::changes(&store, version.version)?;
            store.at_version(Some(before)).map_err(LabelError::from)?
        }
        None => latest,
    };
    Ok(DenoiseSummary {
        epoch,
        quality: quality::of_changes(&before, &summary.changes)?,
        summary,
    })
}
