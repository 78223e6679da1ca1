//! Labels of the videos of a split, from a store or from label folders, as matrices.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelTrack, VideoRow};

use super::error::EvalError;
use super::matrix::BitMatrix;
use super::report::Prediction;
use super::truth::{Truth, class_id, class_ids};

/// Labels of a store for the videos of `truth`, in its order.
///
/// T is that of the `videos` table. A video that is not in it, or of no segments, is missing; so is a modality
/// without features, unless it has labels all the same. Tracks of other videos are of other splits.
///
/// # Errors
/// [`EvalError::UnknownClass`] for a class that the truth does not know, [`EvalError::Length`] for a track that is not
/// as long as its video.
pub fn of_tables<'a>(
    truth: &Truth,
    videos: impl IntoIterator<Item = &'a VideoRow>,
    labels: impl IntoIterator<Item = &'a LabelTrack>,
) -> Result<Vec<Prediction>, EvalError> {
    let place = places(truth);
    let classes = truth.classes.len();
    let ids = class_ids(&truth.classes);
    let mut predictions = vec![Prediction::default(); truth.videos.len()];
    let mut segments: Vec<Option<usize>> = vec![None; truth.videos.len()];
    for video in videos.into_iter().filter(|video| video.segments > 0) {
        let Some(&place) = place.get(&video.video) else {
            continue;
        };
        let length = video.segments as usize;
        segments[place] = Some(length);
        let nothing = |source: &Option<Arc<str>>| source.as_ref().map(|_| BitMatrix::new(classes, length));
        predictions[place] = Prediction {
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

fn places(truth: &Truth) -> BTreeMap<Arc<str>, usize> {
    truth
        .videos
        .iter()
        .enumerate()
        .map(|(place, video)| (video.name.clone(), place))
        .collect()
}
