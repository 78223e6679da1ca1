//! The latest predictions that count, on disk by bucket, so that they can be compared with the labels of the same videos bucket
//! by bucket.
//!
//! ```text
//! files of the epochs ─┐
//! predictions of ──────┴─ by bucket ═ temporary file ═ predictions of one bucket ─ latest per video and modality
//! the change
//! ```
//!
//! A file of table `predictions` has videos of all buckets. Therefore each file is read once and its rows are written to a
//! temporary file; memory holds a few files of the table and the predictions of a few buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Buf;
use vaplan_dataflows::VideoId;
use vaplan_dataflows::decide::Denoising;
use vaplan_schemas::ids::bucket_of;
use vaplan_schemas::rows::PredictionTrack;
use vaplan_schemas::spill::SpilledBytes;
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::Predictions;
use vaplan_schemas::{ClassId, Modality};

use super::evidence::{columns, files_of, latest_tracks, prediction};
use super::{Active, World};
use crate::error::LabelError;

/// The predictions that count in a world, by bucket.
#[derive(Debug)]
pub(crate) struct PredictionsByBucket {
    spilled: SpilledBytes,
    buckets: u32,
    active: Active,
    /// Classes with their column in the predictions.
    columns: Vec<(ClassId, usize)>,
}

/// The latest prediction of each video and modality of a bucket.
#[derive(Debug, Default)]
pub(crate) struct LatestPredictions {
    tracks: BTreeMap<(VideoId, Modality), PredictionTrack>,
    columns: Vec<(ClassId, usize)>,
}

impl PredictionsByBucket {
    /// Reads the predictions of the modalities that `world` denoises. `fresh` are predictions that come with a change: they
    /// replace those of the store with the same epoch. `None` if the world denoises nothing.
    ///
    /// # Errors
    /// Returns [`LabelError`] if table `predictions` cannot be read, or the temporary file cannot be written.
    pub(crate) fn read(
        snapshot: &Snapshot,
        world: &World,
        fresh: &[PredictionTrack],
        buckets: u32,
    ) -> Result<Option<PredictionsByBucket>, LabelError> {
        let denoised = |modality: Modality| world.denoising[modality.index()].is_some();
        let Some(active) = world
            .active
            .clone()
            .filter(|_| Modality::ALL.into_iter().any(denoised))
        else {
            return Ok(None);
        };
        let folder = std::env::temp_dir();
        let spilled = Mutex::new(SpilledBytes::new(&folder, buckets));
        let add = |tracks: &mut dyn Iterator<Item = &PredictionTrack>| {
            let mut by_bucket: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            for track in tracks.filter(|track| denoised(track.modality)) {
                write(
                    by_bucket.entry(bucket_of(&track.video, buckets)).or_default(),
                    track,
                );
            }
            let mut spilled = spilled.lock().unwrap_or_else(PoisonError::into_inner);
            by_bucket
                .iter()
                .try_for_each(|(bucket, bytes)| spilled.push(*bucket, bytes))
        };
        let epochs = &active.epochs;
        let wanted = files_of(snapshot, epochs)?;
        let read = snapshot.map_some_files::<Predictions, _>(&Filter::all(), wanted, |found| {
            let tracks = found.iter().map(|found| &found.row);
            add(&mut tracks.filter(|track| epochs.contains(&track.epoch)))
        })?;
        let fresh = add(&mut fresh.iter().filter(|track| epochs.contains(&track.epoch)));
        let written: Result<(), _> = read.into_iter().chain([fresh]).collect();
        written.map_err(|source| LabelError::Stage {
            action: "write predictions to",
            path: folder,
            source,
        })?;
        Ok(Some(PredictionsByBucket {
            spilled: spilled.into_inner().unwrap_or_else(PoisonError::into_inner),
            buckets,
            columns: columns(&active, world),
            active,
        }))
    }

    /// The latest predictions of a bucket.
    ///
    /// # Errors
    /// Returns [`LabelError`] if the temporary file cannot be read.
    pub(crate) fn of(&self, bucket: u32) -> Result<LatestPredictions, LabelError> {
        debug_assert!(bucket < self.buckets);
        let bytes = self.spilled.bytes(bucket).map_err(|source| LabelError::Stage {
            action: "read predictions from",
            path: self.spilled.folder().to_owned(),
            source,
        })?;
        let (mut rest, mut tracks) = (&bytes[..], Vec::new());
        while rest.has_remaining() {
            tracks.push(read(&mut rest));
        }
        Ok(LatestPredictions {
            tracks: latest_tracks(tracks, &self.active),
            columns: self.columns.clone(),
        })
    }
}

impl LatestPredictions {
    /// The latest of these predictions. Of two tracks of the same epoch, the later one in `tracks` counts.
    pub(crate) fn new(tracks: Vec<PredictionTrack>, world: &World) -> LatestPredictions {
        let Some(active) = &world.active else {
            return LatestPredictions::default();
        };
        LatestPredictions {
            tracks: latest_tracks(tracks, active),
            columns: columns(active, world),
        }
    }

    /// The epoch of the prediction of a video and modality.
    pub(crate) fn epoch(&self, key: (VideoId, Modality)) -> Option<u64> {
        self.tracks.get(&key).map(|track| track.epoch)
    }

    /// The videos and modalities that have a prediction.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (VideoId, Modality)> {
        self.tracks.keys().copied()
    }

    /// The names of the videos that have a prediction.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.tracks.values().map(|track| track.video.clone()).collect()
    }

    /// The prediction and the rule of PLD for one class. A video has few classes in its weak label, but its predictions have
    /// all classes: one column is enough here.
    pub(crate) fn denoising(
        &self,
        world: &World,
        (id, modality, class): (VideoId, Modality, ClassId),
    ) -> Option<Denoising> {
        let rule = world.denoising[modality.index()]?;
        let track = self.tracks.get(&(id, modality))?;
        let own = self.columns.binary_search_by_key(&class, |(of, _)| *of);
        let columns = own.map_or(&[][..], |at| &self.columns[at..=at]);
        Some(Denoising {
            prediction: Arc::new(prediction(track, columns, None)),
            rule,
        })
    }
}

/// Appends a track: its numbers, its name and its probabilities, all little-endian.
fn write(bytes: &mut Vec<u8>, track: &PredictionTrack) {
    bytes.extend(track.epoch.to_le_bytes());
    bytes.push(track.modality.index() as u8);
    bytes.extend(track.classes.to_le_bytes());
    bytes.extend((track.video.len() as u32).to_le_bytes());
    bytes.extend((track.probability.len() as u32).to_le_bytes());
    bytes.extend(track.video.as_bytes());
    bytes.extend(track.probability.iter().flat_map(|value| value.to_le_bytes()));
}

/// Reads a track that [`write`] wrote in this process.
fn read(bytes: &mut &[u8]) -> PredictionTrack {
    let epoch = bytes.get_u64_le();
    let modality = Modality::ALL[usize::from(bytes.get_u8())];
    let classes = bytes.get_u32_le();
    let (name, values) = (bytes.get_u32_le() as usize, bytes.get_u32_le() as usize);
    let video = std::str::from_utf8(&bytes[..name]).expect("the bytes of a name");
    let video = Arc::from(video);
    bytes.advance(name);
    let (own, rest) = bytes.split_at(values * 4);
    *bytes = rest;
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    PredictionTrack {
        epoch,
        video,
        modality,
        classes,
        probability: own.chunks_exact(4).map(value).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_comes_back_from_its_bytes_with_every_bit() {
        let track = |epoch, name: &str, probability: Vec<f32>| PredictionTrack {
            epoch,
            video: name.into(),
            modality: Modality::Visual,
            classes: 2,
            probability,
        };
        let tracks = [
            track(3, "é_0_10", vec![0.25, f32::MIN_POSITIVE]),
            track(u64::MAX, "", vec![1.0; 20]),
        ];
        let mut bytes = Vec::new();
        tracks.iter().for_each(|track| write(&mut bytes, track));
        let mut rest = &bytes[..];
        assert_eq!([read(&mut rest), read(&mut rest)], tracks);
        assert!(rest.is_empty());
    }
}
