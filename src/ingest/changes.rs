//! The rows of a change of a store, and the files that they are read from.
//!
//! ```text
//! weak labels, user labels (CSV) ─┐
//! user labels (ELAN, Label Studio)┤
//! class list, text embeddings ────┼─ rows, each with its origin ─▶ ChangeRows ─▶ checked against the store's classes
//! predictions (npy, Parquet) ─────┘     rejected rows ─▶ rejects
//! ```
//!
//! A caller without files, such as a server, makes the rows itself. Rows name classes as text, because only the store
//! knows its classes.

mod confirmed;
mod elan;
mod label_studio;
#[cfg(test)]
mod outside_tests;
mod user;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, Split};

use super::annotations::read_classes;
use super::features::{ColumnNames, FeatureEvent, FeatureInput};
use super::sheet::{self, optional, required};
use super::text::TextRows;
use super::{IngestError, absolute, npy};

pub use user::{UserEditRow, UserSpan};

/// Rows of a change. By default there are no rows.
#[derive(Clone, Debug, Default)]
pub struct ChangeRows {
    /// Edits of weak labels, applied in order.
    pub weak: Vec<WeakEditRow>,
    /// User labels to set or withdraw, applied in order.
    pub user: Vec<UserEditRow>,
    /// New list of classes in order. Classes that are not in the list are removed.
    pub classes: Option<Vec<Arc<str>>>,
    /// Text embeddings of all classes: for audio, then for visual.
    pub texts: [Option<TextRows>; 2],
    /// Text embeddings of single classes.
    pub prompts: Vec<PromptEdit>,
    /// Predictions of one epoch.
    pub predictions: Option<EpochPredictions>,
    /// Files that the rows come from. Rejected rows of an earlier reading of these files are replaced.
    pub files: BTreeSet<String>,
    /// Rows of these files that were rejected.
    pub rejects: Vec<RejectRow>,
}

/// The source of a row, for messages and for the columns `source` and `file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Path of the file, or any other name of the source.
    pub file: Arc<str>,
    /// Line from 1, or row of a shard from 0. `None` if the source has no rows.
    pub row: Option<u64>,
}

impl Origin {
    /// A rejected row with this origin.
    pub fn reject(&self, kind: RejectKind, video: Option<&str>, reason: String) -> RejectRow {
        RejectRow {
            row: self.row,
            video: video.map(str::to_owned),
            ..RejectRow::reject(kind, &*self.file, reason)
        }
    }
}

/// How a weak label is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeakEdit {
    /// The weak label of the video becomes exactly these classes.
    Set,
    /// These classes are added to the weak label.
    Add,
    /// These classes are removed from the weak label. A row without classes removes the video.
    Remove,
}

/// One edit of a weak label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeakEditRow {
    /// The kind of edit.
    pub edit: WeakEdit,
    /// Full name of the video.
    pub video: Arc<str>,
    /// Classes in any order.
    pub classes: Vec<Arc<str>>,
    /// Split of the video. `None` keeps the split; a new video is then in `train`.
    pub split: Option<Split>,
    /// Source of the row.
    pub origin: Origin,
}

/// The text embedding of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptEdit {
    /// Modality of the embedding.
    pub modality: Modality,
    /// Name of the class.
    pub class: Arc<str>,
    /// Embedding of shape `[D]`, not normalised.
    pub embedding: Vec<f32>,
    /// File, or any other name of the source, for messages.
    pub origin: Arc<str>,
}

/// Predictions of one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochPredictions {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// One row per video and modality.
    pub rows: Vec<PredictedRow>,
}

/// Predictions of one video and modality.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictedRow {
    /// Full name of the video, or its first 11 characters if no other video has them.
    pub key: Arc<str>,
    /// Modality of the predictions.
    pub modality: Modality,
    /// Number C of classes.
    pub classes: usize,
    /// Probabilities of shape `[T, C]`, row-major, in the order of the classes.
    pub probability: Vec<f32>,
    /// Source of the first row.
    pub origin: Origin,
}

impl ChangeRows {
    /// Whether the rows change nothing.
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && self.files.is_empty() && self.has_no_other_rows()
    }

    /// Whether there are no rows beside user labels.
    pub(crate) fn has_no_other_rows(&self) -> bool {
        self.weak.is_empty() && self.name_only_videos()
    }

    /// Whether the rows are user labels and edits of weak labels, and nothing else.
    pub(crate) fn name_only_videos(&self) -> bool {
        self.classes.is_none()
            && self.texts.iter().all(Option::is_none)
            && self.prompts.is_empty()
            && self.predictions.is_none()
    }

    fn file(&mut self, path: &Path) -> Result<(PathBuf, Arc<str>), IngestError> {
        let path = absolute(path)?;
        let name = path.display().to_string();
        self.files.insert(name.clone());
        Ok((path, name.into()))
    }

    /// Reads edits of weak labels: columns `filename`, `event_labels` (classes with commas between them) and
    /// optionally `split`. A bad row goes to [`ChangeRows::rejects`].
    ///
    /// # Errors
    /// Returns [`IngestError::Sheet`], [`IngestError::Io`] or [`IngestError::Kind`] if the file as a whole cannot be
    /// read.
    pub fn read_weak(&mut self, edit: WeakEdit, path: &Path) -> Result<(), IngestError> {
        let labels_column = match edit {
            WeakEdit::Remove => optional("event_labels"),
            WeakEdit::Set | WeakEdit::Add => required("event_labels"),
        };
        let (path, file) = self.file(path)?;
        let columns = [required("filename"), labels_column, optional("split")];
        for row in sheet::read(&path, columns, &mut self.rejects)? {
            let [video, labels, split] = row.fields;
            let origin = Origin {
                file: file.clone(),
                row: Some(row.line),
            };
            let Some(name) = &video else {
                let reason = "filename is empty, expected the name of a video".to_owned();
                self.rejects
                    .push(origin.reject(RejectKind::EmptyName, None, reason));
                continue;
            };
            let split = match split.as_deref().map(str::parse).transpose() {
                Ok(split) => split,
                Err(reason) => {
                    self.rejects
                        .push(origin.reject(RejectKind::FieldValue, Some(name), reason));
                    continue;
                }
            };
            let labels = labels.as_deref().unwrap_or_default();
            let labels = labels.split(',').map(str::trim);
            self.weak.push(WeakEditRow {
                edit,
                video: name.as_str().into(),
                classes: labels.filter(|label| !label.is_empty()).map(Arc::from).collect(),
                split,
                origin,
            });
        }
        Ok(())
    }

    /// Reads a list of classes, one per line.
    ///
    /// # Errors
    /// Returns the errors of [`read_classes`].
    pub fn read_classes(&mut self, path: &Path) -> Result<(), IngestError> {
        self.classes = Some(read_classes(path)?);
        Ok(())
    }

    /// Reads text embeddings of all classes for one modality.
    ///
    /// # Errors
    /// Returns the errors of [`TextRows::read`].
    pub fn read_text(&mut self, modality: Modality, path: &Path) -> Result<(), IngestError> {
        let place = Modality::ALL.iter().position(|of| *of == modality);
        self.texts[place.expect("every modality is listed")] = Some(TextRows::read(path)?);
        Ok(())
    }

    /// Reads the text embedding of one class from an npy file with shape `(D,)` or `(1, D)`.
    ///
    /// # Errors
    /// Returns the errors of [`npy::read_floats`].
    pub fn read_prompt(&mut self, modality: Modality, class: &str, path: &Path) -> Result<(), IngestError> {
        self.prompts.push(PromptEdit {
            modality,
            class: class.into(),
            embedding: npy::read_floats(path)?.data,
            origin: path.display().to_string().into(),
        });
        Ok(())
    }

    /// Reads the predictions of an epoch. `path` is one of these:
    ///
    /// - a folder with `audio/<id>.npy` and `visual/<id>.npy`, each of shape `(T, C)`, or with only one of these two
    ///   folders;
    /// - a Parquet file, or a folder of Parquet files, with columns `video`, `segment`, `probability` (C values) and
    ///   `modality`.
    ///
    /// A bad row or file goes to [`ChangeRows::rejects`].
    ///
    /// # Errors
    /// Returns [`IngestError::Predictions`] if the files do not name their modality, and the errors of
    /// [`FeatureInput::open`].
    pub fn read_predictions(&mut self, path: &Path, epoch: u64) -> Result<(), IngestError> {
        let mut rows = Vec::new();
        let columns = ColumnNames::default();
        for (modality, path) in prediction_inputs(&absolute(path)?)? {
            for shard in FeatureInput::open(&path, modality, &columns, &|_| true)?.shards {
                let files = shard.files().iter().map(|file| file.display().to_string());
                self.files.extend(files);
                shard.read(BATCH_ROWS, &mut |event| {
                    match event {
                        FeatureEvent::Reject(row) => self.rejects.push(row),
                        FeatureEvent::Batch(batch) => {
                            let mut first = 0;
                            for span in batch.videos {
                                let values = span.segments as usize * batch.width;
                                rows.push(PredictedRow {
                                    key: span.key,
                                    modality,
                                    classes: batch.width,
                                    probability: batch.data[first..first + values].to_vec(),
                                    origin: Origin {
                                        file: span.file,
                                        row: Some(span.row),
                                    },
                                });
                                first += values;
                            }
                        }
                    }
                    ControlFlow::Continue(())
                });
            }
        }
        self.predictions = Some(EpochPredictions { epoch, rows });
        Ok(())
    }
}

/// Approximate number of segments in a batch of predictions.
const BATCH_ROWS: usize = 4096;

/// The input of each modality: a subfolder with its name, or Parquet files with a column `modality`.
fn prediction_inputs(path: &Path) -> Result<Vec<(Modality, PathBuf)>, IngestError> {
    let of_each = || Modality::ALL.into_iter();
    let folders: Vec<(Modality, PathBuf)> = of_each()
        .map(|modality| (modality, path.join(modality.as_str())))
        .filter(|(_, folder)| folder.is_dir())
        .collect();
    if !folders.is_empty() {
        return Ok(folders);
    }
    for shard in FeatureInput::open(path, Modality::Audio, &ColumnNames::default(), &|_| true)?.shards {
        for file in shard.files() {
            if super::parquet_texts(file, "modality").is_none() {
                return Err(IngestError::Predictions { path: file.clone() });
            }
        }
    }
    Ok(of_each().map(|modality| (modality, path.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn reasons(rejects: &[RejectRow]) -> Vec<String> {
        rejects
            .iter()
            .map(|row| format!("{}: {} ({})", row.row.unwrap(), row.reason, row.kind))
            .collect()
    }

    #[test]
    fn weak_labels_in_llps_format_or_with_commas_and_bad_rows_beside_good_ones() {
        let llp = file("filename\tevent_labels\na_0_10\tCat,Dog\n\tDog\n");
        let mut rows = ChangeRows::default();
        rows.read_weak(WeakEdit::Set, llp.path()).unwrap();
        assert_eq!(rows.weak.len(), 1);
        let classes: Vec<&str> = rows.weak[0].classes.iter().map(|class| &**class).collect();
        assert_eq!((&*rows.weak[0].video, classes), ("a_0_10", vec!["Cat", "Dog"]));
        assert_eq!(rows.weak[0].origin.row, Some(2));
        assert_eq!(
            reasons(&rows.rejects),
            ["3: filename is empty, expected the name of a video (empty_name)"]
        );
        let csv = file("split,filename,event_labels\nval,b_0_10,\"Dog, Cat\"\nvalid,c_0_10,Dog\n");
        let mut rows = ChangeRows::default();
        rows.read_weak(WeakEdit::Add, csv.path()).unwrap();
        assert_eq!((rows.weak.len(), rows.weak[0].split), (1, Some(Split::Val)));
        assert_eq!(
            reasons(&rows.rejects),
            ["3: split is `valid`, expected `train`, `val` or `test` (field_value)"]
        );
        let gone = file("filename\na_0_10\n");
        let mut rows = ChangeRows::default();
        rows.read_weak(WeakEdit::Remove, gone.path()).unwrap();
        assert!(rows.weak[0].classes.is_empty() && !rows.is_empty());
    }
}
