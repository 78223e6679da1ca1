//! The data set of a training: videos, their labels at a store version, and their features.

mod soft;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};
use vaplan_dataflows::dense::{DenoisedMatrices, PredictedMatrices, denoised_labels};
use vaplan_dataflows::{DenoisingRule, LabelRecord};
use vaplan_schemas::rows::{LabelRule, RejectRow, Split, VideoRow};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables;
use vaplan_schemas::{ClassId, Modality};

use super::error::TrainError;
use super::features::{FeaturePlace, FeatureTable, Lengths, is_pooled_copy};
use super::probabilities::VideoProbabilities;
use super::{ParserInputs, Targets};
use crate::eval::store::classes as class_names;
use crate::ingest::features::ColumnNames;
use crate::world::hash::feed;

/// Score minus threshold of the segments of a video's tracks in one modality, by class.
pub type MarginTracks = Vec<(ClassId, Vec<f64>)>;

/// The paths of the features, and the folder of their pooled copies.
#[derive(Clone, Debug)]
pub struct FeaturePaths {
    /// Audio features: folders and files.
    pub audio: Vec<PathBuf>,
    /// Visual features: folders and files.
    pub visual: Vec<PathBuf>,
    /// Clip features: folders and files. Empty if the network takes no clip features.
    pub clips: Vec<PathBuf>,
    /// Names of the columns of Parquet features.
    pub columns: ColumnNames,
    /// The folder of the pooled copies.
    pub cache: PathBuf,
}

/// The features of all kinds.
#[derive(Debug)]
pub struct FeatureTables {
    /// Audio features.
    pub audio: FeatureTable,
    /// Visual features.
    pub visual: FeatureTable,
    /// Clip features, if the network takes them.
    pub clips: Option<FeatureTable>,
}

impl FeatureTables {
    /// Reads and pools the features. `on_videos` is called with the number of videos that were read since the last
    /// call.
    ///
    /// # Errors
    /// Returns the same errors as [`FeatureTable::open`].
    pub fn open(
        paths: &FeaturePaths,
        names: &[Arc<str>],
        lengths: &Lengths,
        on_videos: &mut dyn FnMut(u64),
    ) -> Result<FeatureTables, TrainError> {
        let audio = FeatureTable::open(
            (&paths.audio, &paths.columns),
            Modality::Audio,
            (names, lengths),
            &paths.cache,
            on_videos,
        )?;
        let mut lengths = lengths.clone();
        for name in names {
            // If the store does not know the number of segments of a video, its audio features give the number: they
            // have one row per segment.
            if let (false, Some(place)) = (lengths.contains_key(name), audio.place(name)) {
                lengths.insert(name.clone(), place.segments);
            }
        }
        let mut visual = |paths_of: &[PathBuf]| {
            FeatureTable::open(
                (paths_of, &paths.columns),
                Modality::Visual,
                (names, &lengths),
                &paths.cache,
                on_videos,
            )
        };
        Ok(FeatureTables {
            visual: visual(&paths.visual)?,
            clips: match &paths.clips[..] {
                [] => None,
                clips => Some(visual(clips)?),
            },
            audio,
        })
    }

    /// Removes the pooled copies of other features from the folder `cache`. Files that are not pooled copies stay.
    ///
    /// # Errors
    /// Returns [`TrainError::Io`] if the folder cannot be listed or a file cannot be removed.
    pub fn keep_only(&self, cache: &Path) -> Result<(), TrainError> {
        let own = [Some(&self.audio), Some(&self.visual), self.clips.as_ref()];
        let fingerprints: Vec<&str> = own.into_iter().flatten().map(FeatureTable::fingerprint).collect();
        for entry in std::fs::read_dir(cache).map_err(TrainError::io("list", cache))? {
            let path = entry.map_err(TrainError::io("list", cache))?.path();
            if is_pooled_copy(&path, &fingerprints) {
                std::fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// The features of all kinds that were left out.
    pub fn rejects(&self) -> Vec<RejectRow> {
        let tables = [Some(&self.audio), Some(&self.visual), self.clips.as_ref()];
        let rows = tables
            .into_iter()
            .flatten()
            .flat_map(|table| table.rejects().iter().cloned());
        rows.collect()
    }

    /// The places of a video's rows, one per kind. Returns `None` unless all kinds have the video with the same
    /// number of segments.
    pub fn places(&self, video: &str) -> Option<[FeaturePlace; 3]> {
        let (audio, visual) = (self.audio.place(video)?, self.visual.place(video)?);
        let clips = match &self.clips {
            Some(clips) => clips.place(video)?,
            None => visual,
        };
        let same = audio.segments == visual.segments && visual.segments == clips.segments;
        same.then_some([audio, visual, clips])
    }

    /// The inputs of a batch.
    pub fn inputs(&self, places: &[[FeaturePlace; 3]], device: Device) -> ParserInputs {
        let segments = longest(places);
        let of = |table: &FeatureTable, kind: usize| {
            let places: Vec<FeaturePlace> = places.iter().map(|place| place[kind]).collect();
            table.gather(&places, segments).to_device(device)
        };
        ParserInputs {
            audio: of(&self.audio, 0),
            visual: of(&self.visual, 1),
            clips: self.clips.as_ref().map(|clips| of(clips, 2)),
            padding: padding(places, segments).map(|padding| padding.to_device(device)),
        }
    }
}

fn longest(places: &[[FeaturePlace; 3]]) -> u32 {
    places.iter().map(|place| place[0].segments).max().unwrap_or(0)
}

/// The mask `[B, T]`, true past the end of a video. Returns `None` if all videos have T segments.
fn padding(places: &[[FeaturePlace; 3]], segments: u32) -> Option<Tensor> {
    if places.iter().all(|place| place[0].segments == segments) {
        return None;
    }
    let past: Vec<bool> = places
        .iter()
        .flat_map(|place| (0..segments).map(|segment| segment >= place[0].segments))
        .collect();
    Some(Tensor::from_slice(&past).view([places.len() as i64, i64::from(segments)]))
}

/// A video that has features of all kinds.
#[derive(Clone, Debug)]
pub struct Example {
    /// The full name of the video.
    pub name: Arc<str>,
    /// The split of the video.
    pub split: Split,
    /// The places of its rows, one per kind of features.
    pub places: [FeaturePlace; 3],
    /// The weak label, `[C]`, 0 or 1.
    weak: Vec<u8>,
    /// The pseudo labels of audio and visual, `[T, C]` each, 0 or 1. Empty if the store has no labels of the
    /// modality.
    labels: [Vec<u8>; 2],
    /// How far the scores of audio and visual are above their thresholds, `[T, C]` each; NaN for a label without a score. Empty
    /// unless [`Dataset::read_margins`] was called.
    margins: [Vec<f32>; 2],
    /// Whether the store has features, and therefore labels, of both modalities.
    labelled: bool,
}

impl Example {
    /// Hashes all data of the video that a training reads, except its features.
    pub(super) fn feed(&self, sum: &mut Sha256) {
        feed(sum, [&*self.name, self.split.as_str()]);
        sum.update([u8::from(self.labelled)]);
        for cells in [&self.weak, &self.labels[0], &self.labels[1]] {
            sum.update((cells.len() as u64).to_le_bytes());
            sum.update(cells);
        }
        for margin in self.margins.iter().flatten() {
            sum.update(margin.to_bits().to_le_bytes());
        }
    }
}

/// The videos of a store version that have features.
#[derive(Debug)]
pub struct Dataset {
    /// The names of the classes, in the order of the store.
    pub classes: Vec<Arc<str>>,
    /// The videos, sorted by name.
    pub examples: Vec<Example>,
    /// The features of the videos.
    pub features: FeatureTables,
    /// The number of videos of each split, including videos without features.
    pub videos: BTreeMap<Split, usize>,
}

impl Dataset {
    /// Reads a store version and the features of its videos. `on_videos` is called as in [`FeatureTables::open`].
    ///
    /// # Errors
    /// Returns the same errors as [`FeatureTables::open`], and [`TrainError::Store`] if the store cannot be read.
    pub fn read(
        snapshot: &Snapshot,
        paths: &FeaturePaths,
        on_videos: &mut dyn FnMut(u64),
    ) -> Result<Dataset, TrainError> {
        Dataset::with(snapshot, paths, false, on_videos)
    }

    /// Like [`Dataset::read`], but every label that a denoising rule flipped has the value that scores and thresholds give it.
    ///
    /// # Errors
    /// Returns the same errors as [`Dataset::read`].
    pub fn read_undenoised(
        snapshot: &Snapshot,
        paths: &FeaturePaths,
        on_videos: &mut dyn FnMut(u64),
    ) -> Result<Dataset, TrainError> {
        Dataset::with(snapshot, paths, true, on_videos)
    }

    fn with(
        snapshot: &Snapshot,
        paths: &FeaturePaths,
        undenoised: bool,
        on_videos: &mut dyn FnMut(u64),
    ) -> Result<Dataset, TrainError> {
        let mut rows = snapshot.read::<tables::Videos>()?;
        rows.sort_by(|a, b| a.video.cmp(&b.video));
        let classes = class_names(&snapshot.read::<tables::Classes>()?);
        let names: Vec<Arc<str>> = rows.iter().map(|row| row.video.clone()).collect();
        let lengths: Lengths = rows
            .iter()
            .filter(|row| row.segments > 0)
            .map(|row| (row.video.clone(), row.segments))
            .collect();
        let features = FeatureTables::open(paths, &names, &lengths, on_videos)?;
        let mut videos = BTreeMap::new();
        for row in &rows {
            *videos.entry(row.split).or_insert(0) += 1;
        }
        let position: BTreeMap<Arc<str>, usize> = classes.iter().cloned().zip(0..).collect();
        let examples = rows
            .iter()
            .filter_map(|row| example(row, features.places(&row.video)?, &position));
        let mut dataset = Dataset {
            examples: examples.collect(),
            classes,
            features,
            videos,
        };
        dataset.read_labels(snapshot, &position, undenoised)?;
        Ok(dataset)
    }

    fn read_labels(
        &mut self,
        snapshot: &Snapshot,
        position: &BTreeMap<Arc<str>, usize>,
        undenoised: bool,
    ) -> Result<(), TrainError> {
        let classes = self.classes.len();
        for track in snapshot.read::<tables::Labels>()? {
            let found = self
                .examples
                .binary_search_by(|example| example.name.cmp(&track.video));
            let (Ok(at), Some(&class)) = (found, position.get(&track.class)) else {
                continue;
            };
            let example = &mut self.examples[at];
            let segments = example.places[0].segments as usize;
            if track.segments() != segments {
                return Err(unequal(&track.video, &track.class, track.segments(), segments));
            }
            let labels = &mut example.labels[usize::from(track.modality == Modality::Visual)];
            if labels.is_empty() {
                *labels = vec![0; segments * classes];
            }
            for (segment, (&label, rule)) in track.labels.iter().zip(&track.rules).enumerate() {
                let flipped = undenoised && *rule == LabelRule::Pld;
                labels[segment * classes + class] = u8::from(label != flipped);
            }
        }
        Ok(())
    }

    /// Replaces the labels of the example at position `at`. `None` removes the labels of this modality.
    ///
    /// # Errors
    /// Returns [`TrainError::Settings`] if the number of labels differs from the number of segments of the features.
    pub fn relabel(
        &mut self,
        at: usize,
        modality: Modality,
        record: Option<&LabelRecord>,
    ) -> Result<(), TrainError> {
        let classes = self.classes.len();
        let example = &mut self.examples[at];
        let segments = example.places[0].segments as usize;
        let mut labels = match record {
            Some(_) => vec![0; segments * classes],
            None => Vec::new(),
        };
        for track in record.into_iter().flat_map(|record| &record.tracks) {
            let class = track.class.index();
            if track.label.len() != segments {
                let (found, class) = (track.label.len(), &self.classes[class]);
                return Err(unequal(&example.name, class, found, segments));
            }
            for (segment, label) in track.label.iter().enumerate() {
                labels[segment * classes + class] = u8::from(label);
            }
        }
        example.labels[usize::from(modality == Modality::Visual)] = labels;
        Ok(())
    }

    /// Flips the labels of one modality of the examples at these positions where `rule` says so, and returns the number of
    /// flips. `probabilities` has the prediction of each of these examples. `margins` has the margins of the tracks by video, for a
    /// rule that reads them; labels of a track without margins do not flip.
    ///
    /// # Panics
    /// Panics if the lengths differ.
    pub fn denoise(
        &mut self,
        positions: &[usize],
        modality: Modality,
        (rule, probabilities): (DenoisingRule, &[VideoProbabilities]),
        margins: &BTreeMap<Arc<str>, MarginTracks>,
    ) -> u64 {
        assert_eq!(
            positions.len(),
            probabilities.len(),
            "a prediction for each example"
        );
        let own = usize::from(modality == Modality::Visual);
        let mut count = 0;
        for (&at, predicted) in positions.iter().zip(probabilities) {
            let Example {
                name, weak, labels, ..
            } = &mut self.examples[at];
            let classes = weak.len();
            let margins = rule.reads_margins().then(|| {
                let mut matrix = vec![f64::NAN; labels[own].len()];
                for (class, margins) in margins.get(name).into_iter().flatten() {
                    for (segment, margin) in margins.iter().enumerate() {
                        matrix[segment * classes + class.index()] = *margin;
                    }
                }
                matrix
            });
            let set: Vec<bool> = labels[own].iter().map(|label| *label == 1).collect();
            let weak: Vec<bool> = weak.iter().map(|class| *class == 1).collect();
            let (mut denoised, mut losses, mut flips) = (set.clone(), vec![0.0; set.len()], set.clone());
            let out = DenoisedMatrices {
                labels: &mut denoised,
                losses: &mut losses,
                flips: &mut flips,
            };
            let matrices = PredictedMatrices {
                probabilities: &predicted.segments[own],
                labels: &set,
                margins: margins.as_deref(),
            };
            denoised_labels(rule, matrices, &weak, out);
            count += flips.iter().filter(|flipped| **flipped).count() as u64;
            labels[own] = denoised.into_iter().map(u8::from).collect();
        }
        count
    }

    /// The labels of one modality of all examples, to put back by [`Dataset::put_back`].
    pub fn labels_of(&self, modality: Modality) -> Vec<Vec<u8>> {
        let own = usize::from(modality == Modality::Visual);
        self.examples
            .iter()
            .map(|example| example.labels[own].clone())
            .collect()
    }

    /// Puts back the labels that [`Dataset::labels_of`] returned.
    pub fn put_back(&mut self, modality: Modality, labels: Vec<Vec<u8>>) {
        let own = usize::from(modality == Modality::Visual);
        for (example, labels) in self.examples.iter_mut().zip(labels) {
            example.labels[own] = labels;
        }
    }

    /// The positions of the examples of a split. With `labelled`, only those of examples with labels of both
    /// modalities.
    pub fn of_split(&self, split: Split, labelled: bool) -> Vec<usize> {
        let of = |example: &Example| example.split == split && (example.labelled || !labelled);
        (0..self.examples.len())
            .filter(|&at| of(&self.examples[at]))
            .collect()
    }

    /// The inputs of the examples at these positions.
    pub fn inputs(&self, positions: &[usize], device: Device) -> ParserInputs {
        self.features.inputs(&self.places(positions), device)
    }

    fn places(&self, positions: &[usize]) -> Vec<[FeaturePlace; 3]> {
        positions.iter().map(|&at| self.examples[at].places).collect()
    }

    /// The labels of the examples at these positions.
    pub fn targets(&self, positions: &[usize], device: Device) -> Targets {
        let places = self.places(positions);
        let (batch, segments) = (positions.len() as i64, longest(&places));
        let classes = self.classes.len();
        let size = segments as usize * classes;
        let tensor = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).view(shape).to_device(device);
        let shape = [batch, i64::from(segments), classes as i64];
        let labels = |modality: usize| {
            let mut values = vec![0f32; positions.len() * size];
            for (&at, out) in positions.iter().zip(values.chunks_exact_mut(size)) {
                for (label, out) in self.examples[at].labels[modality].iter().zip(out) {
                    *out = f32::from(*label);
                }
            }
            tensor(&values, &shape)
        };
        let weak: Vec<f32> = positions
            .iter()
            .flat_map(|&at| self.examples[at].weak.iter().map(|&label| f32::from(label)))
            .collect();
        let within = padding(&places, segments);
        Targets {
            audio: labels(0),
            visual: labels(1),
            weak: tensor(&weak, &[batch, classes as i64]),
            within: within.map(|past| past.logical_not().to_kind(Kind::Float).to_device(device)),
        }
    }
}

fn unequal(video: &str, class: &str, labels: usize, segments: usize) -> TrainError {
    TrainError::Settings(format!(
        "video `{video}` has {labels} labels of `{class}` and {segments} segments of features, expected equally many"
    ))
}

fn example(
    row: &VideoRow,
    places: [FeaturePlace; 3],
    position: &BTreeMap<Arc<str>, usize>,
) -> Option<Example> {
    let mut weak = vec![0; position.len()];
    for class in &row.weak_labels {
        weak[*position.get(class)?] = 1;
    }
    Some(Example {
        name: row.video.clone(),
        split: row.split,
        places,
        weak,
        labels: [Vec::new(), Vec::new()],
        margins: [Vec::new(), Vec::new()],
        labelled: row.audio_source.is_some() && row.visual_source.is_some(),
    })
}
