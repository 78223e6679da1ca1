//! The result of a fit, which the store keeps, so that a request whose inputs did not change reads no features for the fit.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};
use vaplan_schemas::store::Store;

use crate::engine::plan::PlannedShard;
use crate::world::hash::{feed, hash};
use crate::world::settings::LabelSettings;
use crate::world::shares::EventShares;
use crate::world::{Both, KeptFit, World};

/// Version of the fit. Raise it with each change that can lead to other thresholds.
const FIT: &str = "1";

/// The thresholds of a fit, and its notes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdFit {
    /// Threshold of each class, as a user gives it.
    pub(super) thresholds: Both<Vec<f64>>,
    /// Notes on classes that keep their threshold.
    pub(super) notes: Vec<String>,
}

impl ThresholdFit {
    /// Replaces the thresholds.
    pub fn apply(&self, settings: &mut LabelSettings) {
        settings
            .audio
            .thresholds
            .clone_from(&self.thresholds[Modality::Audio.index()]);
        settings
            .visual
            .thresholds
            .clone_from(&self.thresholds[Modality::Visual.index()]);
    }

    /// The notes as rows of table `rejects`. `source` is the folder of the weak labels.
    pub fn notes(&self, source: &str) -> impl Iterator<Item = RejectRow> {
        let note = move |note: &String| RejectRow::note(RejectKind::FittedThreshold, source, note.clone());
        self.notes.iter().map(note)
    }

    /// The fit as a store keeps it.
    pub fn kept(&self, inputs: &str) -> KeptFit {
        let result = serde_json::to_string(self).expect("numbers and texts are JSON");
        KeptFit {
            inputs: inputs.into(),
            result: result.into(),
        }
    }

    /// Returns the fit that the latest version of a store keeps for these inputs. Returns `None` if there is none, or if the
    /// store cannot be read: labelling then reports the problem.
    pub fn of_store(store: &Path, inputs: &str, classes: usize) -> Option<ThresholdFit> {
        let latest = Store::open(store).ok()?.latest().ok()??;
        let kept = World::read(&latest).ok()?.fitted?;
        if *kept.inputs != *inputs {
            return None;
        }
        let fit: ThresholdFit = serde_json::from_str(&kept.result).ok()?;
        let whole =
            |own: &Vec<f64>| own.len() == classes && own.iter().all(|threshold| threshold.is_finite());
        fit.thresholds.iter().all(whole).then_some(fit)
    }
}

/// SHA-256, as hexadecimal text, of everything that a fit depends on: the hash of the weak labels, the shards with their prompts
/// and rule, the thresholds of classes that cannot be fitted, and the shares of events.
pub fn identity(
    settings: &LabelSettings,
    shares: EventShares,
    weak: &str,
    shards: &[PlannedShard],
) -> String {
    let settings = serde_json::to_string(settings).expect("settings are plain numbers and names");
    let shares = serde_json::to_string(&shares).expect("shares are numbers");
    hash(|sum| {
        feed(sum, [FIT, &settings, &shares, weak]);
        feed(sum, shards.iter().map(|shard| &*shard.inputs));
    })
}
