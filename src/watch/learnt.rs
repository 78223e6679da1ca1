//! Commits the results of the training beside a watch: each epoch is one store version.

use std::collections::BTreeSet;

use vaplan_schemas::store::{Snapshot, WriteLock};
use vaplan_schemas::tables::Videos;

use super::batch::{Batches, End, Way};
use super::events::Events;
use super::status::{Board, Times};
use super::training::OwnTrainingReport;
use super::{WatchError, WatchProgress};
use crate::error::LabelError;
use crate::error::chain;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::record::Recorder;
use crate::relabel;
use crate::world::World;
use crate::world::changes::{Changes, DenoiseRequest};

impl Batches<'_> {
    /// Commits a report of the training, or denoises the labels by its epoch. Returns false if the watch has to stop
    /// before that.
    ///
    /// # Errors
    /// Returns [`WatchError`] if the commit fails. The checkpoint is then not promoted, so that the next watch repeats
    /// the same work.
    pub(super) fn learnt(
        &mut self,
        report: OwnTrainingReport,
        events: &mut Events,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<bool, WatchError> {
        let (run, training) = match &report {
            OwnTrainingReport::Rests(why) => {
                board.training(format!("at rest: {why}"));
                board.state("watching", None)?;
                on_progress(WatchProgress::Rests(why));
                return Ok(true);
            }
            OwnTrainingReport::Failed(reason) => {
                board.training(format!("failed: {reason}"));
                board.state("watching", None)?;
                on_progress(WatchProgress::TrainingFailed(reason));
                return Ok(true);
            }
            OwnTrainingReport::Epoch { run, of, trained, .. } => {
                (run, Some(format!("epoch {} of {of}", trained.row.run_epoch)))
            }
            OwnTrainingReport::Denoise { run, .. } | OwnTrainingReport::Trained { run, .. } => (run, None),
        };
        let Some(lock) = events.lock(self.store, on_progress)? else {
            return Ok(false);
        };
        let latest = self.latest(board, on_progress)?;
        let recorder = Recorder {
            store: self.store.clone(),
            command: self.command.clone(),
            run: run.clone(),
        };
        let mut done = None;
        match report {
            OwnTrainingReport::Epoch { trained, .. } => {
                let predicted = there(&latest, trained.predicted)?;
                let row = recorder.record_locked(&lock, trained.row, &predicted)?;
                board.epoch();
                on_progress(WatchProgress::Epoch {
                    row: &row,
                    better: trained.better,
                });
            }
            OwnTrainingReport::Denoise { epoch, denoising, .. } => {
                let number = recorder.number(&latest, epoch)?;
                let active = World::read(&latest)?.active;
                // A watch that was killed before it promoted the checkpoint requests this denoising again.
                let done = |number: &u64| {
                    active
                        .as_ref()
                        .is_some_and(|active| active.epochs.contains(number))
                };
                if let Some(number) = number.filter(|number| !done(number)) {
                    self.denoise(number, denoising, (&latest, &lock), board, on_progress)?;
                }
            }
            OwnTrainingReport::Trained { best, predicted, .. } => {
                let epoch = recorder.number(&latest, best)?;
                let active = World::read(&latest)?.active;
                // PLD reads this epoch already, and then the store has all its predictions.
                if !active.is_some_and(|active| epoch.is_some_and(|epoch| active.epochs.contains(&epoch))) {
                    recorder.add_locked(&lock, best, &there(&latest, predicted)?)?;
                }
                done = epoch;
            }
            OwnTrainingReport::Rests(_) | OwnTrainingReport::Failed(_) => {}
        }
        let latest = self.latest(board, on_progress)?;
        training.into_iter().for_each(|at| board.training(at));
        board.holds(
            latest.version().version,
            self.resident.videos(),
            self.resident.held(),
        );
        board.state("watching", None)?;
        if let Some(epoch) = done {
            on_progress(WatchProgress::Trained { epoch });
        }
        Ok(true)
    }

    /// Denoises the labels by an epoch, as `vaplan denoise --epoch` does, through the session.
    fn denoise(
        &mut self,
        epoch: u64,
        denoising: DenoiseRequest,
        (latest, lock): (&Snapshot, &WriteLock),
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
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
                on_progress(WatchProgress::Denoised {
                    epoch,
                    version,
                    cells,
                });
            }
            // For example, the epoch has no predictions of labelled videos.
            End::Refused(error @ LabelError::Change(_)) => on_progress(WatchProgress::TrainingFailed(
                &format!("labels are not denoised by epoch {epoch}: {}", chain(&error)),
            )),
            End::Refused(error) => return Err(error.into()),
            End::Dropped => {}
        }
        Ok(())
    }
}

/// Removes the predictions of videos that left the store while the epoch was trained. Such a video may come back with
/// other features, and then the predictions would be wrong.
fn there(
    latest: &Snapshot,
    mut predicted: Vec<VideoProbabilities>,
) -> Result<Vec<VideoProbabilities>, WatchError> {
    let videos = latest.read::<Videos>()?;
    let names: BTreeSet<&str> = videos.iter().map(|row| &*row.video).collect();
    predicted.retain(|own| names.contains(&*own.video));
    Ok(predicted)
}
