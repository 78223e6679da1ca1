//! Encodes delivered media into features, so that a video, a sound file or a folder of frames is a delivery like any other.
//!
//! ```text
//! video0001.mp4 ── encode ─┬─▶ _vaplan/shards/video0001.mp4/<hash>.visual.parquet ─┐
//!                          ├─▶ _vaplan/shards/video0001.mp4/<hash>.audio.parquet ──┴─ features of the batch
//!                          └─▶ _vaplan/shards/video0001.mp4/<hash>.rejects.jsonl ──── rejected rows of the batch
//! ```
//!
//! The media of a batch are encoded together, before the watch takes the lock of the store. The files are named by the hash of
//! the delivery, so that a delivery is encoded once, even if the process is killed between encoding and commit. The cache of
//! embeddings is that of `label --media`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, Severity};
use vaplan_schemas::store::Store;

use super::batch::Batches;
use super::delivery::{Delivery, DeliveryKind};
use super::place::{self, sync};
use super::status::Board;
use super::{WatchError, WatchProgress};
use crate::encode::embed::Embedder;
use crate::encode::media::{Media, find};
use crate::encode::model::ModelKind;
use crate::encode::{EncodeError, EncodeListener, EncodeRequest};
use crate::error::{LabelError, chain};
use crate::ingest::encoded::encoder_of;
use crate::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use crate::world::World;
use crate::world::changes::Changes;

/// The open encoders of a watch.
pub(super) struct MediaEncoder {
    embedder: Embedder,
    float: FloatType,
    cache: PathBuf,
}

impl std::fmt::Debug for MediaEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaEncoder")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl MediaEncoder {
    /// Opens the encoders, and checks that they are those of the features in the store.
    ///
    /// # Errors
    /// Returns [`WatchError::Encode`] if an encoder cannot be used, or its features do not fit the store.
    pub(super) fn open(store: &Store, request: &EncodeRequest) -> Result<MediaEncoder, WatchError> {
        let world = World::read(&store.at_version(None)?)?;
        let mut request = request.clone();
        request.cut.seconds = world.segment_seconds;
        let float = request.form.float;
        let embedder = Embedder::open(request)?;
        for (folder, open) in embedder.encoders() {
            let modality = open.modality;
            let refused = |problem: String| {
                let folder = folder.path.display();
                WatchError::Encode(EncodeError::Settings(format!(
                    "{modality} model `{folder}` {problem}"
                )))
            };
            if folder.kind == ModelKind::Classifier {
                return Err(refused(
                    "is a classifier, expected CLIP or CLAP: `vaplan encode` makes features of its scores, and their shards can \
                     be delivered"
                        .to_owned(),
                ));
            }
            let expected = world.prompts[modality.index()].width;
            if open.width != expected {
                return Err(refused(format!(
                    "gives {} values per segment, expected {expected} as the {modality} features of the store",
                    open.width
                )));
            }
            // Features from outside have no report, and then nothing tells which model made them.
            if let Ok(origin) = encoder_of(&world.features[modality.index()], modality)
                && origin.sha256 != open.target.model
            {
                return Err(refused(format!(
                    "has the SHA-256 {}, but the {modality} features of the store were made by `{}` with the SHA-256 {}: name \
                     that model",
                    open.target.model,
                    origin.model.display(),
                    origin.sha256
                )));
            }
        }
        Ok(MediaEncoder {
            embedder,
            float,
            cache: store.encoded_dir().join("cache"),
        })
    }

    /// Encodes the media among these deliveries that are not encoded yet. Returns for each delivery the reason why it cannot be
    /// used; `None` if it can.
    ///
    /// # Errors
    /// Returns [`WatchError`] if a model fails, or a file cannot be written.
    pub(super) fn encode(
        &mut self,
        store: &Store,
        batch: &[Delivery],
    ) -> Result<Vec<Option<String>>, WatchError> {
        let media = |delivery: &Delivery| {
            let own = delivery.kind == DeliveryKind::Media && !place::rejects(store, delivery).exists();
            own.then(|| find::one(&delivery.entry.name, &delivery.entry.path))
                .flatten()
        };
        let (places, media): (Vec<usize>, Vec<Media>) = batch
            .iter()
            .enumerate()
            .filter_map(|(nth, own)| Some((nth, media(own)?)))
            .unzip();
        let mut reasons = vec![None; batch.len()];
        if media.is_empty() {
            return Ok(reasons);
        }
        let quiet: EncodeListener = Arc::new(|_| ());
        let embedded = self.embedder.embed(&media, &self.cache, &quiet)?;
        for (position, (nth, own)) in places.iter().zip(&media).enumerate() {
            let delivery = &batch[*nth];
            let file = delivery.entry.path.display().to_string();
            let has: BTreeSet<Modality> = Modality::ALL
                .into_iter()
                .filter(|modality| match modality {
                    Modality::Audio => own.sound.is_some(),
                    Modality::Visual => own.pictures.is_some(),
                })
                .collect();
            // Two media of one name share a name, so the rows are told apart by their file. A row of an encoder names none.
            let of_delivery = |row: &&RejectRow| {
                row.video.as_deref() == Some(&*own.name)
                    && (row.file.is_empty() || Path::new(&row.file).starts_with(&file))
            };
            let rows = embedded.rejects.iter().filter(of_delivery);
            let rows: Vec<RejectRow> = rows
                .filter(|row| row.modality.is_none_or(|modality| has.contains(&modality)))
                .map(|row| RejectRow {
                    file: file.clone(),
                    ..row.clone()
                })
                .collect();
            let encoded = |modality: &Modality| embedded.embeddings.contains_key(&(position, *modality));
            if !has.iter().any(encoded) {
                let bad = rows.iter().filter(|row| row.severity == Severity::Reject);
                let all: Vec<&str> = bad.map(|row| row.reason.as_str()).collect();
                reasons[*nth] = Some(match all.is_empty() {
                    true => "has no segment that the encoders of this watch take: name --clip for pictures, --clap for sound"
                        .to_owned(),
                    false => all.join("; "),
                });
                continue;
            }
            let folder = place::folder(store, delivery);
            fs::create_dir_all(&folder).map_err(WatchError::io("make", &folder))?;
            for (modality, sha256, width) in self.models() {
                let Some(features) = embedded.embeddings.get(&(position, modality)) else {
                    continue;
                };
                let format = ShardFormat {
                    modality,
                    width,
                    float: self.float,
                    layout: FeatureLayout::Packed,
                    model: Some(sha256),
                };
                let unfinished = folder.join(".unfinished");
                let write = || {
                    let mut writer = ShardWriter::create(&unfinished, format)?;
                    writer.append(&own.name, &features.values)?;
                    writer.finish()
                };
                write().map_err(EncodeError::from)?;
                let place = place::encoded(store, delivery, modality);
                put(&unfinished, &place)?;
                store.keep_input(&place)?;
            }
            // The rows come last: their file says that the delivery is encoded.
            let unfinished = folder.join(".unfinished");
            let lines = rows
                .iter()
                .map(|row| serde_json::to_string(row).expect("a row is plain text and numbers") + "\n");
            fs::write(&unfinished, lines.collect::<String>())
                .map_err(WatchError::io("write", &unfinished))?;
            put(&unfinished, &place::rejects(store, delivery))?;
            let shards = folder.parent();
            for folder in [Some(&*folder), shards, shards.and_then(Path::parent)]
                .into_iter()
                .flatten()
            {
                sync(folder)?;
            }
        }
        Ok(reasons)
    }

    fn models(&self) -> Vec<(Modality, String, usize)> {
        let models = self.embedder.encoders();
        models
            .map(|(_, open)| (open.modality, open.target.model.clone(), open.width))
            .collect()
    }
}

impl Batches<'_> {
    /// Encodes the media among the deliveries, and takes out those that cannot be used. Returns whether any was taken out.
    pub(super) fn encode(
        &mut self,
        deliveries: &mut Vec<Delivery>,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<bool, WatchError> {
        let new = |delivery: &Delivery| {
            delivery.kind == DeliveryKind::Media && !self.resident.delivered.contains(&delivery.id)
        };
        let mut media: Vec<Delivery> = deliveries.extract_if(.., |delivery| new(delivery)).collect();
        if media.is_empty() {
            return Ok(false);
        }
        let reasons = match &mut self.encoder {
            Some(encoder) => {
                board.state("encoding", None)?;
                encoder.encode(self.store, &media)?
            }
            None => {
                let reason =
                    "is a medium, and this watch has no encoders: start `vaplan watch` with --clip or --clap";
                vec![Some(reason.to_owned()); media.len()]
            }
        };
        let mut failed = false;
        for (delivery, reason) in media.drain(..).zip(reasons) {
            match reason {
                None => deliveries.push(delivery),
                Some(reason) => {
                    self.fail(&delivery.entry, &reason, board, on_progress)?;
                    failed = true;
                }
            }
        }
        // The order of a batch is that of the names.
        deliveries.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
        Ok(failed)
    }

    /// Adds the features that were made of delivered media.
    pub(super) fn encoded(
        &self,
        delivery: &Delivery,
        world: &World,
        changes: &mut Changes,
    ) -> Result<(), LabelError> {
        for modality in Modality::ALL {
            let (at, local) = (modality.index(), place::encoded(self.store, delivery, modality));
            let place = self.store.kept_input(&local);
            let earlier = place::earlier(self.store, delivery, &place, &world.features[at]);
            changes.removed[at].extend(earlier);
            changes.features[at].extend(local.exists().then_some(place));
        }
        let rows = rejects_of(self.store, delivery);
        let rows = rows.map_err(|error| LabelError::Change(chain(&error)))?;
        changes
            .rows
            .files
            .insert(delivery.entry.path.display().to_string());
        changes.rows.rejects.extend(rows);
        Ok(())
    }
}

/// Syncs a file and gives it its name.
fn put(unfinished: &Path, place: &Path) -> Result<(), WatchError> {
    sync(unfinished)?;
    fs::rename(unfinished, place).map_err(WatchError::io("name", place))
}

/// The rejected rows of an encoded delivery.
///
/// # Errors
/// Returns [`WatchError::Io`] if their file cannot be read.
fn rejects_of(store: &Store, delivery: &Delivery) -> Result<Vec<RejectRow>, WatchError> {
    let path = place::rejects(store, delivery);
    let text = fs::read_to_string(&path).map_err(WatchError::io("read", &path))?;
    let rows: Result<Vec<RejectRow>, _> = text.lines().map(serde_json::from_str).collect();
    rows.map_err(|error| WatchError::io("read", &path)(std::io::Error::other(error)))
}
