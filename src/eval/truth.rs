//! What really happens: dense annotation of the videos of a split.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::rows::{Split, TruthRow};
use vaplan_schemas::{ClassId, Modality};

use super::error::EvalError;
use super::metric::VideoParse;
use crate::ingest::annotations::{Annotations, nearest};

/// Dense truth of one split.
#[derive(Clone, Debug)]
pub struct DenseTruth {
    /// Class names in order; a [`ClassId`] is a position here.
    pub classes: Vec<Arc<str>>,
    /// Split these videos are of.
    pub split: Split,
    /// Every video of the split, also those in which nothing happens.
    pub videos: Vec<TruthVideo>,
}

/// A video and its annotated events.
#[derive(Clone, Debug)]
pub struct TruthVideo {
    /// Full name.
    pub name: Arc<str>,
    /// In no order; may overlap.
    pub events: Vec<TruthEvent>,
}

/// One annotated event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TruthEvent {
    /// Where.
    pub modality: Modality,
    /// What.
    pub class: ClassId,
    /// First segment.
    pub onset: u32,
    /// First segment after.
    pub offset: u32,
}

impl DenseTruth {
    /// Dense truth of `split` as an annotation folder gives it.
    ///
    /// # Errors
    /// [`EvalError::NoVideos`], [`EvalError::NoTruth`].
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
                name: video.name.clone(),
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

    /// Dense truth of `split` as a store's tables give it; rows of other videos are of other splits.
    ///
    /// # Errors
    /// [`EvalError::NoVideos`], [`EvalError::NoTruth`], [`EvalError::UnknownClass`].
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
    /// As matrices `[classes, segments]`; what lies past the last segment is cut off.
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

/// Position of each class name.
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
