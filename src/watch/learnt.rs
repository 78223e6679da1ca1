//! Epochs of own training to store versions.

use vaplan_schemas::store::WriteLock;

use super::batch::{Batches, End, Way};
use super::events::Events;
use super::status::{Board, Times};
use super::training::Report;
use super::{Told, WatchError};
use crate::error::chain;
use crate::label::world::World;
use crate::relabel;
use crate::relabel::change::{Changes, DenoiseRequest};
use crate::train::record::Recorder;

impl Batches<'_> {
    /// Puts into the store what a training gave, and denoises by it where that is due; false: there was a signal to stop
    /// first.
    ///
    /// # Errors
    /// [`WatchError`]; the checkpoint is then the one before, so that the next watch does it again.
    pub(super) fn learnt(
        &mut self,
        report: Report,
        events: &mut Events,
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<bool, WatchError> {
        let (run, training) = match &report {
            Report::Failed(reason) => {
                board.training(format!("failed: {reason}"));
                board.state("watching", None)?;
                told(Told::TrainingFailed(reason));
                return Ok(true);
            }
            Report::Epoch { run, of, learned, .. } => {
                (run, Some(format!("epoch {} of {of}", learned.row.run_epoch)))
            }
            Report::Denoise { run, .. } => (run, None),
            Report::Trained { run, .. } => (run, Some("at rest".to_owned())),
        };
        let Some(lock) = events.lock(self.store, told)? else {
            return Ok(false);
        };
        self.latest(board, told)?;
        let recorder = Recorder {
            store: self.store.clone(),
            command: self.command.clone(),
            run: run.clone(),
        };
        let mut rests = None;
        match report {
            Report::Epoch { learned, .. } => {
                let row = recorder.record_locked(&lock, learned.row, &learned.predicted)?;
                board.epoch();
                told(Told::Epoch {
                    row: &row,
                    better: learned.better,
                });
            }
            Report::Denoise { epoch, denoising, .. } => {
                let number = recorder.number(&self.latest(board, told)?, epoch)?;
                if let Some(number) = number {
                    self.denoise(number, denoising, &lock, board, told)?;
                }
            }
            Report::Trained { best, predicted, .. } => {
                let latest = self.latest(board, told)?;
                let epoch = recorder.number(&latest, best)?;
                let active = World::read(&latest)?.active;
                // Of one that has a say, what there was to predict was predicted when it got it.
                if !active.is_some_and(|active| epoch.is_some_and(|epoch| active.epochs.contains(&epoch))) {
                    recorder.add_locked(&lock, best, &predicted)?;
                }
                rests = epoch;
            }
            Report::Failed(_) => {}
        }
        let latest = self.latest(board, told)?;
        training.into_iter().for_each(|at| board.training(at));
        board.holds(
            latest.version().version,
            self.resident.videos(),
            self.resident.held(),
        );
        board.state("watching", None)?;
        if let Some(epoch) = rests {
            told(Told::Trained { epoch });
        }
        Ok(true)
    }

    /// As `vaplan denoise --epoch` does, through the session.
    fn denoise(
        &mut self,
        epoch: u64,
        denoising: DenoiseRequest,
        lock: &WriteLock,
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), WatchError> {
        let latest = self.latest(board, told)?;
        let request = relabel::Request {
            store: self.store.root().to_owned(),
            changes: Changes {
                epoch: Some(epoch),
                denoising,
                ..Changes::default()
            },
            workers: self.workers,
            dry_run: false,
            command: format!("{} # epoch {epoch}", self.command),
        };
        match self.version(&request, &latest, lock, &mut Times::default(), &|| false)? {
            End::Made(summary, way) => {
                let cells = (summary.set, summary.unset);
                board.denoised(cells);
                let version = summary.version.as_ref().map(|version| version.version);
                if let (Way::Through, Some(version)) = (way, summary.version) {
                    self.resident.moved(version);
                }
                told(Told::Denoised {
                    epoch,
                    version,
                    cells,
                });
            }
            End::Refused(error) => told(Told::TrainingFailed(&format!(
                "labels cannot be denoised by epoch {epoch}: {}",
                chain(&error)
            ))),
            End::Dropped => {}
        }
        Ok(())
    }
}
