//! Labels, scores and predictions of the videos of a store version as one array `[N, T, C]`.
//!
//! ```text
//! videos ─ those of the split, in order of name ─┐
//! labels, scores or predictions ─────────────────┴─ one array, padded to the longest video
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::rows::{LabelBitTrack, PredictionTrack, Split};
use vaplan_schemas::store::{Filter, Found, Snapshot};
use vaplan_schemas::tables::{Classes, LabelBits, Predictions, Scores, Table, Videos};
use vaplan_schemas::{Modality, StoreError};

use crate::error::LabelError;
use crate::eval::store::classes;
use crate::world::{World, epochs};

/// Values of the videos of a store version, one modality.
///
/// # Shapes
/// N videos, T segments of the longest video, C classes.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoMatrices<V> {
    /// Full names `[N]`, ascending.
    pub names: Vec<Arc<str>>,
    /// Number of segments of each video `[N]`. Values of later segments are padding.
    pub lengths: Vec<u32>,
    /// Names of the classes `[C]`.
    pub classes: Vec<Arc<str>>,
    /// T, the number of segments of the longest video.
    pub segments: usize,
    /// The values `[N, T, C]`, row-major.
    pub values: Vec<V>,
}

/// The weak labels of the videos of a store version.
///
/// # Shapes
/// N videos, C classes.
#[derive(Clone, Debug, PartialEq)]
pub struct WeakMatrix {
    /// Full names `[N]`, ascending.
    pub names: Vec<Arc<str>>,
    /// Names of the classes `[C]`.
    pub classes: Vec<Arc<str>>,
    /// Whether the class is in the weak label `[N, C]`, row-major.
    pub values: Vec<u8>,
}

/// The reason why there is no array.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// The store cannot be read, or lacks the epoch.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A table names a class that table `classes` lacks.
    #[error("table `{table}`, video `{video}`: class `{class}` is not in table `classes`")]
    UnknownClass {
        /// Name of the table.
        table: &'static str,
        /// Full name of the video.
        video: String,
        /// The class.
        class: String,
    },
    /// A track has another length than its video.
    #[error("table `{table}`, video `{video}`: a track of {found} segments, expected {expected}")]
    Length {
        /// Name of the table.
        table: &'static str,
        /// Full name of the video.
        video: String,
        /// Number of segments of the track.
        found: usize,
        /// Number of segments of the video.
        expected: usize,
    },
    /// The array has more values than fit into memory.
    #[error(
        "{videos} videos of up to {segments} segments and {classes} classes are too many values for one array"
    )]
    Size {
        /// Number of videos.
        videos: usize,
        /// Number of segments of the longest video.
        segments: usize,
        /// Number of classes.
        classes: usize,
    },
}

impl From<StoreError> for MatrixError {
    fn from(error: StoreError) -> MatrixError {
        MatrixError::Label(error.into())
    }
}

/// The labels of the videos of `split`: 1 if the label is set. Padding, and classes outside the weak label, are 0.
///
/// # Errors
/// Returns [`MatrixError`] if a table cannot be read, or contradicts another table.
pub fn labels(
    snapshot: &Snapshot,
    split: Option<Split>,
    modality: Modality,
) -> Result<VideoMatrices<u8>, MatrixError> {
    let mut matrices = VideoMatrices::new(snapshot, split, 0)?;
    fill::<LabelBits, _, _>(&mut [&mut matrices], snapshot, |track| {
        (track.modality == modality).then(|| (0, label_track(track)))
    })?;
    Ok(matrices)
}

/// The labels of both modalities, audio first, as [`labels`] gives them. The table is read once.
///
/// # Errors
/// Returns the errors of [`labels`].
pub fn labels_of_both(
    snapshot: &Snapshot,
    split: Option<Split>,
) -> Result<[VideoMatrices<u8>; 2], MatrixError> {
    let mut audio = VideoMatrices::new(snapshot, split, 0)?;
    let mut visual = audio.clone();
    fill::<LabelBits, _, _>(&mut [&mut audio, &mut visual], snapshot, |track| {
        Some((track.modality.index(), label_track(track)))
    })?;
    Ok([audio, visual])
}

fn label_track(track: LabelBitTrack) -> ClassTrack<u8> {
    let values = track.labels.iter().map(|label| u8::from(*label)).collect();
    ClassTrack(track.video, track.class, values)
}

/// The scores of the videos of `split`, as they are compared with thresholds. Padding, and classes outside the weak label,
/// are NaN.
///
/// # Errors
/// Returns [`MatrixError`] if a table cannot be read, or contradicts another table.
pub fn scores(
    snapshot: &Snapshot,
    split: Option<Split>,
    modality: Modality,
) -> Result<VideoMatrices<f64>, MatrixError> {
    let mut matrices = VideoMatrices::new(snapshot, split, f64::NAN)?;
    fill::<Scores, _, _>(&mut [&mut matrices], snapshot, |track| {
        let own = ClassTrack(track.video, track.class, track.score);
        (track.modality == modality).then_some((0, own))
    })?;
    Ok(matrices)
}

/// The predictions of an epoch for the videos of `split`. Videos without a prediction, and padding, are NaN. The classes are
/// those of the epoch.
///
/// # Errors
/// Returns [`MatrixError`] if a table cannot be read or contradicts another table, or if the store has no predictions of the
/// epoch.
pub fn predictions(
    snapshot: &Snapshot,
    split: Option<Split>,
    modality: Modality,
    epoch: u64,
) -> Result<VideoMatrices<f32>, MatrixError> {
    let active = epochs::chosen(snapshot, &World::read(snapshot)?, epoch)?;
    let tracks = crate::world::evidence::counting(snapshot, Some(&active), &Filter::all())?;
    let tracks: Vec<PredictionTrack> = tracks
        .into_iter()
        .filter(|track| track.modality == modality)
        .collect();
    let longest = tracks.iter().map(PredictionTrack::segments).max().unwrap_or(0);
    let mut matrices =
        VideoMatrices::with_classes(snapshot, split, active.classes, f32::NAN, longest as usize)?;
    let (places, classes) = (matrices.places(), matrices.classes.len());
    for track in tracks {
        let Some(&place) = places.get(&track.video) else {
            continue;
        };
        let found = track.segments() as usize;
        if track.classes as usize != classes {
            return Err(MatrixError::Length {
                table: Predictions::NAME,
                video: track.video.to_string(),
                found: track.classes as usize,
                expected: classes,
            });
        }
        let first = place * matrices.segments * classes;
        matrices.values[first..first + found * classes].copy_from_slice(&track.probability);
        matrices.lengths[place] = found as u32;
    }
    Ok(matrices)
}

/// The weak labels of the videos of `split`.
///
/// # Errors
/// Returns [`MatrixError`] if a table cannot be read, or contradicts another table.
pub fn weak(snapshot: &Snapshot, split: Option<Split>) -> Result<WeakMatrix, MatrixError> {
    let classes = classes(&snapshot.read::<Classes>()?);
    let mut videos = snapshot.read::<Videos>()?;
    videos.retain(|video| split.is_none_or(|split| video.split == split));
    videos.sort_by(|a, b| a.video.cmp(&b.video));
    let ids = positions(&classes);
    let mut values = vec![0; videos.len() * classes.len()];
    for (place, video) in videos.iter().enumerate() {
        for class in &video.weak_labels {
            let class = position(&ids, class, Videos::NAME, &video.video)?;
            values[place * classes.len() + class] = 1;
        }
    }
    Ok(WeakMatrix {
        names: videos.into_iter().map(|video| video.video).collect(),
        classes,
        values,
    })
}

/// Video, class, and one value per segment.
struct ClassTrack<V>(Arc<str>, Arc<str>, Vec<V>);

impl<V: Copy> VideoMatrices<V> {
    fn new(snapshot: &Snapshot, split: Option<Split>, padding: V) -> Result<Self, MatrixError> {
        let classes = classes(&snapshot.read::<Classes>()?);
        Self::with_classes(snapshot, split, classes, padding, 0)
    }

    /// An array of padding that holds at least `longest` segments of each video.
    fn with_classes(
        snapshot: &Snapshot,
        split: Option<Split>,
        classes: Vec<Arc<str>>,
        padding: V,
        longest: usize,
    ) -> Result<Self, MatrixError> {
        let mut videos = snapshot.read::<Videos>()?;
        videos.retain(|video| split.is_none_or(|split| video.split == split));
        videos.sort_by(|a, b| a.video.cmp(&b.video));
        let segments = videos.iter().map(|video| video.segments as usize).max();
        let segments = segments.unwrap_or(0).max(longest);
        let size = || MatrixError::Size {
            videos: videos.len(),
            segments,
            classes: classes.len(),
        };
        let cells = videos
            .len()
            .checked_mul(segments)
            .and_then(|rows| rows.checked_mul(classes.len()));
        let cells = cells.ok_or_else(size)?;
        let mut values = Vec::new();
        values.try_reserve_exact(cells).map_err(|_| size())?;
        values.resize(cells, padding);
        Ok(VideoMatrices {
            lengths: videos.iter().map(|video| video.segments).collect(),
            names: videos.into_iter().map(|video| video.video).collect(),
            classes,
            segments,
            values,
        })
    }

    fn places(&self) -> BTreeMap<Arc<str>, usize> {
        let names = self.names.iter().cloned();
        names.zip(0..).collect()
    }
}

/// Writes the tracks of a table into arrays of the same videos and classes. `track` tells which array takes a row.
fn fill<T: Table, V: Copy + Send, F: Fn(T::Row) -> Option<(usize, ClassTrack<V>)> + Sync>(
    matrices: &mut [&mut VideoMatrices<V>],
    snapshot: &Snapshot,
    track: F,
) -> Result<(), MatrixError> {
    let read = |rows: Vec<Found<T::Row>>| -> Vec<(usize, ClassTrack<V>)> {
        rows.into_iter().filter_map(|found| track(found.row)).collect()
    };
    let files = snapshot.map_files::<T, _>(&Filter::all(), read)?;
    let ids = positions(&matrices[0].classes);
    let (places, classes) = (matrices[0].places(), ids.len());
    // The tracks of a video follow one another and share its name, so that most names need no search.
    let mut last: Option<(Arc<str>, Option<usize>)> = None;
    for (of, ClassTrack(video, class, values)) in files.into_iter().flatten() {
        let place = match &last {
            Some((name, place)) if Arc::ptr_eq(name, &video) => *place,
            _ => {
                let place = places.get(&video).copied();
                last = Some((video.clone(), place));
                place
            }
        };
        let Some(place) = place else { continue };
        let class = position(&ids, &class, T::NAME, &video)?;
        let expected = matrices[of].lengths[place] as usize;
        if values.len() != expected {
            return Err(MatrixError::Length {
                table: T::NAME,
                video: video.to_string(),
                found: values.len(),
                expected,
            });
        }
        let first = place * matrices[of].segments * classes + class;
        let cells = matrices[of].values[first..].iter_mut().step_by(classes);
        cells.zip(values).for_each(|(cell, value)| *cell = value);
    }
    Ok(())
}

/// The position of each class.
pub(crate) fn positions(classes: &[Arc<str>]) -> BTreeMap<Arc<str>, usize> {
    classes.iter().cloned().zip(0..).collect()
}

/// The position of a class that table `table` names.
pub(crate) fn position(
    ids: &BTreeMap<Arc<str>, usize>,
    class: &Arc<str>,
    table: &'static str,
    video: &Arc<str>,
) -> Result<usize, MatrixError> {
    ids.get(class).copied().ok_or_else(|| MatrixError::UnknownClass {
        table,
        video: video.to_string(),
        class: class.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::store::Store;
    use vaplan_schemas::tables::Labels;

    use super::*;
    use crate::engine::Listener;

    #[test]
    fn arrays_hold_the_rows_of_the_tables() {
        let folder = tempfile::tempdir().unwrap();
        let request = crate::sample(folder.path()).unwrap();
        crate::label(&request, &Listener::silent()).unwrap();
        let snapshot = Store::open(&request.store).unwrap().at_version(None).unwrap();
        let train = labels(&snapshot, Some(Split::Train), Modality::Visual).unwrap();
        assert_eq!(
            (train.names.len(), train.segments, train.classes.len()),
            (40, 10, 25)
        );
        let all = labels(&snapshot, None, Modality::Audio).unwrap();
        let rows = snapshot.read::<Labels>().unwrap();
        let own = rows.iter().filter(|track| track.modality == Modality::Audio);
        let mut set = 0;
        for track in own {
            let place = all.names.iter().position(|name| *name == track.video).unwrap();
            let class = all.classes.iter().position(|name| *name == track.class).unwrap();
            for (segment, label) in track.labels.iter().enumerate() {
                let cell = all.values[(place * all.segments + segment) * all.classes.len() + class];
                assert_eq!(cell == 1, *label);
                set += usize::from(*label);
            }
        }
        assert_eq!(all.values.iter().filter(|cell| **cell == 1).count(), set);
        let scored = scores(&snapshot, None, Modality::Audio).unwrap();
        let weak = weak(&snapshot, None).unwrap();
        let finite = |place: usize, class: usize| scored.values[place * 10 * 25 + class].is_finite();
        for (cell, known) in weak.values.iter().enumerate() {
            assert_eq!(finite(cell / 25, cell % 25), *known == 1);
        }
        let missing = predictions(&snapshot, None, Modality::Audio, 1).unwrap_err();
        assert!(
            missing.to_string().contains("no predictions of epoch 1"),
            "{missing}"
        );
    }
}
