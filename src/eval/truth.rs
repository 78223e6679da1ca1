//! Dense truth: the annotated events of the videos of a split.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::rows::{Split, TruthRow};
use vaplan_schemas::{ClassId, Modality};

use super::error::EvalError;
use super::metric::VideoParse;
use crate::ingest::annotations::{Annotations, nearest};

/// Dense truth of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenseTruth {
    /// Names of the classes in order. A [`ClassId`] is a position in this list.
    pub classes: Vec<Arc<str>>,
    /// Split of the videos.
    pub split: Split,
    /// Every video of the split, also videos without events.
    pub videos: Vec<TruthVideo>,
}

/// A video and its annotated events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruthVideo {
    /// Full name.
    pub name: Arc<str>,
    /// Annotated events in any order. Events may overlap.
    pub events: Vec<TruthEvent>,
}

/// One annotated event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TruthEvent {
    /// Modality of the event.
    pub modality: Modality,
    /// Class of the event.
    pub class: ClassId,
    /// First segment of the event.
    pub onset: u32,
    /// First segment after the event.
    pub offset: u32,
}

impl DenseTruth {
    /// Dense truth of `split` from an annotation folder.
    ///
    /// # Errors
    /// - Returns [`EvalError::NoVideos`] if the split has no videos.
    /// - Returns [`EvalError::NoTruth`] if no video of the split has an event.
    pub fn of_annotations(annotations: &Annotations, split: Split) -> Result<DenseTruth, EvalError> {
        let mut place = BTreeMap::new();
        let mut videos = Vec::new();
        for (position, video) in annotations
            .videos
            .iter()
            .enumerate()
            .filter(|(_, v)| v.split == split)
        {
            place.insert(position, videos.len());
            videos.push(TruthVideo {
                name: video.name.into(),
                events: Vec::new(),
            });
        }
        for event in &annotations.events {
            if let Some(&place) = place.get(&event.video) {
                videos[place].events.push(TruthEvent {
                    modality: event.modality,
                    class: event.class,
                    onset: event.onset,
                    offset: event.offset,
                });
            }
        }
        DenseTruth {
            classes: annotations.classes.clone(),
            split,
            videos,
        }
        .checked()
    }

    /// Dense truth of `split` from rows of the tables of a store. Rows of other videos belong to other splits and are
    /// ignored.
    ///
    /// # Errors
    /// - Returns [`EvalError::NoVideos`] if the split has no videos.
    /// - Returns [`EvalError::NoTruth`] if no video of the split has an event.
    /// - Returns [`EvalError::UnknownClass`] if a row has a class that is not in `classes`.
    pub fn of_rows(
        classes: Vec<Arc<str>>,
        split: Split,
        videos: impl IntoIterator<Item = Arc<str>>,
        rows: impl IntoIterator<Item = TruthRow>,
    ) -> Result<DenseTruth, EvalError> {
        let ids = class_ids(&classes);
        let mut by_name: BTreeMap<Arc<str>, Vec<TruthEvent>> =
            videos.into_iter().map(|name| (name, Vec::new())).collect();
        for row in rows {
            let class = class_id(&classes, &ids, &row.class, "truth")?;
            if let Some(events) = by_name.get_mut(&row.video) {
                let TruthRow {
                    modality,
                    onset,
                    offset,
                    ..
                } = row;
                events.push(TruthEvent {
                    modality,
                    class,
                    onset,
                    offset,
                });
            }
        }
        let videos = by_name
            .into_iter()
            .map(|(name, events)| TruthVideo { name, events })
            .collect();
        DenseTruth {
            classes,
            split,
            videos,
        }
        .checked()
    }

    fn checked(self) -> Result<DenseTruth, EvalError> {
        if self.videos.is_empty() {
            return Err(EvalError::NoVideos { split: self.split });
        }
        if self.videos.iter().all(|video| video.events.is_empty()) {
            return Err(EvalError::NoTruth {
                split: self.split,
                videos: self.videos.len(),
            });
        }
        Ok(self)
    }
}

impl TruthVideo {
    /// The events as matrices `[classes, segments]`. Segments after the last one are ignored.
    pub fn parse(&self, classes: usize, segments: usize) -> VideoParse {
        let mut parse = VideoParse::new(classes, segments);
        for event in &self.events {
            let matrix = match event.modality {
                Modality::Audio => &mut parse.audio,
                Modality::Visual => &mut parse.visual,
            };
            matrix.set_range(event.class.index(), event.onset as usize, event.offset as usize);
        }
        parse
    }
}

/// The position of each class, by name.
pub(super) fn class_ids(classes: &[Arc<str>]) -> BTreeMap<Arc<str>, ClassId> {
    classes
        .iter()
        .zip(0..)
        .map(|(name, position)| (name.clone(), ClassId(position)))
        .collect()
}

/// Position of a class that `table` names.
pub(super) fn class_id(
    classes: &[Arc<str>],
    ids: &BTreeMap<Arc<str>, ClassId>,
    class: &str,
    table: &'static str,
) -> Result<ClassId, EvalError> {
    ids.get(class).copied().ok_or_else(|| EvalError::UnknownClass {
        table,
        class: class.to_owned(),
        nearest: nearest(class, classes).0.to_owned(),
    })
}
