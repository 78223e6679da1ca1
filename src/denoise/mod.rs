//! `vaplan denoise`: flips the labels that an epoch of the store contradicts, and commits one store version.
//!
//! ```text
//! epoch ─ named, or the best with predictions of train videos ─┐
//! rule, modalities ─ named, or chosen on val ──────────────────┴─ relabel ─┬─▶ flips by class and direction
//!                                     labels before, label changes, truth ─┴─▶ F-scores before and after
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`quality`] | F-scores of the labels before and after a change |

pub mod quality;

use std::path::PathBuf;

use vaplan_schemas::rows::Split;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Table as _, Truth};
use vaplan_schemas::{Modality, StoreVersion};

use crate::calibrate::CalibrateError;
use crate::calibrate::gate::{DenoisingGain, denoising_gain};
use crate::calibrate::sample::CalibrationSample;
use crate::engine::Listener;
use crate::engine::cluster::outcome::ClusterOutcome;
use crate::engine::cluster::settings::ClusterSettings;
use crate::error::LabelError;
use crate::eval::EvalError;
use crate::relabel::{self, RelabelRequest, RelabelSummary};
use crate::world::changes::{Changes, DenoiseRequest};
use crate::world::{World, epochs};
use quality::Quality;

/// A denoising of a store, as a caller requests it.
#[derive(Clone, Debug)]
pub struct DenoisingRequest {
    /// Store to change.
    pub store: PathBuf,
    /// Epoch whose predictions PLD reads. `None`: the epoch that [`epochs::best`] returns.
    pub epoch: Option<u64>,
    /// Rule, parameters and modalities.
    pub denoising: DenoiseRequest,
    /// Whether a rule is chosen on split val if `denoising` names neither a rule nor a parameter, and the split has dense truth
    /// and predictions of the epoch. If no rule gains on held-out videos, nothing is denoised.
    pub calibrate: bool,
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
    /// The rule that was chosen on val, and its gain; `None` if no rule was chosen. If the rule does not gain, `summary` is
    /// empty, and the store is as it was.
    pub calibration: Option<DenoisingGain>,
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
    /// No rule can be chosen.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
}

/// Denoises the labels of the latest version of a store.
///
/// # Errors
/// Returns [`DenoiseError`] if the store cannot be denoised or scored. If the change fails, the store has no new
/// version.
pub fn run(request: &DenoisingRequest, listener: &Listener) -> Result<DenoiseSummary, DenoiseError> {
    let plan = DenoisingPlan::new(request)?;
    match &plan.change {
        Some(change) => {
            let summary = relabel::run(change, listener)?;
            plan.report(summary)
        }
        None => Ok(plan.nothing()),
    }
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
    let plan = DenoisingPlan::new(request)?;
    let Some(change) = &plan.change else {
        // Every process finds that no rule gains, from the same version.
        return Ok(ClusterOutcome::Led(Box::new(plan.nothing())));
    };
    Ok(match relabel::cluster::run(change, settings, listener)? {
        ClusterOutcome::Led(summary) => ClusterOutcome::Led(Box::new(plan.report(*summary)?)),
        ClusterOutcome::Followed { version, rejects } => ClusterOutcome::Followed { version, rejects },
    })
}

/// The change that a request asks for.
struct DenoisingPlan {
    store: Store,
    latest: Snapshot,
    epoch: u64,
    calibration: Option<DenoisingGain>,
    /// `None` if a rule was to be chosen, and no rule gains.
    change: Option<RelabelRequest>,
}

impl DenoisingPlan {
    fn new(request: &DenoisingRequest) -> Result<DenoisingPlan, DenoiseError> {
        let store = Store::open(&request.store).map_err(LabelError::from)?;
        let latest = store.at_version(None).map_err(LabelError::from)?;
        let epoch = match request.epoch {
            Some(epoch) => epoch,
            None => {
                let best = epochs::best(&latest, Split::Train)?;
                best.ok_or_else(|| epochs::missing(&latest, Split::Train, None))?
            }
        };
        let mut denoising = request.denoising.clone();
        let calibration =
            match request.calibrate && denoising.rule.is_none() && denoising.parameters.is_empty() {
                true => calibrated(&latest, epoch, denoising.modalities.as_deref())?,
                false => None,
            };
        if let Some(gain) = &calibration {
            denoising.rule = Some(gain.rule.name().to_owned());
            denoising.parameters = gain.rule.parameters();
        }
        let gains = calibration.as_ref().is_none_or(DenoisingGain::is_gain);
        let change = gains.then(|| RelabelRequest {
            store: request.store.clone(),
            changes: Changes {
                epoch: Some(epoch),
                denoising,
                ..Changes::default()
            },
            workers: request.workers,
            dry_run: request.dry_run,
            command: request.command.clone(),
        });
        Ok(DenoisingPlan {
            store,
            latest,
            epoch,
            calibration,
            change,
        })
    }

    /// The result if no rule gains.
    fn nothing(self) -> DenoiseSummary {
        DenoiseSummary {
            epoch: self.epoch,
            calibration: self.calibration,
            summary: RelabelSummary::default(),
            quality: Vec::new(),
        }
    }

    /// Compares the labels before and after.
    fn report(self, mut summary: RelabelSummary) -> Result<DenoiseSummary, DenoiseError> {
        let before = match &summary.version {
            // Another process may have committed a version since the epoch was chosen. Compare with the version directly
            // before the new one.
            Some(version) => {
                let before = StoreVersion(version.version - 1);
                summary.changes = relabel::changes(&self.store, version.version)?;
                self.store.at_version(Some(before)).map_err(LabelError::from)?
            }
            None => self.latest,
        };
        Ok(DenoiseSummary {
            epoch: self.epoch,
            calibration: self.calibration,
            quality: quality::of_changes(&before, &summary.changes)?,
            summary,
        })
    }
}

/// The rule that gains most on split val, for the modalities of the request, of the store, or else the visual one. Returns
/// `None` if the split has no dense truth or the epoch did not predict it.
fn calibrated(
    latest: &Snapshot,
    epoch: u64,
    modalities: Option<&[Modality]>,
) -> Result<Option<DenoisingGain>, DenoiseError> {
    // Most stores have no dense truth, and then no scores need to be read.
    if latest.files(Truth::NAME).map_err(LabelError::from)?.is_empty() {
        return Ok(None);
    }
    let world = World::read(latest)?;
    let denoised = |modality: &Modality| world.denoising[modality.index()].is_some();
    let of_store: Vec<Modality> = Modality::ALL.into_iter().filter(denoised).collect();
    let modalities = match (modalities, &of_store[..]) {
        (Some(named), _) => named,
        (None, []) => &[Modality::Visual],
        (None, own) => own,
    };
    let predicted = epochs::predicts(latest, epoch, Split::Val)?;
    if !predicted {
        return Ok(None);
    }
    let sample = match CalibrationSample::read(latest, &world, Split::Val, Some(epoch)) {
        Ok(sample) => sample,
        Err(CalibrateError::Eval(EvalError::NoVideos { .. } | EvalError::NoTruth { .. })) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(denoising_gain(&sample.videos, &world.settings, modalities))
}
