//! Labels of the videos of a split, as matrices. The labels come from a store or from label folders.

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

/// Labels of a store for the videos of `truth`, in the order of `truth`.
///
/// Table `videos` gives T. The labels of a video are missing if the table lacks the video or gives 0 segments. The
/// labels of a modality are missing if it has neither features nor labels. Labels of videos outside `truth` belong to
/// other splits and are ignored.
///
/// # Errors
/// - Returns [`EvalError::UnknownClass`] if a class of the labels is not a class of the truth.
/// - Returns [`EvalError::Length`] if the labels of a class have another length than their video.
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
        if track.segments() != expected {
            return Err(EvalError::Length {
                video: track.video.to_string(),
                modality: track.modality,
                class: track.class.to_string(),
                found: track.segments(),
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
        for (segment, _) in track.labels.iter().enumerate().filter(|(_, label)| **label) {
            matrix.set(class.index(), segment);
        }
    }
    Ok(predictions)
}

/// Labels of two folders for the videos of `truth`, in the order of `truth`, and the rejected files.
///
/// `truth` must come from `annotations`: with them, files of videos of other splits are recognised and not opened. A
/// video is rejected, and its labels are missing, if its audio and visual labels differ in length. The labels of a
/// modality are rejected if two files of the folder are for the same video and differ.
///
/// # Errors
/// Returns the errors of [`LabelFolder::read`].
pub fn of_folders(
    truth: &DenseTruth,
    annotations: &Annotations,
    audio: &Path,
    visual: &Path,
) -> Result<(Vec<PredictedLabels>, Vec<RejectRow>), IngestError> {
    let mut rejects = Vec::new();
    let mut audio = matrices(truth, annotations, (Modality::Audio, audio), &mut rejects)?;
    let mut visual = matrices(truth, annotations, (Modality::Visual, visual), &mut rejects)?;
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

/// Labels of one folder, by position of the video in `truth`.
fn matrices(
    truth: &DenseTruth,
    annotations: &Annotations,
    (modality, folder): (Modality, &Path),
    rejects: &mut Vec<RejectRow>,
) -> Result<BTreeMap<usize, LabelMatrix>, IngestError> {
    let place = places(truth);
    let roster = annotations.roster();
    let place_of = |key: &str| {
        roster
            .resolve(key)
            .map(|position| place.get(annotations.videos.get(position).name).copied())
    };
    // Also read the file of an ambiguous key, so that the loop below rejects it. Otherwise the file would be ignored
    // silently.
    let wanted = |key: &str| place_of(key).map_or_else(|_| roster.knows(key), |place| place.is_some());
    let read = LabelFolder::read(folder, modality, truth.classes.len(), &wanted)?;
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

/// Converts `[T, C]` to `[C, T]`.
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
