//! Weak labels and dense truth of an LLP-style annotation folder.

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectRow, Split};
use vaplan_schemas::{ClassId, Modality};

/// All that an annotation folder says.
#[derive(Clone, Debug)]
pub struct Annotations {
    /// Class names in order; a [`ClassId`] is a position here.
    pub classes: Vec<Arc<str>>,
    /// Every video of a split, in the order of the files train, val, test; each name once.
    pub videos: Vec<AnnotatedVideo>,
    /// Dense events of videos of a split, onset < offset, in the order of the files audio, visual.
    pub events: Vec<DenseEvent>,
    /// Odd and rejected rows.
    pub rejects: Vec<RejectRow>,
}

/// A video with its weak label.
#[derive(Clone, Debug)]
pub struct AnnotatedVideo {
    /// Full name.
    pub name: Arc<str>,
    /// Part of the data set.
    pub split: Split,
    /// Weak label, sorted, each class once.
    pub weak: Vec<ClassId>,
    /// File of its row.
    pub source: Arc<str>,
}

/// One annotated event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenseEvent {
    /// Position in [`Annotations::videos`].
    pub video: usize,
    /// Where.
    pub modality: Modality,
    /// What.
    pub class: ClassId,
    /// First segment.
    pub onset: u32,
    /// First segment after.
    pub offset: u32,
}

impl Annotations {
    /// Reads a folder.
    pub fn read(folder: &Path) -> anyhow::Result<Annotations> {
        anyhow::bail!("TBD {}", folder.display())
    }
}
