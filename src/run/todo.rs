//! Compares the file of a run with the store: which stages are done, and which are not. It opens every input and
//! changes nothing.

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Table as _, UserLabels};
use vaplan_schemas::{Modality, StoreError};

use super::config::Config;
#[cfg(feature = "encode")]
use super::encode;
use super::ledger::{self, Ledger, RunStage, StageKind};
use super::{RunError, RunRequest, commit, foreign};
use crate::engine::plan::{DenoisingState, Plan};
use crate::error::LabelError;
use crate::ingest::features::{FeatureInput, Shard};
use crate::ingest::seen::SeenInputs;
use crate::label;
use crate::parser::FeaturePaths;
use crate::world::World;
use crate::world::hash::{feed, hash};

/// The stages of a run, and which of them are done.
#[derive(Debug)]
pub struct Todo {
    pub(super) config: Config,
    pub(super) text: Arc<str>,
    pub(super) plan: Plan,
    /// The features that the parser learns from, and whether they are the same as in earlier commands.
    pub(super) seen: SeenInputs,
    pub(super) label: label::LabelRequest,
    pub(super) paths: FeaturePaths,
    /// All stages of the run, in order.
    pub stages: Vec<RunStage>,
    /// Ledger of the store, without stages whose key differs from the file's.
    pub ledger: Ledger,
    /// Whether the labels must be made.
    pub labels: bool,
    /// Denoising settings and active predictions that the labels must have before the first stage that is not done.
    pub(super) denoised: DenoisingState,
    /// Whether no predictions are active after all stages are done, too.
    pub(super) for_good: bool,
    /// What another command changed of the labels since the last run, and this run takes back.
    pub(super) foreign: Vec<String>,
}

impl Todo {
    /// Reads the file, opens every input and compares them with the store. Nothing is changed. `None` if the run has
    /// media that are not encoded yet, because all stages depend on the encoded features.
    ///
    /// # Errors
    /// Returns [`RunError`] if the file or an input cannot be used.
    pub fn new(request: &RunRequest) -> Result<Option<Todo>, RunError> {
        let (config, text) = Config::read(&request.config)?;
        #[cfg_attr(not(feature = "encode"), expect(unused_mut, reason = "media fill it"))]
        let mut label = label_request(&config, request)?;
        #[cfg(feature = "encode")]
        if !encode::known(&config, request, &mut label)? {
            return Ok(None);
        }
        Todo::of(config, text, label).map(Some)
    }

    pub(super) fn of(config: Config, text: Arc<str>, label: label::LabelRequest) -> Result<Todo, RunError> {
        let mut plan = label::plan::open(&label)?;
        let latest = latest(&config.store)?;
        let world = latest.as_ref().map(World::read).transpose()?;
        let mut ledger = world.as_ref().map(commit::ledger).unwrap_or_default();
        let trained = &config.train_features;
        let paths = FeaturePaths {
            audio: vec![trained.audio.clone().unwrap_or_else(|| label.audio.clone())],
            visual: vec![trained.visual.clone().unwrap_or_else(|| label.visual.clone())],
            clips: trained.clips.iter().cloned().collect(),
            columns: config.columns()[1].clone(),
            cache: Store::own_dir_at(&config.store)?.join("train/features"),
        };
        let key = |user_labels: &str| hash(|sum| feed(sum, [&*plan.inputs, user_labels]));
        let (labels, unmarked) = (key(&user_labels(latest.as_ref())?), key(&user_labels(None)?));
        let mut seen = label::plan::memory(&config.store);
        let stages = ledger::stages(&config, (&labels, &unmarked), &features(&paths, &mut seen)?);
        ledger.keep(&stages);
        // Denoise again if another command changed the denoising of the store, or if the file no longer asks for it.
        let compares = ledger.compares(&stages);
        let wanted = ledger.denoised(
            &stages,
            &plan.world,
            config.denoising().map_err(RunError::Stopped)?,
        );
        let for_good = wanted.1.is_none();
        let at_end = wanted.clone();
        let denoised = if compares {
            DenoisingState::default()
        } else {
            wanted
        };
        let other = world
            .as_ref()
            .is_some_and(|world| commit::denoised(world) != denoised);
        let learns = stages
            .iter()
            .any(|stage| stage.kind != StageKind::Score && ledger.done(stage).is_none());
        let held = |snapshot: &Snapshot| snapshot.version().inputs == plan.inputs;
        // If a stage must be trained, the graph of the training takes the flips back. Otherwise label again to remove
        // them.
        let labels = !latest.as_ref().is_some_and(held) || (other && !learns);
        // While a stage is trained, the denoising can differ from the one at the end, so compare with that of the end.
        let foreign = world.map_or_else(Vec::new, |world| foreign::changes(&world, &plan.world, &at_end));
        plan.denoised = Some(denoised.clone());
        Ok(Todo {
            denoised,
            for_good,
            foreign,
            config,
            text,
            plan,
            seen,
            label,
            paths,
            stages,
            ledger,
            labels,
        })
    }

    /// Returns the stages that are not done with their current key.
    pub fn open(&self) -> impl Iterator<Item = &RunStage> {
        self.stages
            .iter()
            .filter(|stage| self.ledger.done(stage).is_none())
    }
}

/// Returns the latest version of a store. `None` if the store does not exist or has no version.
pub(super) fn latest(store: &Path) -> Result<Option<Snapshot>, StoreError> {
    match Store::open(store) {
        Ok(store) => store.latest(),
        Err(StoreError::NoStore { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns a hash of the user labels. It is made from the rows and not from the files: the same labels may be delivered
/// in other files, and a file may hold a label that was withdrawn later.
fn user_labels(snapshot: Option<&Snapshot>) -> Result<String, StoreError> {
    let mut rows = snapshot.map_or(Ok(Vec::new()), Snapshot::read::<UserLabels>)?;
    rows.sort_by(UserLabels::compare);
    Ok(hash(|sum| {
        for row in &rows {
            let label = if row.label { "1" } else { "0" };
            feed(sum, [&*row.video, row.modality.as_str(), &*row.class, label]);
            feed(sum, [&*row.segment.to_string()]);
        }
    }))
}

/// Returns a hash of the features that the parser learns from.
fn features(features: &FeaturePaths, seen: &mut SeenInputs) -> Result<String, RunError> {
    let all = [
        (Modality::Audio, &features.audio),
        (Modality::Visual, &features.visual),
        (Modality::Visual, &features.clips),
    ];
    let mut fingerprints = Vec::new();
    for (modality, paths) in all {
        let input = FeatureInput::open_all(paths, modality, &features.columns, &|_| true);
        let input = input.map_err(LabelError::from)?;
        // The number of shards separates the kinds. Without it, the last shards of one kind could count as the first of
        // the next kind, and two different inputs would get one hash.
        fingerprints.push(input.shards.len().to_string());
        seen.look_at(input.shards.iter().flat_map(Shard::files));
        fingerprints.extend(input.shards.iter().map(|shard| shard.fingerprint_as(seen)));
    }
    Ok(hash(|sum| feed(sum, fingerprints.iter().map(|text| &**text))))
}

/// Returns the labelling request of a file. The caller adds the features that are encoded from media.
pub(super) fn label_request(config: &Config, request: &RunRequest) -> Result<label::LabelRequest, RunError> {
    let features = config.features.clone();
    Ok(label::LabelRequest {
        store: config.store.clone(),
        annotations: config.data.annotations.clone(),
        classes: config.data.classes.clone(),
        visual: features.visual.unwrap_or_default(),
        visual_text: features.visual_text.unwrap_or_default(),
        audio: features.audio.unwrap_or_default(),
        audio_text: features.audio_text.unwrap_or_default(),
        label_folders: [None, None],
        left_out: Vec::new(),
        splits: config.data.splits.clone(),
        segment_seconds: config.data.segment_seconds,
        settings: config.settings()?,
        allow_missing: false,
        columns: config.columns()[0].clone(),
        workers: request.workers,
        command: request.command.clone(),
    })
}
