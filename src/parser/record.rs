//! Commits epochs and predictions as store versions.

use std::collections::BTreeSet;

use vaplan_schemas::StoreError;
use vaplan_schemas::rows::{EpochRow, PredictionTrack, VideoPredictionRow};
use vaplan_schemas::store::{Commit, CommitInfo, DataFile, Snapshot, Store, VersionRows, WriteLock};
use vaplan_schemas::tables::{Epochs, Predictions, Table, VideoPredictions};

use super::error::TrainError;
use super::probabilities::VideoProbabilities;
use crate::world::World;
use crate::world::evidence::last_epoch;

/// The largest number of videos in one data file of predictions.
const VIDEOS: usize = 2000;

/// Adds the files of other processes to the commit of an epoch.
pub(crate) type OtherFiles<'a> = dyn FnMut(&mut Commit<'_>, u64) -> Result<(), TrainError> + 'a;

/// Commits the epochs of one training to a store.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// The store to commit to.
    pub store: Store,
    /// The command line, for the `versions` table.
    pub command: String,
    /// The SHA-256, in hex, of all inputs that the training depends on.
    pub run: String,
}

impl Recorder {
    /// Commits an epoch and its predictions, and returns the row as the store has it. If another process holds the
    /// write lock, this waits.
    ///
    /// The store numbers epochs from 1 in the order of their commits. If the store already has this epoch of the
    /// training, because the process was killed after the commit, nothing is written: the repeated epoch has the same
    /// numbers.
    ///
    /// # Errors
    /// Returns [`TrainError::Store`] if the store cannot be read or written.
    pub fn record(
        &self,
        row: EpochRow,
        predicted: &[VideoProbabilities],
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<EpochRow, TrainError> {
        self.record_locked(&self.store.lock(on_wait)?, row, predicted)
    }

    /// Like [`Recorder::record`], for a caller that holds the write lock.
    ///
    /// # Errors
    /// Returns the same errors as [`Recorder::record`].
    pub fn record_locked(
        &self,
        lock: &WriteLock,
        row: EpochRow,
        predicted: &[VideoProbabilities],
    ) -> Result<EpochRow, TrainError> {
        self.record_with(lock, row, predicted, &mut |_, _| Ok(()))
    }

    /// Like [`Recorder::record_locked`], with the predictions of other processes. `others` adds their files to the commit; it
    /// gets the number of the epoch. It is not called if the store has the epoch already.
    ///
    /// # Errors
    /// Returns the errors of [`Recorder::record`] and of `others`.
    pub(crate) fn record_with(
        &self,
        lock: &WriteLock,
        mut row: EpochRow,
        predicted: &[VideoProbabilities],
        others: &mut OtherFiles<'_>,
    ) -> Result<EpochRow, TrainError> {
        let latest = self.store.at_version(None)?;
        if let Some(number) = self.number(&latest, row.run_epoch)? {
            row.epoch = number;
            return Ok(row);
        }
        row.epoch = last_epoch(&latest)? + 1;
        let predicted: Vec<&VideoProbabilities> = predicted.iter().collect();
        self.commit(lock, &latest, row.epoch, Some(&row), &predicted, others)?;
        Ok(row)
    }

    /// Adds predictions to epoch `run_epoch` of this training, and returns the epoch's number in the store. Videos
    /// that already have predictions of the epoch keep them.
    ///
    /// # Errors
    /// Returns [`TrainError::Settings`] if the store does not have the epoch, or if the labels are already denoised
    /// by the epoch: more predictions would change what the labels should be, and nothing would denoise the labels
    /// again. Returns [`TrainError::Store`] if the store cannot be read or written.
    pub fn add(
        &self,
        run_epoch: u64,
        predicted: &[VideoProbabilities],
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<u64, TrainError> {
        self.add_locked(&self.store.lock(on_wait)?, run_epoch, predicted)
    }

    /// Like [`Recorder::add`], for a caller that holds the write lock.
    ///
    /// # Errors
    /// Returns the same errors as [`Recorder::add`].
    pub fn add_locked(
        &self,
        lock: &WriteLock,
        run_epoch: u64,
        predicted: &[VideoProbabilities],
    ) -> Result<u64, TrainError> {
        let latest = self.store.at_version(None)?;
        let epoch = self.number(&latest, run_epoch)?.ok_or_else(|| {
            let version = latest.version().version;
            TrainError::Settings(format!(
                "store version {version} does not have epoch {run_epoch} of the training, expected it to be there"
            ))
        })?;
        let predicted = missing(&latest, epoch, predicted)?;
        if predicted.is_empty() {
            return Ok(epoch);
        }
        let active = World::read(&latest)?.active;
        if active.is_some_and(|active| active.epochs.contains(&epoch)) {
            let (version, more) = (latest.version().version, predicted.len());
            return Err(TrainError::Settings(format!(
                "labels of store version {version} are denoised by epoch {epoch}, so predictions of {more} more videos cannot be added to it: \
                 `vaplan predict --store` writes them as another epoch"
            )));
        }
        self.commit(lock, &latest, epoch, None, &predicted, &mut |_, _| Ok(()))?;
        Ok(epoch)
    }

    /// The number in the store of an epoch of this training, or `None` if the store does not have the epoch.
    ///
    /// # Errors
    /// Returns [`TrainError::Store`] if the store cannot be read.
    pub fn number(&self, snapshot: &Snapshot, run_epoch: u64) -> Result<Option<u64>, TrainError> {
        Ok(epoch_of(snapshot, &self.run, run_epoch)?)
    }

    fn commit(
        &self,
        lock: &WriteLock,
        latest: &Snapshot,
        epoch: u64,
        row: Option<&EpochRow>,
        predicted: &[&VideoProbabilities],
        others: &mut OtherFiles<'_>,
    ) -> Result<(), TrainError> {
        let before = latest.version();
        let info = CommitInfo {
            command: self.command.clone(),
            epoch: Some(epoch),
            settings: before.settings.clone(),
            models: before.models.clone(),
            // Keep the hash of the labels' inputs, so that `label` with the same inputs still finds that it has
            // nothing to do.
            inputs: before.inputs.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            ..CommitInfo::default()
        };
        let mut commit = self.store.begin(lock, info)?;
        append(&mut commit, epoch, row, predicted)?;
        others(&mut commit, epoch)?;
        commit.finish()?;
        Ok(())
    }
}

/// The number in the store of an epoch of a training, or `None` if the store does not have the epoch.
///
/// # Errors
/// Returns [`StoreError`] if the store cannot be read.
pub fn epoch_of(snapshot: &Snapshot, run: &str, run_epoch: u64) -> Result<Option<u64>, StoreError> {
    let epochs = snapshot.read::<Epochs>()?;
    let own = epochs
        .iter()
        .find(|row| *row.run == *run && row.run_epoch == run_epoch);
    Ok(own.map(|row| row.epoch))
}

/// The predictions of those videos that do not yet have predictions of an epoch in the store.
///
/// # Errors
/// Returns [`TrainError::Store`] if the store cannot be read.
pub(crate) fn missing<'a>(
    latest: &Snapshot,
    epoch: u64,
    predicted: &'a [VideoProbabilities],
) -> Result<Vec<&'a VideoProbabilities>, TrainError> {
    let there: BTreeSet<_> = of_epoch::<VideoPredictions>(latest, epoch)?
        .into_iter()
        .filter(|row| row.epoch == epoch)
        .map(|row| row.video)
        .collect();
    let new = predicted.iter().filter(|video| !there.contains(&video.video));
    Ok(new.collect())
}

/// Adds the predictions of an epoch, and its row if one is given, to a commit.
///
/// # Errors
/// Returns [`StoreError`] if a file cannot be written.
pub(crate) fn append(
    commit: &mut Commit<'_>,
    epoch: u64,
    row: Option<&EpochRow>,
    predicted: &[&VideoProbabilities],
) -> Result<(), StoreError> {
    if let Some(row) = row {
        commit.append::<Epochs>(std::slice::from_ref(row))?;
    }
    append_predictions(commit, epoch, predicted)
}

/// Adds the predictions of an epoch to a commit or a part of it.
///
/// # Errors
/// Returns [`StoreError`] if a file cannot be written.
pub(crate) fn append_predictions(
    commit: &mut impl VersionRows,
    epoch: u64,
    predicted: &[&VideoProbabilities],
) -> Result<(), StoreError> {
    let parts: Vec<_> = predicted.chunks(VIDEOS).collect();
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let rows = |part: u32| parts[part as usize].iter().map(|video| video.rows(epoch));
    commit.append_parts::<Predictions>(count, |part| rows(part).flat_map(|(tracks, _)| tracks).collect())?;
    commit.append_parts::<VideoPredictions>(count, |part| rows(part).map(|(_, row)| row).collect())
}

/// Reads the rows of an append-only table from the data files that commits of an epoch can have written. The files
/// can also have rows of other epochs.
fn of_epoch<T: Table>(snapshot: &Snapshot, epoch: u64) -> Result<Vec<T::Row>, TrainError> {
    let of = |version: &vaplan_schemas::rows::VersionRow| version.epoch == Some(epoch);
    let versions: BTreeSet<u64> = snapshot
        .store()
        .versions()?
        .iter()
        .filter(|version| of(version))
        .map(|version| version.version)
        .collect();
    // A data file without a range of versions is a patch file. It can have rows of any version.
    let wanted = |file: &DataFile| {
        let span = file.versions();
        span.is_none_or(|(first, last)| versions.range(first..=last).next().is_some())
    };
    Ok(snapshot.read_some::<T>(wanted)?)
}

/// The predictions of an epoch, sorted by video. An epoch from outside has probabilities of segments only.
///
/// # Errors
/// Returns [`TrainError::Settings`] with the epochs of the store, if the epoch has no predictions, and
/// [`TrainError::Store`] if the store cannot be read.
pub fn read(snapshot: &Snapshot, epoch: u64) -> Result<Vec<VideoProbabilities>, TrainError> {
    let mut tracks: Vec<PredictionTrack> = of_epoch::<Predictions>(snapshot, epoch)?;
    tracks.retain(|track| track.epoch == epoch);
    tracks.sort_by(Predictions::compare);
    let mut videos: Vec<VideoPredictionRow> = of_epoch::<VideoPredictions>(snapshot, epoch)?;
    videos.retain(|video| video.epoch == epoch);
    videos.sort_by(VideoPredictions::compare);
    if videos.is_empty() && !tracks.is_empty() {
        let videos = tracks.chunk_by(|a, b| a.video == b.video);
        return Ok(videos.map(VideoProbabilities::of_tracks).collect());
    }
    if videos.is_empty() {
        let epochs: Vec<String> = snapshot
            .read::<Epochs>()?
            .iter()
            .map(|row| row.epoch.to_string())
            .collect();
        return Err(TrainError::Settings(format!(
            "store version {} has no predictions of epoch {epoch} (epochs: {})",
            snapshot.version().version,
            if epochs.is_empty() {
                "none".to_owned()
            } else {
                epochs.join(", ")
            }
        )));
    }
    let mut pairs = tracks.chunks_exact(2);
    let mut predicted = Vec::with_capacity(videos.len());
    for video in &videos {
        let pair = pairs.next().filter(|pair| {
            pair.iter()
                .all(|track| track.video == video.video && track.classes as usize == video.probability.len())
        });
        let [audio, visual] = pair.unwrap_or_default() else {
            return Err(TrainError::Settings(format!(
                "store version {}, epoch {epoch}: tables `predictions` and `video_predictions` do not have the same \
                 videos (at `{}`)",
                snapshot.version().version,
                video.video
            )));
        };
        predicted.push(VideoProbabilities::of_rows(video, audio, visual));
    }
    Ok(predicted)
}
