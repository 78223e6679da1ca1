//! Epochs and predictions as store versions.

use std::collections::BTreeSet;

use vaplan_schemas::rows::{EpochRow, PredictionTrack, VideoPredictionRow};
use vaplan_schemas::store::{CommitInfo, DataFile, Snapshot, Store};
use vaplan_schemas::tables::{Epochs, Predictions, Table, VideoPredictions};

use super::error::TrainError;
use super::predict::VideoProbabilities;

/// Videos of a file of predictions.
const VIDEOS: usize = 2000;

/// Commits to a store in the name of one training.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// The store.
    pub store: Store,
    /// What was asked, as a command line.
    pub command: String,
    /// SHA-256 of the settings, hex.
    pub settings: String,
    /// SHA-256 of what the training was asked, hex.
    pub run: String,
}

impl Recorder {
    /// Commits the predictions of an epoch, and its row if there is one; waits while another process writes.
    ///
    /// An epoch that this training has in the store already, since it was killed after the commit, is not written
    /// again: it would be the same.
    ///
    /// # Errors
    /// [`TrainError::EpochTaken`], [`TrainError::Store`].
    pub fn commit(
        &self,
        epoch: u64,
        row: Option<&EpochRow>,
        predicted: &[VideoProbabilities],
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<(), TrainError> {
        let lock = self.store.lock(on_wait)?;
        let latest = self.store.at_version(None)?;
        let known = latest
            .read::<Epochs>()?
            .into_iter()
            .find(|row| row.epoch == epoch);
        let mut predicted: Vec<&VideoProbabilities> = predicted.iter().collect();
        match (&known, row) {
            (Some(known), _) if *known.run != *self.run => return Err(TrainError::EpochTaken { epoch }),
            (Some(_), Some(_)) => return Ok(()),
            (Some(_), None) => {
                let there: BTreeSet<_> = of_epoch::<VideoPredictions>(&latest, epoch)?
                    .into_iter()
                    .filter(|row| row.epoch == epoch)
                    .map(|row| row.video)
                    .collect();
                predicted.retain(|video| !there.contains(&video.video));
                if predicted.is_empty() {
                    return Ok(());
                }
            }
            (None, _) => {}
        }
        let before = latest.version();
        let mut commit = self.store.begin(
            &lock,
            CommitInfo {
                command: self.command.clone(),
                epoch: Some(epoch),
                settings: self.settings.clone(),
                models: before.models.clone(),
                inputs: self.run.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                videos: 0,
            },
        )?;
        if let Some(row) = row {
            commit.append::<Epochs>(std::slice::from_ref(row))?;
        }
        let parts: Vec<_> = predicted.chunks(VIDEOS).collect();
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let rows = |part: u32| parts[part as usize].iter().map(|video| video.rows(epoch));
        commit
            .append_parts::<Predictions>(count, |part| rows(part).flat_map(|(tracks, _)| tracks).collect())?;
        commit.append_parts::<VideoPredictions>(count, |part| rows(part).map(|(_, row)| row).collect())?;
        commit.finish()?;
        Ok(())
    }
}

/// The rows of the files that an epoch's commits wrote to an append-only table.
fn of_epoch<T: Table>(snapshot: &Snapshot, epoch: u64) -> Result<Vec<T::Row>, TrainError> {
    let of = |version: &vaplan_schemas::rows::VersionRow| version.epoch == Some(epoch);
    let versions: BTreeSet<u64> = snapshot
        .store()
        .versions()?
        .iter()
        .filter(|version| of(version))
        .map(|version| version.version)
        .collect();
    let wanted = |file: &DataFile| file.version().is_some_and(|version| versions.contains(&version));
    Ok(snapshot.read_some::<T>(wanted)?)
}

/// The predictions of an epoch, in the order of the videos.
///
/// # Errors
/// [`TrainError::Settings`] for an epoch that is not there, naming those that are.
pub fn read(snapshot: &Snapshot, epoch: u64) -> Result<Vec<VideoProbabilities>, TrainError> {
    let mut tracks: Vec<PredictionTrack> = of_epoch::<Predictions>(snapshot, epoch)?;
    tracks.retain(|track| track.epoch == epoch);
    tracks.sort_by(Predictions::compare);
    let mut videos: Vec<VideoPredictionRow> = of_epoch::<VideoPredictions>(snapshot, epoch)?;
    videos.retain(|video| video.epoch == epoch);
    videos.sort_by(VideoPredictions::compare);
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
