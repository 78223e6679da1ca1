//! Weak labels and dense truth of an LLP-style annotation folder.
//!
//! ```text
//! *train.csv ─┐                                   ┌─▶ videos
//! *val_pd.csv ┼─ rows ─ one per video ─ classes ──┤
//! *test_pd.csv┘                                   │
//! *eval_audio.csv ┬─ rows ─ of a known video ─────┴─▶ events
//! *eval_visual.csv┘
//! *dataset_full.csv ── only compared with the splits     rejected rows, notes ─▶ rejects
//! ```
//!
//! The reader finds files by the end of their names, so that any prefix works (LLP: `AVVP_`). Files of a split or of
//! dense truth may be absent, but at least one split must be there. All files are tab-separated with a header line
//! that has `filename` and `event_labels`. Dense files also have `onset` and `offset`, in whole seconds or segments.
//!
//! Irregularities of the public files become notes ([`Severity::Note`](vaplan_schemas::rows::Severity)), and are read
//! as the public evaluator reads them (C: HAN, `utils/eval_metrics.py`). Rows that cannot be read are rejected one by
//! one.

mod ave;
mod classes;
mod dense;
mod folder;
mod roster;
#[cfg(test)]
mod tests;
mod tsv;
mod videos;
mod weak;

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::{ClassId, Modality};

use super::error::IngestError;

pub use classes::{LLP_CLASSES, read_classes};
pub(crate) use classes::{nearest, unknown_class};
pub use roster::{KEY_CHARS, KeyError, Roster, key11, split_name};
pub use videos::{AnnotatedVideo, AnnotatedVideos, VideoLabel};

/// The contents of an annotation folder.
#[derive(Clone, Debug)]
pub struct Annotations {
    /// Names of the classes in order. A [`ClassId`] is a position in this list.
    pub classes: Vec<Arc<str>>,
    /// Every video of a split, in the order of the files train, val, test. Each name occurs once.
    pub videos: AnnotatedVideos,
    /// Dense events of videos of a split, with onset < offset, in the order of the files audio, visual.
    ///
    /// An event may lie after the end of its video, or be of a class outside the weak label. The same event may occur
    /// twice.
    pub events: Vec<DenseEvent>,
    /// Rejected rows, and notes about irregular rows.
    pub rejects: Vec<RejectRow>,
}

/// One annotated event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenseEvent {
    /// Position of the video in [`Annotations::videos`].
    pub video: usize,
    /// Modality of the event.
    pub modality: Modality,
    /// Class of the event.
    pub class: ClassId,
    /// First segment of the event.
    pub onset: u32,
    /// First segment after the event.
    pub offset: u32,
}

impl Annotations {
    /// Reads a folder. Its `classes.txt` gives the classes; without this file they are LLP's classes.
    ///
    /// # Errors
    /// Returns the errors of [`Annotations::read_with_classes`].
    pub fn read(folder: &Path) -> Result<Annotations, IngestError> {
        Annotations::read_with_classes(folder, None)
    }

    /// Reads a folder. `classes` gives the names and order of the classes.
    ///
    /// If `classes` is `None`, `classes.txt` of the folder gives the order ([`read_classes`]). Without this file, the
    /// order is LLP's ([`LLP_CLASSES`]), if the labels of the folder are LLP's classes (D). They are if each unknown
    /// class is a misspelling (similarity at least 0.8), or if fewer than one label in ten has an unknown class. Rows
    /// with an unknown class are rejected.
    ///
    /// A folder with `trainSet.txt`, `valSet.txt` or `testSet.txt` is an AVE folder, with one audible and visible
    /// event per video. The order of its classes is that of `classes.txt`, or else alphabetical.
    ///
    /// # Errors
    /// Returns [`IngestError`] if the folder has no split or two files of the same kind, if a file has no header, or
    /// if the order of the classes is unknown. A bad row is no error: it is in [`Annotations::rejects`].
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
            None => folder::class_order(&files, weak_rows.lists(), &dense_rows)?,
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

    /// Resolves names of feature files to positions in [`Annotations::videos`].
    pub fn roster(&self) -> Roster {
        Roster::new(self.videos.iter().map(|video| video.name))
    }

    /// Position of the class with this name. `None` if no class has this name.
    pub fn class_id(&self, name: &str) -> Option<ClassId> {
        position(&self.classes, name)
    }
}

fn position(classes: &[Arc<str>], name: &str) -> Option<ClassId> {
    // A folder has at most some hundred short class names, so that a scan is as fast as a map.
    let index = classes.iter().position(|class| &**class == name)?;
    u32::try_from(index).ok().map(ClassId)
}
