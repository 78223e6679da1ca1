//! Weak labels and dense truth of an LLP-style annotation folder.
//!
//! ```text
//! *train.csv ─┐                                   ┌─▶ videos
//! *val_pd.csv ┼─ rows ─ one per video ─ classes ──┤
//! *test_pd.csv┘                                   │
//! *eval_audio.csv ┬─ rows ─ of a known video ─────┴─▶ events
//! *eval_visual.csv┘
//! *dataset_full.csv ── only compared with the splits     every odd or bad row ─▶ rejects
//! ```
//!
//! Files are found by how their names end, so any prefix will do (LLP: `AVVP_`). Files of a split or of dense truth
//! may be absent, as long as one split is there. All are tab-separated with a header line: `filename` and
//! `event_labels`, in the dense files `onset` and `offset` (whole seconds, or segments) too.
//!
//! What is odd in the public files is noted ([`Severity::Note`](vaplan_schemas::rows::Severity)) and read as the
//! public evaluator reads it (C: HAN, `utils/eval_metrics.py`); what cannot be read is rejected, row by row.

mod ave;
mod classes;
mod dense;
mod folder;
mod roster;
#[cfg(test)]
mod tests;
mod tsv;
mod weak;

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectRow, Split};
use vaplan_schemas::{ClassId, Modality};

use super::error::IngestError;

pub use classes::{LLP_CLASSES, read_classes};
pub(crate) use classes::{nearest, unknown_class};
pub use roster::{KEY_CHARS, KeyError, Roster, key11, split_name};

/// All that an annotation folder says.
#[derive(Clone, Debug)]
pub struct Annotations {
    /// Class names in order; a [`ClassId`] is a position here.
    pub classes: Vec<Arc<str>>,
    /// Every video of a split, in the order of the files train, val, test; each name once.
    pub videos: Vec<AnnotatedVideo>,
    /// Dense events of videos of a split, onset < offset, in the order of the files audio, visual.
    ///
    /// An event may lie beyond the end of its video, or outside its weak label; an event may be there twice.
    pub events: Vec<DenseEvent>,
    /// Odd and rejected rows.
    pub rejects: Vec<RejectRow>,
}

/// A video with its weak label.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Reads a folder whose classes are those of its `classes.txt`, or else LLP's.
    ///
    /// # Errors
    /// As [`Annotations::read_with_classes`].
    pub fn read(folder: &Path) -> Result<Annotations, IngestError> {
        Annotations::read_with_classes(folder, None)
    }

    /// Reads a folder; `classes` gives names and order, if some.
    ///
    /// Otherwise the order is that of `classes.txt` in the folder ([`read_classes`]). Without one it is LLP's
    /// ([`LLP_CLASSES`]), provided that the folder's classes are LLP's (D): each that is not is a misspelt one
    /// (similarity of at least 0.8), or fewer than one label in ten is of such a class; those are rejected.
    ///
    /// A folder with `trainSet.txt`, `valSet.txt` or `testSet.txt` is one of AVE: one event a video, seen and heard; the order
    /// is then that of `classes.txt`, or of the names.
    ///
    /// # Errors
    /// A folder without a split, two files for one purpose, a file without its header, or classes of unknown order.
    /// A bad row is no error: it is in [`Annotations::rejects`].
    pub fn read_with_classes(
        folder: &Path,
        classes: Option<Vec<Arc<str>>>,
    ) -> Result<Annotations, IngestError> {
        let ave = ave::find(folder);
        if !ave.is_empty() {
            return ave::read(folder, &ave, classes);
        }
        let files = folder::Files::find(folder)?;
        let mut rejects = Vec::new();
        let weak_rows = weak::rows(&files, &mut rejects)?;
        let dense_rows = dense::rows(&files, &mut rejects)?;
        let classes = match classes {
            Some(classes) => classes,
            None => folder::class_order(&files, &weak_rows, &dense_rows)?,
        };
        let videos = weak::videos(weak_rows, &files, &classes, &mut rejects);
        let events = dense::events(dense_rows, &files, &classes, &videos, &mut rejects);
        Ok(Annotations {
            classes,
            videos,
            events,
            rejects,
        })
    }

    /// From names of feature files to positions in [`Annotations::videos`].
    pub fn roster(&self) -> Roster {
        Roster::new(self.videos.iter().map(|video| video.name.clone()))
    }

    /// Position of each class name.
    pub fn class_id(&self, name: &str) -> Option<ClassId> {
        position(&self.classes, name)
    }
}

fn position(classes: &[Arc<str>], name: &str) -> Option<ClassId> {
    // At most some hundred short names: a scan is as fast as a map.
    let index = classes.iter().position(|class| &**class == name)?;
    u32::try_from(index).ok().map(ClassId)
}
