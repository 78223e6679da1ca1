//! Labels of another program as the labels of a store: `label --pseudo-labels VISUAL_DIR AUDIO_DIR`.
//!
//! ```text
//! VISUAL_DIR/<id>.npy (T, C) of 0 and 1 ── a feature per segment: (l_1, .., l_C, rest) / √C ─┐
//! class c ── text embedding: the unit vector c ──────────────────────────────────────────────┴─ cosine × √C = l_c ▶ > 0.5
//! ```
//!
//! The labels become features whose scores are the labels, so that every other part of the program treats them like labels of
//! its own: they can be trained on, denoised, corrected and scored. A label of a class that the weak label lacks has no place
//! in the store; it appears when the class is added to the weak label.
//!
//! A rejected row names the label file, because the user knows nothing of the features. A video whose label file is rejected has
//! one row: [`drop_repeated`](crate::world::rejects::drop_repeated) removes the row of the graph that says the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::Digest;
use vaplan_schemas::rows::{RejectKind, RejectRow, Split};
use vaplan_schemas::storage::is_url;
use vaplan_schemas::store::Store;
use vaplan_schemas::{Modality, StoreError};

use super::LabelRequest;
use crate::ingest::annotations::{Annotations, KEY_CHARS, Roster, read_classes};
use crate::ingest::label_folder::{LabelFolder, LabelMatrix};
use crate::ingest::npy;
use crate::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use crate::ingest::{IngestError, absolute};
use crate::world::hash::{feed, hash};
use crate::world::settings::{RuleName, SettingsRequest};
use crate::world::state::{IMPORT, IMPORT_THRESHOLD};

/// Replaces the features and settings of a request by those of imported labels. `folders` has the label folders of audio and
/// visual.
///
/// # Errors
/// Returns [`IngestError`] if the annotations or a folder cannot be read, or the store's folder cannot be written. A bad label
/// file is a rejected row of the request.
pub fn import_labels(request: &mut LabelRequest, folders: [&Path; 2]) -> Result<(), IngestError> {
    let classes = request.classes.as_deref().map(read_classes).transpose()?;
    let annotations = Annotations::read_with_classes(&request.annotations, classes)?;
    let width = annotations.classes.len();
    let known = KnownVideos::new(&annotations, &request.splits);
    // Both folders are read before anything is written, so that a folder that cannot be read leaves no store behind.
    let mut read = Vec::new();
    for (modality, folder) in Modality::ALL.into_iter().zip(folders) {
        let labels = known.read(modality, folder, &mut request.left_out)?;
        read.push((modality, labels));
        request.label_folders[modality.index()] = Some(absolute(folder)?);
    }
    let remote = is_url(&request.store);
    let store = remote.then(|| Store::create(&request.store)).transpose();
    let store = store.map_err(stored(&request.store))?;
    let place = match &store {
        Some(store) => store.own_dir().join("shards"),
        None => request.store.join("_vaplan").join("shards"),
    };
    let mut inputs = Vec::new();
    for (modality, labels) in read {
        let content = hash(|sum| {
            feed(sum, [modality.as_str(), &width.to_string()]);
            for matrix in &labels {
                feed(sum, [&*matrix.key]);
                let labels: Vec<u8> = matrix.labels.iter().map(|label| u8::from(*label)).collect();
                sum.update((labels.len() as u64).to_le_bytes());
                sum.update(&labels);
            }
        });
        // `vacuum` keeps a folder `shards/NAME/HASH` that is an input of a kept version.
        let own = |what: &str| {
            place
                .join(format!("{IMPORT}{modality}{what}"))
                .join(&content[..32])
        };
        let (features, text) = write([&own(""), &own("_text")], modality, width, &labels)?;
        inputs.push(match &store {
            Some(store) => {
                let keep = |path: &Path| store.keep_input(path).map_err(stored(path));
                (keep(&features)?, keep(&text)?)
            }
            None => (features, text),
        });
    }
    let [audio, visual] = <[_; 2]>::try_from(inputs).expect("there are two modalities");
    (request.audio, request.audio_text) = audio;
    (request.visual, request.visual_text) = visual;
    let scale = Some((width as f64).sqrt());
    request.settings = SettingsRequest {
        rule: Some(RuleName::Logit),
        visual_threshold: Some(IMPORT_THRESHOLD),
        audio_threshold: Some(IMPORT_THRESHOLD),
        visual_scale: scale,
        audio_scale: scale,
        file: None,
        fit: false,
        candidates: None,
        event_shares: Default::default(),
    };
    Ok(())
}

/// The annotated videos, which label files name.
struct KnownVideos<'a> {
    annotations: &'a Annotations,
    roster: Roster,
    splits: &'a [Split],
}

impl<'a> KnownVideos<'a> {
    fn new(annotations: &'a Annotations, splits: &'a [Split]) -> KnownVideos<'a> {
        let names = annotations.videos.iter();
        let names = names.map(|video| Arc::<str>::from(video.name));
        KnownVideos {
            roster: Roster::new(names),
            annotations,
            splits,
        }
    }

    /// Whether the run labels this video. Files of other videos are kept for later changes, and have no rejected rows.
    fn is_labelled(&self, name: &str) -> bool {
        let position = self.annotations.videos.position(name);
        position.is_some_and(|at| self.splits.contains(&self.annotations.videos.get(at).split))
    }

    /// The labels of a folder: one matrix for each video, in order of the paths. Adds the files that cannot be used to
    /// `left_out`, and notes.
    fn read(
        &self,
        modality: Modality,
        folder: &Path,
        left_out: &mut Vec<RejectRow>,
    ) -> Result<Vec<LabelMatrix>, IngestError> {
        let width = self.annotations.classes.len();
        let read = LabelFolder::read(folder, modality, width, &|key| self.roster.knows(key))?;
        for row in read.rejects {
            let key = row.video.as_deref().unwrap_or_default();
            let name = self.roster.resolve(key).map(|at| self.roster.name(at).clone());
            let row = row.modality(modality);
            match name {
                Ok(name) if self.is_labelled(&name) => left_out.push(row.video(&*name)),
                Ok(_) => {}
                // The file can be of several videos, so the row keeps the key.
                Err(_) => left_out.push(row),
            }
        }
        let mut by_video: BTreeMap<usize, Vec<LabelMatrix>> = BTreeMap::new();
        for matrix in read.videos {
            match self.roster.resolve(&matrix.key) {
                Ok(position) => by_video.entry(position).or_default().push(matrix),
                Err(error) => left_out.push(
                    reject(RejectKind::AmbiguousKey, &matrix, error.to_string())
                        .video(&matrix.key)
                        .modality(modality),
                ),
            }
        }
        let mut labels = Vec::new();
        for (position, mut copies) in by_video {
            let name = self.roster.name(position);
            let first = copies.remove(0);
            let differs =
                |other: &&LabelMatrix| (other.segments, &other.labels) != (first.segments, &first.labels);
            if let Some(other) = copies.iter().find(differs) {
                if self.is_labelled(name) {
                    let reason = format!(
                        "labels of video `{name}` differ from those of `{}`: neither file is used",
                        first.path.display()
                    );
                    let row = reject(RejectKind::LabelConflict, other, reason);
                    left_out.push(row.video(&**name).modality(modality));
                }
                continue;
            }
            left_out.extend(self.outside(&first, modality, name));
            labels.push(first);
        }
        labels.sort_by(|a, b| a.path.cmp(&b.path));
        left_out.extend(unmatched(folder, modality, &read.unwanted));
        Ok(labels)
    }

    /// A note on labels of a video that its weak label does not allow.
    fn outside(&self, matrix: &LabelMatrix, modality: Modality, name: &str) -> Option<RejectRow> {
        if !self.is_labelled(name) {
            return None;
        }
        let videos = &self.annotations.videos;
        let weak = videos.get(videos.position(name)?).weak.iter();
        let weak: BTreeSet<usize> = weak.map(|class| class.index()).collect();
        let set = matrix.labels.iter().enumerate().filter(|(_, label)| **label);
        let lost = set
            .filter(|(at, _)| !weak.contains(&(at % matrix.classes)))
            .count();
        (lost > 0).then(|| {
            let file = matrix.path.display().to_string();
            let reason = format!("{lost} labels are of classes that the weak label lacks, and are not set");
            RejectRow::note(RejectKind::OutsideWeakLabel, file, reason)
                .video(name)
                .modality(modality)
        })
    }
}

fn reject(kind: RejectKind, matrix: &LabelMatrix, reason: String) -> RejectRow {
    RejectRow::reject(kind, matrix.path.display().to_string(), reason)
}

/// A note on the label files of a folder that match no annotated video.
fn unmatched(folder: &Path, modality: Modality, files: &[PathBuf]) -> Option<RejectRow> {
    let first = files.first()?;
    let reason = format!(
        "{} label files match no annotated video and are not used, for example `{}`: expected a full name or its first \
         {KEY_CHARS} characters before `.npy`",
        files.len(),
        first.strip_prefix(folder).unwrap_or(first).display()
    );
    let row = RejectRow::note(RejectKind::UnknownVideo, folder.display().to_string(), reason);
    Some(row.modality(modality))
}

fn stored(path: &Path) -> impl FnOnce(StoreError) -> IngestError {
    IngestError::of_store("use", path)
}

/// Writes the features and text embeddings, unless an earlier call wrote them, and returns their paths. A file appears
/// complete or not at all.
fn write(
    [folder, of_text]: [&Path; 2],
    modality: Modality,
    classes: usize,
    videos: &[LabelMatrix],
) -> Result<(PathBuf, PathBuf), IngestError> {
    for folder in [folder, of_text] {
        std::fs::create_dir_all(folder).map_err(IngestError::io("make", folder))?;
    }
    let (shard, text) = (
        folder.join(format!("{modality}.parquet")),
        of_text.join(format!("{modality}_text.npy")),
    );
    let width = classes + 1;
    let unfinished = |path: &Path| path.with_extension(format!("{}.tmp", std::process::id()));
    if !text.is_file() {
        let cell = |at: usize| if at / width == at % width { 1.0 } else { 0.0 };
        let values: Vec<f32> = (0..classes * width).map(cell).collect();
        let beside = unfinished(&text);
        npy::write_f32(&beside, &[classes, width], &values)?;
        std::fs::rename(&beside, &text).map_err(IngestError::io("write", &text))?;
    }
    if !shard.is_file() {
        let format = ShardFormat {
            modality,
            width,
            float: FloatType::F32,
            layout: FeatureLayout::Packed,
            model: None,
        };
        let beside = unfinished(&shard);
        let mut writer = ShardWriter::create(&beside, format)?;
        for matrix in videos {
            writer.append(&matrix.key, &features(matrix))?;
        }
        writer.finish()?;
        std::fs::rename(&beside, &shard).map_err(IngestError::io("write", &shard))?;
    }
    Ok((folder.to_owned(), text))
}

/// A feature of unit length for each segment, whose cosine with the unit vector of a class is the label divided by √C.
fn features(matrix: &LabelMatrix) -> Vec<f32> {
    let all = matrix.classes as f64;
    let mut values = Vec::with_capacity(matrix.segments * (matrix.classes + 1));
    for labels in matrix.labels.chunks_exact(matrix.classes) {
        let set = labels.iter().filter(|label| **label).count() as f64;
        values.extend(
            labels
                .iter()
                .map(|label| (f64::from(u8::from(*label)) / all.sqrt()) as f32),
        );
        values.push(((all - set) / all).sqrt() as f32);
    }
    values
}
