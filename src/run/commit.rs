//! A step of a run to a store version: proportional to what it changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::pld::Pld;
use vaplan_schemas::StoreError;
use vaplan_schemas::rows::EpochRow;
use vaplan_schemas::store::{Commit, CommitInfo, Filter, Found, Snapshot, Store};
use vaplan_schemas::tables::{Epochs, Settings};

use super::graph::{Graph, StepChanges};
use super::learner::{StepReport, active};
use super::ledger::{FinishedStage, Ledger, RunStage, StageKind};
use super::{RunError, RunProgress, score};
use crate::engine::patch::Diff;
use crate::engine::plan::Denoised;
use crate::eval::Task;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::record;
use crate::parser::training::TrainedEpoch;
use crate::world::{Both, World};

const CONFIG: &str = "config";
const STATE: &str = "state";

/// What a store remembers of a run, as its world keeps it.
pub fn remembered(config: &Arc<str>, ledger: &Ledger) -> BTreeMap<Arc<str>, Arc<str>> {
    let state = serde_json::to_string(ledger).expect("names and numbers are JSON");
    BTreeMap::from([(CONFIG.into(), config.clone()), (STATE.into(), Arc::from(state))])
}

/// What a world remembers; of another program's, nothing.
pub fn ledger(world: &World) -> Ledger {
    let state = world.run.get(STATE);
    state
        .and_then(|state| serde_json::from_str(state).ok())
        .unwrap_or_default()
}

/// What a world's labels are denoised by.
pub fn denoised(world: &World) -> Denoised {
    (world.denoising, world.active.clone())
}

/// Writes the versions of a run.
pub struct Writer<'a> {
    /// The store.
    pub store: &'a Store,
    /// What it is going to remember.
    pub ledger: Ledger,
    /// The last version that was written.
    pub version: u64,
    config: Arc<str>,
    command: String,
    world: World,
    /// What the store remembers.
    known: Ledger,
}

/// What a version is about.
#[derive(Default)]
struct About<'a> {
    epoch: Option<u64>,
    row: Option<&'a EpochRow>,
    /// Of an epoch that is there: labels that PLD flips by it.
    flips: Option<u64>,
    predicted: &'a [VideoProbabilities],
}

impl<'a> Writer<'a> {
    /// On top of a version.
    ///
    /// # Errors
    /// Where it does not say what its labels were made by.
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

    /// What the labels are denoised by.
    pub fn denoised(&self) -> Denoised {
        denoised(&self.world)
    }

    /// What they are to be denoised by once all that is asked is done.
    pub fn wanted(&self, stages: &[RunStage], pld: Both<Option<Pld>>) -> Denoised {
        self.ledger.denoised(stages, &self.world, pld)
    }

    /// Takes the say from all predictions, where some have it; `for_good`: not only for as long as a baseline learns.
    ///
    /// # Errors
    /// As [`Writer::report`].
    pub fn reset(&mut self, graph: &Graph, stepped: StepChanges, for_good: bool) -> Result<(), RunError> {
        let own = &self.world;
        if own.active.is_none() && own.denoising == [None, None] {
            return Ok(());
        }
        (self.world.active, self.world.denoising) = (None, [None, None]);
        if for_good {
            self.ledger.active = None;
        }
        self.commit(&About::default(), Some((graph, stepped)))?;
        Ok(())
    }

    /// Scores the labels as they are, for the ledger.
    ///
    /// # Errors
    /// For a store that does not read back.
    pub fn scored(&mut self, stage: &RunStage, task: Task) -> Result<(), RunError> {
        let lines = score::labels(&self.store.at_version(None)?, task)?;
        let done = FinishedStage {
            key: stage.key.clone(),
            epoch: None,
            lines,
        };
        self.ledger.stages.insert(stage.name.clone(), done);
        Ok(())
    }

    /// Scores denoised labels of a run that was killed between their commit and their scores.
    ///
    /// # Errors
    /// As [`Writer::scored`].
    pub fn score_again(&mut self, stage: &RunStage, task: Task) -> Result<(), RunError> {
        if let (StageKind::Denoise { .. }, Some(done)) =
            (&stage.kind, self.ledger.stages.get_mut(&stage.name))
            && done.lines.is_empty()
        {
            done.lines = score::labels(&self.store.at_version(None)?, task)?;
        }
        Ok(())
    }

    /// Commits what the ledger has and the store has not.
    ///
    /// # Errors
    /// As [`Writer::report`].
    pub fn remember(&mut self) -> Result<(), RunError> {
        if self.ledger.stages != self.known.stages {
            self.commit(&About::default(), None)?;
        }
        Ok(())
    }

    /// Waits for what comes of a step and commits both; gives the version.
    ///
    /// # Errors
    /// What kept it from being learnt; [`RunError::Changed`] where someone else wrote meanwhile; a full disk, say.
    pub fn report(
        &mut self,
        report: StepReport,
        graph: &mut Graph,
        (pld, task): (Both<Option<Pld>>, Task),
        progress: &mut dyn FnMut(RunProgress<'_>),
    ) -> Result<u64, RunError> {
        match report {
            StepReport::Failed(error) => return Err(error),
            StepReport::Epoch {
                key,
                trained,
                denoises,
            } => {
                let stepped = graph.step(denoises)?;
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
                    self.activate(row.epoch, &key, pld);
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
                    // Of a training that was done before, and whose flips were taken back since.
                    let about = About {
                        epoch: Some(row.epoch),
                        ..About::default()
                    };
                    self.commit(&about, Some((&*graph, stepped)))?;
                }
                progress(RunProgress::Epoch { row: &row, better });
                if denoises {
                    tell_denoised(row.epoch, changes, progress);
                }
            }
            StepReport::Trained {
                stage,
                epoch,
                predicted,
                lines,
            } => {
                graph.step(false)?;
                let done = FinishedStage {
                    key: stage.key,
                    epoch: Some(epoch),
                    lines,
                };
                self.ledger.stages.insert(stage.name, done);
                let about = About {
                    epoch: Some(epoch),
                    predicted: &predicted,
                    ..About::default()
                };
                self.commit(&about, None)?;
            }
            StepReport::Denoised { stage, epoch } => {
                let stepped = graph.step(true)?;
                let changes = (set(&stepped, true), set(&stepped, false));
                self.activate(epoch, &stage.key, pld);
                let done = FinishedStage {
                    key: stage.key.clone(),
                    epoch: Some(epoch),
                    lines: Vec::new(),
                };
                self.ledger.stages.insert(stage.name.clone(), done);
                let about = About {
                    epoch: Some(epoch),
                    flips: Some(graph.flipped()),
                    ..About::default()
                };
                self.commit(&about, Some((graph, stepped)))?;
                // Of the labels that are now there; in the store with the next version.
                let lines = score::labels(&self.store.at_version(None)?, task)?;
                let done = self.ledger.stages.get_mut(&stage.name);
                done.expect("it was just put there").lines = lines;
                tell_denoised(epoch, changes, progress);
            }
        }
        Ok(self.version)
    }

    fn activate(&mut self, epoch: u64, key: &str, pld: Both<Option<Pld>>) {
        self.world.active = Some(active(&self.world, epoch));
        self.world.denoising = pld;
        self.ledger.active = Some((key.to_owned(), epoch));
    }

    /// Is this epoch in the store already, of a run that was killed before it kept its checkpoint?
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
                // Of the labels: `label` of the same inputs has still nothing to do.
                inputs: found.inputs.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                videos: 0,
            },
        )?;
        self.world.run = remembered(&self.config, &self.ledger);
        commit.replace_all::<Settings>(&self.world.setting_rows())?;
        if let Some(epoch) = about.epoch {
            // A new epoch has none yet.
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

/// Says of an epoch how many labels PLD flips by it.
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
