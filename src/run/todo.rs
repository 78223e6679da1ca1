//! What there is to do of a run, and what is done: every input opened, nothing changed.

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Table as _, UserLabels};
use vaplan_schemas::{Modality, StoreError};

use super::config::Config;
#[cfg(feature = "encode")]
use super::encode;
use super::ledger::{self, Ledger, RunStage, StageKind};
use super::{RunError, RunRequest, commit};
use crate::engine::plan::{Denoised, Plan};
use crate::error::LabelError;
use crate::ingest::features::FeatureInput;
use crate::label;
use crate::parser::FeaturePaths;
use crate::world::World;
use crate::world::hash::{feed, hash};

/// What there is to do, and what is done.
#[derive(Debug)]
pub struct Todo {
    pub(super) config: Config,
    pub(super) text: Arc<str>,
    pub(super) plan: Plan,
    pub(super) label: label::LabelRequest,
    pub(super) paths: FeaturePaths,
    /// All stages in order.
    pub stages: Vec<RunStage>,
    /// What the store remembers.
    pub ledger: Ledger,
    /// Are labels to be made?
    pub labels: bool,
    /// What the labels are to be denoised by, as far as stages are done, before the first that is to be done.
    pub(super) denoised: Denoised,
    /// Is that nothing, also once all is done?
    pub(super) for_good: bool,
}

impl Todo {
    /// Opens every input, and changes nothing; none where media are not encoded yet, on which all else depends.
    ///
    /// # Errors
    /// [`RunError`] for an input that cannot be used at all.
    pub fn new(request: &RunRequest) -> Result<Option<Todo>, RunError> {
        let (config, text) = Config::read(&request.config)?;
        #[cfg_attr(not(feature = "encode"), expect(unused_mut, reason = "media fill it"))]
        let mut label = label_request(&config, request);
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
            cache: config.store.join("_vaplan/train/features"),
        };
        let marks = marks(latest.as_ref())?;
        let key = hash(|sum| feed(sum, [&*plan.inputs, &marks]));
        let stages = ledger::stages(&config, &key, &features(&paths)?);
        ledger.keep(&stages);
        // What the store says may have been changed by another command, or the file may not ask for denoising any more.
        let compares = ledger.compares(&stages);
        let wanted = ledger.denoised(&stages, &plan.world, config.pld().map_err(RunError::Stopped)?);
        let for_good = wanted.1.is_none();
        let denoised = if compares { Denoised::default() } else { wanted };
        let other = world.is_some_and(|world| commit::denoised(&world) != denoised);
        let learns = stages
            .iter()
            .any(|stage| stage.kind != StageKind::Score && ledger.done(stage).is_none());
        let held = |snapshot: &Snapshot| snapshot.version().inputs == plan.inputs;
        // Where there is something to learn, its graph takes flips back.
        let labels = !latest.as_ref().is_some_and(held) || (other && !learns);
        plan.denoised = Some(denoised.clone());
        Ok(Todo {
            denoised,
            for_good,
            config,
            text,
            plan,
            label,
            paths,
            stages,
            ledger,
            labels,
        })
    }

    /// Stages that are not done as they are asked.
    pub fn open(&self) -> impl Iterator<Item = &RunStage> {
        self.stages
            .iter()
            .filter(|stage| self.ledger.done(stage).is_none())
    }
}

/// The last version of a store; none: there is no store, or nothing in it.
pub(super) fn latest(store: &Path) -> Result<Option<Snapshot>, StoreError> {
    match Store::open(store) {
        Ok(store) => store.latest(),
        Err(StoreError::NoStore { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names what persons set, by the rows: the same may come to lie in other files, and one that was withdrawn still lies in its.
fn marks(snapshot: Option<&Snapshot>) -> Result<String, StoreError> {
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

/// Names the features that the parser sees.
fn features(paths: &FeaturePaths) -> Result<String, RunError> {
    let all = [
        (Modality::Audio, &paths.audio),
        (Modality::Visual, &paths.visual),
        (Modality::Visual, &paths.clips),
    ];
    let mut fingerprints = Vec::new();
    for (modality, paths) in all {
        let input = FeatureInput::open_all(paths, modality, &|_| true).map_err(LabelError::from)?;
        // Or the last files of one kind could be the first of another.
        fingerprints.push(input.shards.len().to_string());
        fingerprints.extend(input.shards.iter().map(|shard| shard.fingerprint()));
    }
    Ok(hash(|sum| feed(sum, fingerprints.iter().map(|text| &**text))))
}

/// As the file says; what is encoded is to be filled in.
pub(super) fn label_request(config: &Config, request: &RunRequest) -> label::LabelRequest {
    let features = config.features.clone();
    label::LabelRequest {
        store: config.store.clone(),
        annotations: config.data.annotations.clone(),
        classes: config.data.classes.clone(),
        visual: features.visual.unwrap_or_default(),
        visual_text: features.visual_text.unwrap_or_default(),
        audio: features.audio.unwrap_or_default(),
        audio_text: features.audio_text.unwrap_or_default(),
        left_out: Vec::new(),
        splits: config.data.splits.clone(),
        segment_seconds: config.data.segment_seconds,
        settings: config.settings(),
        workers: request.workers,
        command: request.command.clone(),
    }
}
