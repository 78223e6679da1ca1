//! User labels and predictions that a store version holds, as the label graph takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::{Prediction, Probability, UserLabelRecord, UserLabelTrack, VideoId};
use vaplan_schemas::rows::{PredictionTrack, UserLabelRow};
use vaplan_schemas::store::{DataFile, Filter, Found, Snapshot};
use vaplan_schemas::tables::{Epochs, Predictions, Table};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::{Active, World};

/// The key of a record (video and modality) with the data of that video and modality.
pub type Of<T> = (VideoId, (Modality, Arc<T>));

/// User labels and predictions, with classes as positions in a [`World`].
#[derive(Clone, Debug, Default)]
pub struct StoredEvidence {
    /// User labels: at most one record per video and modality.
    pub user_labels: Vec<Of<UserLabelRecord>>,
    /// The latest prediction that counts: at most one per video and modality.
    pub predictions: Vec<Of<Prediction>>,
}

/// Converts rows of `user_labels`, in any order, into records of the label graph.
pub fn user_labels(rows: &[UserLabelRow], world: &World) -> Vec<Of<UserLabelRecord>> {
    type Cells = BTreeMap<ClassId, BTreeMap<u32, bool>>;
    let mut cells: BTreeMap<(VideoId, Modality), Cells> = BTreeMap::new();
    for row in rows {
        if let Some(class) = world.class_id(&row.class) {
            let own = cells.entry((VideoId::of(&row.video), row.modality)).or_default();
            own.entry(class).or_default().insert(row.segment, row.label);
        }
    }
    let user_label = |(class, cells): (ClassId, BTreeMap<u32, bool>)| {
        let end = cells.last_key_value().map_or(0, |(segment, _)| segment + 1);
        UserLabelTrack {
            class,
            known: (0..end).map(|segment| cells.contains_key(&segment)).collect(),
            label: (0..end)
                .map(|segment| cells.get(&segment) == Some(&true))
                .collect(),
        }
    };
    cells
        .into_iter()
        .map(|((video, modality), classes)| {
            let classes = classes.into_iter().map(user_label).collect();
            (video, (modality, Arc::new(UserLabelRecord { classes })))
        })
        .collect()
}

/// Predictions of these epochs for the videos of a filter, each with its place in the store. Files that hold only
/// other epochs are not opened.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn of_epochs(
    snapshot: &Snapshot,
    epochs: &BTreeSet<u64>,
    filter: &Filter,
) -> Result<Vec<Found<PredictionTrack>>, StoreError> {
    if epochs.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = files_of(snapshot, epochs)?;
    let mut found = snapshot.scan_some::<Predictions>(filter, wanted)?;
    found.retain(|found| epochs.contains(&found.row.epoch));
    Ok(found)
}

/// Calls `take` with the predictions of these epochs for all videos, file by file, so that only one file is in memory.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read, and the error of `take`.
pub fn each_file_of_epochs<E: From<StoreError>>(
    snapshot: &Snapshot,
    epochs: &BTreeSet<u64>,
    take: &mut dyn FnMut(Vec<PredictionTrack>) -> Result<(), E>,
) -> Result<(), E> {
    if epochs.is_empty() {
        return Ok(());
    }
    let wanted = files_of(snapshot, epochs)?;
    let files = snapshot.files(Predictions::NAME)?;
    for file in files.iter().filter(|file| wanted(file)) {
        let mut rows = snapshot.read_some::<Predictions>(|other| other.path == file.path)?;
        rows.retain(|row| epochs.contains(&row.epoch));
        take(rows)?;
    }
    Ok(())
}

/// Returns a function that tells whether a file of table `predictions` or `video_predictions` may hold one of these epochs.
///
/// # Errors
/// Returns [`StoreError`] if the versions cannot be read.
pub fn files_of(
    snapshot: &Snapshot,
    epochs: &BTreeSet<u64>,
) -> Result<impl Fn(&DataFile) -> bool + use<>, StoreError> {
    let versions = snapshot.store().versions()?;
    let versions = versions
        .iter()
        .filter(|row| row.epoch.is_some_and(|epoch| epochs.contains(&epoch)));
    let versions: BTreeSet<u64> = versions.map(|row| row.version).collect();
    // A file without a single version (from a patch or a rewrite of several versions) may hold any epoch.
    Ok(move |file: &DataFile| file.version().is_none_or(|version| versions.contains(&version)))
}

/// Whether the store version has a prediction of this epoch.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn has_epoch(snapshot: &Snapshot, epoch: u64) -> Result<bool, StoreError> {
    let versions = snapshot.store().versions()?;
    let own = |file: &DataFile| {
        let of = file.version()?;
        versions.iter().find(|row| row.version == of)?.epoch
    };
    // All rows of a file of one version are of the epoch of that version. Only the rows of other files must be read.
    if snapshot
        .files(Predictions::NAME)?
        .iter()
        .any(|file| own(file) == Some(epoch))
    {
        return Ok(true);
    }
    Ok(!of_epochs(snapshot, &BTreeSet::from([epoch]), &Filter::all())?.is_empty())
}

/// Predictions of the epochs that count, for the videos of a filter.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn counting(
    snapshot: &Snapshot,
    active: Option<&Active>,
    filter: &Filter,
) -> Result<Vec<PredictionTrack>, StoreError> {
    let Some(active) = active else {
        return Ok(Vec::new());
    };
    let found = of_epochs(snapshot, &active.epochs, filter)?;
    Ok(found.into_iter().map(|found| found.row).collect())
}

/// The highest epoch that the store has or ever had, 0 if none. The next epoch, from a training or from outside, must
/// have a higher number.
///
/// # Errors
/// Returns [`StoreError`] if a table cannot be read.
pub fn last_epoch(latest: &Snapshot) -> Result<u64, StoreError> {
    let epochs = latest.read::<Epochs>()?;
    let versions = latest.store().versions()?;
    let carried = versions.iter().filter_map(|row| row.epoch);
    Ok(epochs
        .iter()
        .map(|row| row.epoch)
        .chain(carried)
        .max()
        .unwrap_or(0))
}

/// The latest prediction that counts, for each video and modality.
///
/// `weak` gives the classes to keep for the video of a name; `None` keeps all classes.
pub fn latest(
    tracks: Vec<PredictionTrack>,
    world: &World,
    weak: &dyn Fn(&str) -> Option<Arc<[ClassId]>>,
) -> Vec<Of<Prediction>> {
    let Some(active) = &world.active else {
        return Vec::new();
    };
    let columns = columns(active, world);
    latest_tracks(tracks, active)
        .into_iter()
        .map(|((video, modality), track)| {
            let wanted = weak(&track.video).map(|weak| weak.iter().copied().collect::<BTreeSet<_>>());
            (
                video,
                (modality, Arc::new(prediction(&track, &columns, wanted.as_ref()))),
            )
        })
        .collect()
}

/// Like [`latest`], but returns the tracks as they are in the table. Of two tracks of the same epoch, the later one
/// in `tracks` counts.
pub fn latest_tracks(
    tracks: Vec<PredictionTrack>,
    active: &Active,
) -> BTreeMap<(VideoId, Modality), PredictionTrack> {
    let mut latest: BTreeMap<(VideoId, Modality), PredictionTrack> = BTreeMap::new();
    for track in tracks {
        if !active.epochs.contains(&track.epoch) {
            continue;
        }
        let key = (VideoId::of(&track.video), track.modality);
        match latest.get(&key) {
            Some(later) if later.epoch > track.epoch => {}
            _ => drop(latest.insert(key, track)),
        }
    }
    latest
}

/// Classes with their column in the predictions that count, by ascending class.
pub fn columns(active: &Active, world: &World) -> Vec<(ClassId, usize)> {
    let mut columns: Vec<(ClassId, usize)> = active
        .classes
        .iter()
        .enumerate()
        .filter_map(|(column, class)| Some((world.class_id(class)?, column)))
        .collect();
    columns.sort_unstable();
    columns
}

/// Converts these columns of a track into a prediction for PLD. `wanted` has the classes to keep; `None` keeps all
/// classes.
pub fn prediction(
    track: &PredictionTrack,
    columns: &[(ClassId, usize)],
    wanted: Option<&BTreeSet<ClassId>>,
) -> Prediction {
    let own = || {
        let known = columns
            .iter()
            .filter(|(_, column)| *column < track.classes as usize);
        known.filter(|(class, _)| wanted.is_none_or(|wanted| wanted.contains(class)))
    };
    let cells = own().flat_map(|(_, column)| {
        let column = track
            .probability
            .iter()
            .skip(*column)
            .step_by(track.classes as usize);
        column.map(|value| Probability::new(*value))
    });
    Prediction::new(
        track.epoch,
        track.segments(),
        own().map(|(class, _)| *class).collect(),
        cells.collect(),
    )
}
