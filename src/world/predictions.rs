//! Probabilities of an epoch, from wherever they were trained.
//!
//! Two forms: a folder with `audio/<id>.npy` and `visual/<id>.npy`, each `(T, C)`, or either of the two; and a Parquet
//! file, or a folder of them, with columns `video`, `segment`, `probability` (C values) and `modality`, as table
//! `predictions` has them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{PredictionTrack, RejectKind, RejectRow, Severity};
use vaplan_schemas::store::Snapshot;

use super::resolve::WeakNow;
use super::videos::Known;
use crate::error::LabelError;
use crate::ingest::absolute;
use crate::ingest::annotations::{KeyError, Roster};
use crate::ingest::features::{FeatureBatch, FeatureEvent, FeatureInput};

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) tracks: Vec<PredictionTrack>,
    pub(crate) files: BTreeSet<String>,
    pub(crate) rejects: Vec<RejectRow>,
}

const BATCH_ROWS: usize = 4096;

/// Reads the probabilities of an epoch; bad rows and files, and keys of two videos, are rejects.
///
/// `weak`: videos that come or go with the same change. Predictions of a video that is not there are passed over.
pub(crate) fn read(
    snapshot: &Snapshot,
    known: &mut Known,
    weak: &BTreeMap<Arc<str>, Option<WeakNow>>,
    path: &Path,
    epoch: u64,
    classes: usize,
) -> Result<Read, LabelError> {
    let path = &absolute(path)?;
    let mut read = Read::default();
    let mut batches: Vec<FeatureBatch> = Vec::new();
    for (modality, path) in inputs(path)? {
        for shard in FeatureInput::open(&path, modality, &|_| true)?.shards {
            read.files
                .extend(shard.files().iter().map(|file| file.display().to_string()));
            shard.read(BATCH_ROWS, &mut |event| {
                match event {
                    FeatureEvent::Batch(batch) => batches.push(batch),
                    FeatureEvent::Reject(row) => read.rejects.push(row),
                }
                ControlFlow::Continue(())
            });
        }
    }
    let keys: BTreeSet<Arc<str>> = batches
        .iter()
        .flat_map(|batch| batch.videos.iter().map(|span| span.key.clone()))
        .collect();
    known.want(snapshot, keys.iter().cloned())?;
    // A key that is no full name is the beginning of one: of which, only all names tell.
    if keys.iter().any(|key| known.get(key).is_none()) {
        known.want_all(snapshot)?;
    }
    let there = known.rows().map(|row| &row.video);
    let there = there.filter(|name| !weak.contains_key(*name));
    let come = weak.iter().filter(|(_, now)| now.is_some()).map(|(name, _)| name);
    let names: BTreeSet<Arc<str>> = there.chain(come).cloned().collect();
    let names: Vec<Arc<str>> = names.into_iter().collect();
    let roster = Roster::new(names.iter().cloned());
    // Of a file that names a video there, nothing of that video counts, whatever came of it before.
    let rejected = read.rejects.iter().filter(|row| row.severity == Severity::Reject);
    let bad: BTreeSet<(String, usize)> = rejected
        .filter_map(|row| Some((row.file.clone(), roster.resolve(row.video.as_deref()?).ok()?)))
        .collect();
    let mut tracks: BTreeMap<(Arc<str>, Modality), (PredictionTrack, Arc<str>)> = BTreeMap::new();
    for batch in batches {
        let mut first = 0;
        for span in batch.videos {
            let values = span.segments as usize * batch.width;
            let own = &batch.data[first..first + values];
            first += values;
            let mut refuse = |kind, reason: String| {
                let row = RejectRow::reject(kind, &*span.file, reason).row(span.row);
                read.rejects.push(row.video(&*span.key).modality(batch.modality));
            };
            if batch.width != classes {
                refuse(
                    RejectKind::FeatureRow,
                    format!(
                        "prediction has {} values, expected {classes}, one per class",
                        batch.width
                    ),
                );
                continue;
            }
            let name = match roster.resolve(&span.key) {
                Ok(position) if bad.contains(&(span.file.to_string(), position)) => continue,
                Ok(position) => names[position].clone(),
                // The store holds some splits; predictions may be of more.
                Err(KeyError::Unknown) => continue,
                Err(ambiguous) => {
                    refuse(RejectKind::AmbiguousKey, ambiguous.to_string());
                    continue;
                }
            };
            let track = PredictionTrack {
                epoch,
                video: name.clone(),
                modality: batch.modality,
                classes: classes as u32,
                probability: own.to_vec(),
            };
            let key = (name, batch.modality);
            match tracks.get(&key) {
                Some((other, _)) if same(other, &track) => {}
                Some((_, file)) => refuse(
                    RejectKind::PredictionConflict,
                    format!("prediction differs from that in `{file}`: the first counts"),
                ),
                None => drop(tracks.insert(key, (track, span.file.clone()))),
            }
        }
    }
    read.tracks = tracks.into_values().map(|(track, _)| track).collect();
    Ok(read)
}

/// Bit for bit, since NaN may be there.
pub(crate) fn same(a: &PredictionTrack, b: &PredictionTrack) -> bool {
    let bits = |track: &PredictionTrack| {
        track
            .probability
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    let key = |track: &PredictionTrack| (track.epoch, track.video.clone(), track.modality, track.classes);
    key(a) == key(b) && bits(a) == bits(b)
}

/// Where each modality is: subfolders of their names, or rows that say which they are.
fn inputs(path: &Path) -> Result<Vec<(Modality, PathBuf)>, LabelError> {
    let of_each = || Modality::ALL.into_iter();
    let folders: Vec<(Modality, PathBuf)> = of_each()
        .map(|modality| (modality, path.join(modality.as_str())))
        .filter(|(_, folder)| folder.is_dir())
        .collect();
    if !folders.is_empty() {
        return Ok(folders);
    }
    for shard in FeatureInput::open(path, Modality::Audio, &|_| true)?.shards {
        for file in shard.files() {
            if crate::ingest::parquet_texts(file, "modality").is_none() {
                return Err(LabelError::Change(format!(
                    "predictions `{}` do not say of which modality they are, expected Parquet with a column `modality`, \
                     or a folder with `audio` and `visual` in it",
                    file.display()
                )));
            }
        }
    }
    Ok(of_each().map(|modality| (modality, path.to_owned())).collect())
}
