//! Labels of the videos of a split, from a store or from label folders, as matrices.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelTrack, RejectKind, RejectRow, VideoRow};

use super::error::EvalError;
use super::matrix::BitMatrix;
use super::report::PredictedLabels;
use super::truth::{DenseTruth, class_id, class_ids};
use crate::ingest::IngestError;
use crate::ingest::annotations::Annotations;
use crate::ingest::label_folder::{LabelFolder, LabelMatrix};

/// Labels of a store for the videos of `truth`, in its order.
///
/// T is that of the `videos` table. A video that is not in it, or of no segments, is missing; so is a modality
/// without features, unless it has labels all the same. Tracks of other videos are of other splits.
///
/// # Errors
/// [`EvalError::UnknownClass`] for a class that the truth does not know, [`EvalError::Length`] for a track that is not
/// as long as its video.
pub fn of_tables<'a>(
    truth: &DenseTruth,
    videos: impl IntoIterator<Item = &'a VideoRow>,
    labels: impl IntoIterator<Item = &'a LabelTrack>,
) -> Result<Vec<PredictedLabels>, EvalError> {
    let place = places(truth);
    let classes = truth.classes.len();
    let ids = class_ids(&truth.classes);
    let mut predictions = vec![PredictedLabels::default(); truth.videos.len()];
    let mut segments: Vec<Option<usize>> = vec![None; truth.videos.len()];
    for video in videos.into_iter().filter(|video| video.segments > 0) {
        let Some(&place) = place.get(&video.video) else {
            continue;
        };
        let length = video.segments as usize;
        segments[place] = Some(length);
        let nothing = |source: &Option<Arc<str>>| source.as_ref().map(|_| BitMatrix::new(classes, length));
        predictions[place] = PredictedLabels {
            audio: nothing(&video.audio_source),
            visual: nothing(&video.visual_source),
        };
    }
    for track in labels {
        let Some(&place) = place.get(&track.video) else {
            continue;
        };
        let expected = segments[place].unwrap_or(0);
        if track.cells.len() != expected {
            return Err(EvalError::Length {
                video: track.video.to_string(),
                modality: track.modality,
                class: track.class.to_string(),
                found: track.cells.len(),
                expected,
            });
        }
        let class = class_id(&truth.classes, &ids, &track.class, "labels")?;
        let prediction = &mut predictions[place];
        let matrix = match track.modality {
            Modality::Audio => &mut prediction.audio,
            Modality::Visual => &mut prediction.visual,
        };
        let matrix = matrix.get_or_insert_with(|| BitMatrix::new(classes, expected));
        for (segment, _) in track.cells.iter().enumerate().filter(|(_, cell)| cell.label) {
            matrix.set(class.index(), segment);
        }
    }
    Ok(predictions)
}

/// Labels of two folders for the videos of `truth`, in its order, and what could not be used of them.
///
/// `annotations` are those that `truth` is from: files of their other splits are left unopened.
/// A video is rejected, and thereby missing, when its two lengths differ, or when two files of a folder are for it
/// and say different things.
///
/// # Errors
/// Those of [`LabelFolder::read`].
pub fn of_folders(
    truth: &DenseTruth,
    annotations: &Annotations,
    audio: &Path,
    visual: &Path,
) -> Result<(Vec<PredictedLabels>, Vec<RejectRow>), IngestError> {
    let mut rejects = Vec::new();
    let mut audio = matrices(truth, annotations, audio, &mut rejects)?;
    let mut visual = matrices(truth, annotations, visual, &mut rejects)?;
    let predictions = truth.videos.iter().enumerate().map(|(place, video)| {
        let (audio, visual) = (audio.remove(&place), visual.remove(&place));
        if let (Some(audio), Some(visual)) = (&audio, &visual)
            && audio.segments != visual.segments
        {
            let reason = format!(
                "{} segments, expected the {} of `{}`: both rejected",
                visual.segments,
                audio.segments,
                audio.path.display()
            );
            rejects.push(reject(RejectKind::UnequalLengths, visual, &video.name, reason));
            return PredictedLabels::default();
        }
        PredictedLabels {
            audio: audio.as_ref().map(bits),
            visual: visual.as_ref().map(bits),
        }
    });
    let predictions = predictions.collect();
    Ok((predictions, rejects))
}

/// Labels of one folder by place in `truth`.
fn matrices(
    truth: &DenseTruth,
    annotations: &Annotations,
    folder: &Path,
    rejects: &mut Vec<RejectRow>,
) -> Result<BTreeMap<usize, LabelMatrix>, IngestError> {
    let place = places(truth);
    let roster = annotations.roster();
    let place_of = |key: &str| {
        roster
            .resolve(key)
            .map(|position| place.get(&annotations.videos[position].name).copied())
    };
    // An ambiguous key is wanted too: it is rejected below, and not passed over.
    let wanted = |key: &str| place_of(key).map_or_else(|_| roster.knows(key), |place| place.is_some());
    let read = LabelFolder::read(folder, truth.classes.len(), &wanted)?;
    rejects.extend(read.rejects);

    let mut found: BTreeMap<usize, Vec<LabelMatrix>> = BTreeMap::new();
    for matrix in read.videos {
        match place_of(&matrix.key) {
            Ok(Some(place)) => found.entry(place).or_default().push(matrix),
            Ok(None) => {}
            Err(error) => {
                let kind = RejectKind::AmbiguousKey;
                rejects.push(reject(kind, &matrix, &matrix.key, error.to_string()));
            }
        }
    }
    let mut one_each = BTreeMap::new();
    for (place, mut matrices) in found {
        let first = matrices.swap_remove(0);
        match matrices
            .iter()
            .find(|other| (other.segments, &other.labels) != (first.segments, &first.labels))
        {
            None => drop(one_each.insert(place, first)),
            Some(other) => {
                let reason = format!(
                    "labels differ from those of `{}`: both rejected",
                    first.path.display()
                );
                let name = &truth.videos[place].name;
                rejects.push(reject(RejectKind::LabelConflict, other, name, reason));
            }
        }
    }
    Ok(one_each)
}

fn reject(kind: RejectKind, matrix: &LabelMatrix, video: &str, reason: String) -> RejectRow {
    RejectRow::reject(kind, matrix.path.display().to_string(), reason).video(video)
}

/// From `[T, C]` to `[C, T]`.
fn bits(matrix: &LabelMatrix) -> BitMatrix {
    let mut bits = BitMatrix::new(matrix.classes, matrix.segments);
    for (cell, _) in matrix.labels.iter().enumerate().filter(|(_, label)| **label) {
        bits.set(cell % matrix.classes, cell / matrix.classes);
    }
    bits
}

fn places(truth: &DenseTruth) -> BTreeMap<Arc<str>, usize> {
    truth
        .videos
        .iter()
        .enumerate()
        .map(|(place, video)| (video.name.clone(), place))
        .collect()
}
