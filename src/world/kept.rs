//! What a store keeps beside scores: labels that persons set, and the predictions that count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::{Mark, Marks, Prediction, Probability, VideoId};
use vaplan_schemas::rows::{PredictionTrack, UserLabelRow};
use vaplan_schemas::store::{DataFile, Filter, Found, Snapshot};
use vaplan_schemas::tables::{Epochs, Predictions, Table, UserLabels};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::{Active, World};

/// A video and modality, and what is kept of it.
pub type Of<T> = (VideoId, (Modality, Arc<T>));

/// Marks and predictions, in the classes of a [`World`].
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// At most one per video and modality.
    pub marks: Vec<Of<Marks>>,
    /// At most one per video and modality, the latest that counts.
    pub predictions: Vec<Of<Prediction>>,
}

impl Kept {
    /// Of all videos of a version. Marks of classes that the world does not have wait in their table.
    ///
    /// # Errors
    /// Where a table does not read back.
    pub fn read(snapshot: &Snapshot, world: &World) -> Result<Kept, StoreError> {
        Ok(Kept {
            marks: marks(&snapshot.read::<UserLabels>()?, world),
            predictions: latest(
                counting(snapshot, world.active.as_ref(), &Filter::all())?,
                world,
                &|_| None,
            ),
        })
    }
}

/// Rows of `user_labels`, in any order, as marks.
pub fn marks(rows: &[UserLabelRow], world: &World) -> Vec<Of<Marks>> {
    type Cells = BTreeMap<ClassId, BTreeMap<u32, bool>>;
    let mut cells: BTreeMap<(VideoId, Modality), Cells> = BTreeMap::new();
    for row in rows {
        if let Some(class) = world.class_id(&row.class) {
            let own = cells.entry((VideoId::of(&row.video), row.modality)).or_default();
            own.entry(class).or_default().insert(row.segment, row.label);
        }
    }
    let mark = |(class, cells): (ClassId, BTreeMap<u32, bool>)| {
        let end = cells.last_key_value().map_or(0, |(segment, _)| segment + 1);
        Mark {
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
            let classes = classes.into_iter().map(mark).collect();
            (video, (modality, Arc::new(Marks { classes })))
        })
        .collect()
}

/// Predictions of some epochs, of the videos of a filter, and where they lie; no file of another epoch is opened.
///
/// # Errors
/// Where a table does not read back.
pub fn of_epochs(
    snapshot: &Snapshot,
    epochs: &BTreeSet<u64>,
    filter: &Filter,
) -> Result<Vec<Found<PredictionTrack>>, StoreError> {
    if epochs.is_empty() {
        return Ok(Vec::new());
    }
    let versions = snapshot.store().versions()?;
    let versions = versions
        .iter()
        .filter(|row| row.epoch.is_some_and(|epoch| epochs.contains(&epoch)));
    let versions: BTreeSet<u64> = versions.map(|row| row.version).collect();
    // A file of several versions, or of a patch, may hold any epoch.
    let wanted = |file: &DataFile| file.version().is_none_or(|version| versions.contains(&version));
    let mut found = snapshot.scan_some::<Predictions>(filter, wanted)?;
    found.retain(|found| epochs.contains(&found.row.epoch));
    Ok(found)
}

/// Is there a prediction of this epoch?
///
/// # Errors
/// Where a table does not read back.
pub fn has_epoch(snapshot: &Snapshot, epoch: u64) -> Result<bool, StoreError> {
    let versions = snapshot.store().versions()?;
    let own = |file: &DataFile| {
        let of = file.version()?;
        versions.iter().find(|row| row.version == of)?.epoch
    };
    // All rows of a version's file are of its epoch; others are to be read.
    if snapshot
        .files(Predictions::NAME)?
        .iter()
        .any(|file| own(file) == Some(epoch))
    {
        return Ok(true);
    }
    Ok(!of_epochs(snapshot, &BTreeSet::from([epoch]), &Filter::all())?.is_empty())
}

/// Predictions of the epochs that count, of the videos of a filter.
///
/// # Errors
/// Where a table does not read back.
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

/// The last epoch that a store has or ever had: the next one to come, from inside or outside, is after it.
///
/// # Errors
/// Where a table does not read back.
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

/// The latest predictions that count, of each video and modality; `weak` gives the classes of use, none: all.
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

/// As [`latest`], as they lie in the table.
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

/// Which column of the predictions that count is of which class, ascending.
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

/// A track as PLD takes it, with these columns; `wanted`: the classes of use, none: all.
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
