//! Epochs of own training to store versions.

use std::collections::BTreeSet;

use vaplan_schemas::store::{Snapshot, WriteLock};
use vaplan_schemas::tables::Videos;

use super::batch::{Batches, End, Way};
use super::events::Events;
use super::status::{Board, Times};
use super::training::Report;
use super::{Told, WatchError};
use crate::error::LabelError;
use crate::error::chain;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::record::Recorder;
use crate::relabel;
use crate::world::World;
use crate::world::changes::{Changes, DenoiseRequest};

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
            Report::Rests(why) => {
                board.training(format!("at rest: {why}"));
                board.state("watching", None)?;
                told(Told::Rests(why));
                return Ok(true);
            }
            Report::Failed(reason) => {
                board.training(format!("failed: {reason}"));
                board.state("watching", None)?;
                told(Told::TrainingFailed(reason));
                return Ok(true);
            }
            Report::Epoch { run, of, learned, .. } => {
                (run, Some(format!("epoch {} of {of}", learned.row.run_epoch)))
            }
            Report::Denoise { run, .. } | Report::Trained { run, .. } => (run, None),
        };
        let Some(lock) = events.lock(self.store, told)? else {
            return Ok(false);
        };
        let latest = self.latest(board, told)?;
        let recorder = Recorder {
            store: self.store.clone(),
            command: self.command.clone(),
            run: run.clone(),
        };
        let mut done = None;
        match report {
            Report::Epoch { learned, .. } => {
                let predicted = there(&latest, learned.predicted)?;
                let row = recorder.record_locked(&lock, learned.row, &predicted)?;
                board.epoch();
                told(Told::Epoch {
                    row: &row,
                    better: learned.better,
                });
            }
            Report::Denoise { epoch, denoising, .. } => {
                let number = recorder.number(&latest, epoch)?;
                let active = World::read(&latest)?.active;
                // Killed before the checkpoint was kept, it is asked again; meanwhile others may have a say, too.
                let done = |number: &u64| {
                    active
                        .as_ref()
                        .is_some_and(|active| active.epochs.contains(number))
                };
                if let Some(number) = number.filter(|number| !done(number)) {
                    self.denoise(number, denoising, (&latest, &lock), board, told)?;
                }
            }
            Report::Trained { best, predicted, .. } => {
                let epoch = recorder.number(&latest, best)?;
                let active = World::read(&latest)?.active;
                // Of one that has a say, what there was to predict was predicted when it got it.
                if !active.is_some_and(|active| epoch.is_some_and(|epoch| active.epochs.contains(&epoch))) {
                    recorder.add_locked(&lock, best, &there(&latest, predicted)?)?;
                }
                done = epoch;
            }
            Report::Rests(_) | Report::Failed(_) => {}
        }
        let latest = self.latest(board, told)?;
        training.into_iter().for_each(|at| board.training(at));
        board.holds(
            latest.version().version,
            self.resident.videos(),
            self.resident.held(),
        );
        board.state("watching", None)?;
        if let Some(epoch) = done {
            told(Told::Trained { epoch });
        }
        Ok(true)
    }

    /// As `vaplan denoise --epoch` does, through the session.
    fn denoise(
        &mut self,
        epoch: u64,
        denoising: DenoiseRequest,
        (latest, lock): (&Snapshot, &WriteLock),
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), WatchError> {
        let request = relabel::RelabelRequest {
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
        match self.version(&request, latest, lock, &mut Times::default(), &|| false)? {
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
            // The epoch has no predictions of labelled videos, say.
            End::Refused(error @ LabelError::Change(_)) => told(Told::TrainingFailed(&format!(
                "labels are not denoised by epoch {epoch}: {}",
                chain(&error)
            ))),
            End::Refused(error) => return Err(error.into()),
            End::Dropped => {}
        }
        Ok(())
    }
}

/// Without those of videos that went while they were learnt: come again, they would be others.
fn there(
    latest: &Snapshot,
    mut predicted: Vec<VideoProbabilities>,
) -> Result<Vec<VideoProbabilities>, WatchError> {
    let videos = latest.read::<Videos>()?;
    let names: BTreeSet<&str> = videos.iter().map(|row| &*row.video).collect();
    predicted.retain(|own| names.contains(&*own.video));
    Ok(predicted)
}
