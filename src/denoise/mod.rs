//! `vaplan denoise`: labels that an epoch of the store contradicts, flipped as one store version.
//!
//! ```text
//! epoch ─ named, or the best with predictions of train videos ─┐
//! K, α, guard, modalities ─────────────────────────────────────┴─ relabel ─┬─▶ flips by class and direction
//!                                     labels before, label changes, truth ─┴─▶ F-scores before and after
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`quality`] | F-scores of labels before and after a change of them |

pub mod quality;

use std::path::PathBuf;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::{DataFile, Snapshot, Store};
use vaplan_schemas::tables::LabelChanges;

use crate::engine::Listener;
use crate::error::LabelError;
use crate::eval::EvalError;
use crate::relabel::{self, RelabelRequest, RelabelSummary};
use crate::world::changes::{Changes, DenoiseRequest};
use crate::world::epochs;
use quality::Quality;

/// What is asked.
#[derive(Clone, Debug)]
pub struct DenoisingRequest {
    /// Store to change.
    pub store: PathBuf,
    /// Epoch whose predictions count; none: [`epochs::best`].
    pub epoch: Option<u64>,
    /// K, α, guard and modalities.
    pub denoising: DenoiseRequest,
    /// Timely workers.
    pub workers: usize,
    /// Say what would change, and commit nothing.
    pub dry_run: bool,
    /// What was asked, as a command line, for the `versions` table.
    pub command: String,
}

/// What was done, or would be.
#[derive(Clone, Debug)]
pub struct DenoiseSummary {
    /// Epoch whose predictions count.
    pub epoch: u64,
    /// The change; its flips are all that PLD makes, also those that were there.
    pub summary: RelabelSummary,
    /// Of each split with dense truth.
    pub quality: Vec<Quality>,
}

/// What keeps a store from being denoised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DenoiseError {
    /// The store cannot be read or changed so.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Labels cannot be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// Denoises the labels of a store's latest version.
///
/// # Errors
/// [`DenoiseError`]; the version before is then still the latest.
pub fn run(request: &DenoisingRequest, listener: &Listener) -> Result<DenoiseSummary, DenoiseError> {
    let store = Store::open(&request.store).map_err(LabelError::from)?;
    let latest = store.at_version(None).map_err(LabelError::from)?;
    let epoch = match request.epoch {
        Some(epoch) => epoch,
        None => {
            let best = epochs::best(&latest, Split::Train)?;
            best.ok_or_else(|| epochs::missing(&latest, Split::Train, None))?
        }
    };
    let change = RelabelRequest {
        store: request.store.clone(),
        changes: Changes {
            epoch: Some(epoch),
            denoising: request.denoising.clone(),
            ..Changes::default()
        },
        workers: request.workers,
        dry_run: request.dry_run,
        command: request.command.clone(),
    };
    let mut summary = relabel::run(&change, listener)?;
    let before = match &summary.version {
        // Another process may have committed since the epoch was chosen.
        Some(version) => {
            let before = StoreVersion(version.version - 1);
            summary.changes = changes(&store, version.version)?;
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

/// Rows of `label_changes` of a version.
fn changes(store: &Store, version: u64) -> Result<Vec<vaplan_schemas::rows::LabelChangeRow>, LabelError> {
    let after: Snapshot = store.at_version(Some(StoreVersion(version)))?;
    let own = |file: &DataFile| file.version().is_none_or(|of| of == version);
    let mut rows = after.read_some::<LabelChanges>(own)?;
    rows.retain(|row| row.version == version);
    Ok(rows)
}
