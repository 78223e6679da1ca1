//! Commits a step of a run as one store version. The cost depends on what the step changed, not on the size of the
//! store.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_schemas::StoreError;
use vaplan_schemas::rows::EpochRow;
use vaplan_schemas::store::{Commit, CommitInfo, Filter, Found, Snapshot, Store};
use vaplan_schemas::tables::{Epochs, Settings};

use super::graph::{Graph, StepChanges};
use super::learner::{StepReport, active};
use super::ledger::{FinishedStage, Ledger, RunStage, StageKind, with_rule};
use super::{RunError, RunProgress, foreign, score};
use crate::calibrate::gate::DenoisingGain;
use crate::engine::patch::Diff;
use crate::engine::plan::DenoisingState;
use crate::eval::Task;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::record;
use crate::parser::training::TrainedEpoch;
use crate::world::{Both, World};

const CONFIG: &str = "config";
const STATE: &str = "state";

/// Returns the entries of [`World::run`] that record a run: the text of its file, its ledger as JSON, and a hash of the
/// thresholds and of the denoising that it leaves (see `foreign`).
pub fn remembered(
    config: &Arc<str>,
    ledger: &Ledger,
    world: &World,
    denoised: &DenoisingState,
) -> BTreeMap<Arc<str>, Arc<str>> {
    let state = serde_json::to_string(ledger).expect("names and numbers are JSON");
    BTreeMap::from([
        (CONFIG.into(), config.clone()),
        (STATE.into(), Arc::from(state)),
        (foreign::LEFT.into(), foreign::left(world, denoised).into()),
    ])
}

/// Returns the ledger in a world. It is empty if the world has none, or one that this program cannot read.
pub fn ledger(world: &World) -> Ledger {
    let state = world.run.get(STATE);
    state
        .and_then(|state| serde_json::from_str(state).ok())
        .unwrap_or_default()
}

/// Returns the denoising settings and active predictions of a world.
pub fn denoised(world: &World) -> DenoisingState {
    (world.denoising, world.active.clone())
}

/// Commits the store versions of a run.
pub struct Writer<'a> {
    /// Store to write.
    pub store: &'a Store,
    /// Ledger that the next commit records.
    pub ledger: Ledger,
    /// Latest version that this run read or committed.
    pub version: u64,
    config: Arc<str>,
    command: String,
    world: World,
    /// Ledger that the store has recorded.
    known: Ledger,
}

/// Rows of a commit that belong to an epoch.
#[derive(Default)]
struct About<'a> {
    epoch: Option<u64>,
    row: Option<&'a EpochRow>,
    /// Number of labels that PLD flips by this epoch, to be written to its existing row.
    flips: Option<u64>,
    predicted: &'a [VideoProbabilities],
}

impl<'a> Writer<'a> {
    /// Creates a writer whose first commit follows the version of `snapshot`.
    ///
    /// # Errors
    /// Returns an error if the settings of the version cannot be read.
    pub fn new(
        store: &'a Store,
        snapshot: &Snapshot,
        (config, command): (Arc<str>, String),
        ledger: Ledger,
    ) -> Result<Writer<'a>, RunError> {
        let world = World::read(snapshot)?;
        Ok(Writer {
            store,
            version: snapshot.version().version,
            known: self::ledger(&world),
            ledger,
            config,
            command,
            world,
        })
    }

    /// Returns the denoising settings and active predictions of the last version.
    pub fn denoised(&self) -> DenoisingState {
        denoised(&self.world)
    }

    /// Returns the denoising settings and active predictions that the labels must have after all stages are done.
    pub fn wanted(&self, stages: &[RunStage], pld: Both<Option<DenoisingRule>>) -> DenoisingState {
        self.ledger.denoised(stages, &self.world, pld)
    }

    /// Deactivates all predictions, if there are active ones, and commits the labels without their flips. With
    /// `for_good`, the ledger forgets the active epoch, too. Otherwise a baseline needs the labels of PLG only while it
    /// is trained.
    ///
    /// # Errors
    /// Returns the errors of [`Writer::report`].
    pub fn reset(&mut self, graph: &Graph, stepped: StepChanges, for_good: bool) -> Result<(), RunError> {
        let own = &self.world;
        if own.active.is_none() && own.denoising == [None, None] {
            return Ok(());
        }
        (self.world.active, self.world.denoising) = (None, [None, None]);
        if for_good {
            (self.ledger.active, self.ledger.chosen) = (None, None);
        }
        self.commit(&About::default(), Some((graph, stepped)))?;
        Ok(())
    }

    /// Scores the labels of the latest version, and records the scores in the ledger.
    ///
    /// # Errors
    /// Returns [`RunError`] if the store cannot be read.
    pub fn scored(&mut self, stage: &RunStage, task: Task) -> Result<(), RunError> {
        let lines = score::labels(&self.store.at_version(None)?, task)?;
        let done = FinishedStage {
            key: stage.key.clone(),
            lines,
            ..FinishedStage::default()
        };
        self.ledger.stages.insert(stage.name.clone(), done);
        Ok(())
    }

    /// Scores the denoised labels again, if the run was killed after it committed these labels and before it recorded
    /// their scores.
    ///
    /// # Errors
    /// Returns the errors of [`Writer::scored`].
    pub fn score_again(&mut self, stage: &RunStage, task: Task) -> Result<(), RunError> {
        if let (StageKind::Denoise { .. }, Some(done)) =
            (&stage.kind, self.ledger.stages.get_mut(&stage.name))
            && done.lines.is_empty()
        {
            done.lines = score::labels(&self.store.at_version(None)?, task)?;
        }
        Ok(())
    }

    /// Commits the ledger, if its stages differ from those in the store.
    ///
    /// # Errors
    /// Returns the errors of [`Writer::report`].
    pub fn remember(&mut self) -> Result<(), RunError> {
        if self.ledger.stages != self.known.stages {
            self.commit(&About::default(), None)?;
        }
        Ok(())
    }

    /// Takes the step of the graph that belongs to a report, commits both as one version, and returns that version.
    ///
    /// # Errors
    /// Returns the error of the learner in [`StepReport::Failed`]. Returns [`RunError::Changed`] if another process
    /// committed a version in the meantime. Returns [`RunError::Store`] if the commit fails, for example on a full
    /// disk.
    pub fn report(
        &mut self,
        report: StepReport,
        graph: &mut Graph,
        (pld, task): (Both<Option<DenoisingRule>>, Task),
        progress: &mut dyn FnMut(RunProgress<'_>),
    ) -> Result<u64, RunError> {
        match report {
            StepReport::Failed(error) => return Err(error),
            StepReport::Epoch {
                key,
                trained,
                denoises,
                gain,
            } => {
                let chosen = gain.as_ref().map(|gain| gain.rule);
                let stepped = graph.step(denoises.then(|| with_rule(pld, chosen)))?;
                let TrainedEpoch {
                    mut row,
                    predicted,
                    better,
                    ..
                } = *trained;
                let changes = (set(&stepped, true), set(&stepped, false));
                let before = self.denoised();
                if denoises {
                    row.flips = Some(graph.flipped());
                    self.activate((row.epoch, &key), pld, chosen);
                }
                let relabels = before != self.denoised() || !stepped.is_empty();
                let about = About {
                    epoch: Some(row.epoch),
                    row: Some(&row),
                    predicted: &predicted,
                    ..About::default()
                };
                if !self.known(&row)? {
                    self.commit(&about, denoises.then_some((&*graph, stepped)))?;
                } else if denoises && relabels {
                    // An earlier run committed this epoch, and its flips were taken back since. Commit only the labels.
                    let about = About {
                        epoch: Some(row.epoch),
                        ..About::default()
                    };
                    self.commit(&about, Some((&*graph, stepped)))?;
                }
                progress(RunProgress::Epoch { row: &row, better });
                if let Some(gain) = &gain {
                    progress(RunProgress::Calibrated(gain));
                }
                if denoises {
                    tell_denoised(row.epoch, changes, progress);
                }
            }
            StepReport::Trained {
                stage,
                epoch,
                predicted,
                lines,
                gain,
            } => {
                graph.step(None)?;
                let done = FinishedStage {
                    key: stage.key,
                    epoch: Some(epoch),
                    lines,
                    gain,
                };
                self.ledger.stages.insert(stage.name, done);
                let about = About {
                    epoch: Some(epoch),
                    predicted: &predicted,
                    ..About::default()
                };
                self.commit(&about, None)?;
            }
            StepReport::Denoised { stage, epoch, gain } => {
                let denoises = gain.as_ref().is_none_or(DenoisingGain::is_gain);
                let chosen = gain.as_ref().map(|gain| gain.rule);
                let stepped = graph.step(denoises.then(|| with_rule(pld, chosen)))?;
                let changes = (set(&stepped, true), set(&stepped, false));
                if let Some(gain) = &gain {
                    progress(RunProgress::Calibrated(gain));
                }
                let done = FinishedStage {
                    key: stage.key.clone(),
                    epoch: Some(epoch),
                    lines: Vec::new(),
                    gain,
                };
                self.ledger.stages.insert(stage.name.clone(), done);
                let mut about = About::default();
                if denoises {
                    self.activate((epoch, &stage.key), pld, chosen);
                    (about.epoch, about.flips) = (Some(epoch), Some(graph.flipped()));
                } else {
                    (self.ledger.active, self.ledger.chosen) = (None, None);
                }
                self.commit(&about, Some((graph, stepped)))?;
                // Score the labels of the version that was just committed. The next version records these scores.
                let lines = score::labels(&self.store.at_version(None)?, task)?;
                let done = self.ledger.stages.get_mut(&stage.name);
                done.expect("it was just put there").lines = lines;
                if denoises {
                    tell_denoised(epoch, changes, progress);
                }
            }
        }
        Ok(self.version)
    }

    fn activate(
        &mut self,
        (epoch, key): (u64, &str),
        pld: Both<Option<DenoisingRule>>,
        chosen: Option<DenoisingRule>,
    ) {
        self.world.active = Some(active(&self.world, epoch));
        self.world.denoising = with_rule(pld, chosen);
        self.ledger.active = Some((key.to_owned(), epoch));
        self.ledger.chosen = chosen;
    }

    /// Returns whether the store has this epoch already. This happens if a run was killed before it promoted the
    /// checkpoint of the epoch.
    fn known(&self, row: &EpochRow) -> Result<bool, RunError> {
        let epochs = self.store.at_version(None)?.read::<Epochs>()?;
        let same = |known: &EpochRow| known.run == row.run && known.run_epoch == row.run_epoch;
        Ok(epochs.iter().any(same))
    }

    fn commit(&mut self, about: &About<'_>, labels: Option<(&Graph, StepChanges)>) -> Result<(), RunError> {
        let lock = self.store.lock(&mut |_| ())?;
        let latest = self.store.at_version(None)?;
        let found = latest.version();
        if found.version != self.version {
            return Err(RunError::Changed {
                expected: self.version,
                found: found.version,
                command: found.command.clone(),
            });
        }
        let mut commit = self.store.begin(
            &lock,
            CommitInfo {
                command: self.command.clone(),
                epoch: about.epoch,
                settings: self.world.settings_hash(),
                models: found.models.clone(),
                // Keep the input hash of the labels, so that `label` with the same inputs still has nothing to do.
                inputs: found.inputs.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                ..CommitInfo::default()
            },
        )?;
        self.world.run = remembered(&self.config, &self.ledger, &self.world, &self.denoised());
        commit.replace_all::<Settings>(&self.world.setting_rows())?;
        if let Some(epoch) = about.epoch {
            // A new epoch has no predictions in the store. For an epoch that exists, add only the predictions that are
            // missing.
            let predicted = match about.row {
                Some(_) => about.predicted.iter().collect(),
                None => record::missing(&latest, epoch, about.predicted)?,
            };
            record::append(&mut commit, epoch, about.row, &predicted)?;
            if about.flips.is_some() {
                flipped(&mut commit, &latest, epoch, about.flips)?;
            }
        }
        if let Some((graph, stepped)) = labels {
            graph.write(&mut commit, &latest, &self.world, stepped)?;
        }
        self.version = commit.finish()?.version;
        self.known = self.ledger.clone();
        Ok(())
    }
}

/// Writes the number of labels that PLD flips by an epoch into the row of that epoch.
fn flipped(
    commit: &mut Commit<'_>,
    latest: &Snapshot,
    epoch: u64,
    flips: Option<u64>,
) -> Result<(), StoreError> {
    let mut old = latest.scan::<Epochs>(&Filter::all())?;
    old.retain(|found| found.row.epoch == epoch);
    let row = |found: &Found<EpochRow>| EpochRow {
        flips,
        ..found.row.clone()
    };
    let new = old.iter().map(row).collect();
    Diff::<Epochs>::of(&old, new).write(commit, &mut Vec::new())
}

fn set(stepped: &StepChanges, to: bool) -> u64 {
    stepped.changes.iter().filter(|change| change.to == to).count() as u64
}

fn tell_denoised(epoch: u64, (set, unset): (u64, u64), progress: &mut dyn FnMut(RunProgress<'_>)) {
    progress(RunProgress::Denoised { epoch, set, unset });
}
