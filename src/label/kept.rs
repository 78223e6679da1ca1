//! What a store keeps beside scores: labels that persons set, and the predictions that count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::{Mark, Marks, Prediction, Probability, VideoId};
use vaplan_schemas::rows::{PredictionTrack, UserLabelRow};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{Predictions, UserLabels};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::world::World;

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
            predictions: match &world.active {
                Some(_) => latest(snapshot.read::<Predictions>()?, world, &|_| None),
                None => Vec::new(),
            },
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

/// The latest predictions that count, of each video and modality; `weak` gives the classes of use, none: all.
///
/// Those of an epoch before the classes were as they are now, or after the epoch that is active, do not count.
pub fn latest(
    tracks: Vec<PredictionTrack>,
    world: &World,
    weak: &dyn Fn(&str) -> Option<Arc<[ClassId]>>,
) -> Vec<Of<Prediction>> {
    let Some(active) = &world.active else {
        return Vec::new();
    };
    let mut latest: BTreeMap<(VideoId, Modality), PredictionTrack> = BTreeMap::new();
    for track in tracks {
        if !(active.since..=active.epoch).contains(&track.epoch) {
            continue;
        }
        let key = (VideoId::of(&track.video), track.modality);
        match latest.get(&key) {
            Some(later) if later.epoch > track.epoch => {}
            _ => drop(latest.insert(key, track)),
        }
    }
    let mut columns: Vec<(ClassId, usize)> = active
        .classes
        .iter()
        .enumerate()
        .filter_map(|(column, class)| Some((world.class_id(class)?, column)))
        .collect();
    columns.sort_unstable();
    latest
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

fn prediction(
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
