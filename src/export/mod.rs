//! `vaplan export`: writes the labels of a store version in the formats of other programs.
//!
//! ```text
//! videos, labels of both modalities ── ExportedVideo, in order of name ─┬─ valor        <id>.npy (T, C) per modality
//!                                                                       ├─ llp_csv      AVVP_*.csv
//!                                                                       ├─ activitynet  one JSON file
//!                                                                       └─ huggingface  Parquet files and a card
//! ```

mod activitynet;
mod huggingface;
mod llp_csv;
mod valor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::rows::Split;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Table, Videos};
use vaplan_schemas::{Modality, StoreVersion};

use crate::choice::Choice;
use crate::error::LabelError;
use crate::eval::BitMatrix;
use crate::ingest::IngestError;
use crate::matrices::{self, MatrixError};

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Folders `audio` and `visual` with `<id>.npy` of shape `(T, C)`, int64, as VALOR, LEAP and others train on.
    Valor,
    /// Annotation files of LLP: `AVVP_*.csv` with weak labels, and dense events of both modalities.
    LlpCsv,
    /// A JSON file in ActivityNet's form, with the modality of each event.
    ActivityNet,
    /// Parquet files and a dataset card, which `datasets.load_dataset` opens.
    HuggingFace,
}

impl Choice for ExportFormat {
    const WHAT: &'static str = "format";
    const ALL: &'static [(ExportFormat, &'static str, &'static str)] = &[
        (
            ExportFormat::Valor,
            "valor",
            "Folders audio and visual with <id>.npy of shape (T, C), int64",
        ),
        (
            ExportFormat::LlpCsv,
            "llp-csv",
            "Annotation files of LLP: weak labels, and dense events of both modalities",
        ),
        (
            ExportFormat::ActivityNet,
            "activitynet",
            "One JSON file in ActivityNet's form, with the modality of each event",
        ),
        (
            ExportFormat::HuggingFace,
            "huggingface",
            "Parquet files and a dataset card for datasets.load_dataset",
        ),
    ];
}

/// The request of an export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Store to read.
    pub store: PathBuf,
    /// Store version to read. `None` is the latest.
    pub version: Option<StoreVersion>,
    /// Splits to write.
    pub splits: Vec<Split>,
    /// Format to write.
    pub format: ExportFormat,
    /// Folder to write. It must not exist, or be empty.
    pub out: PathBuf,
}

/// The result of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSummary {
    /// The store version that was written.
    pub version: u64,
    /// Number of videos that were written.
    pub videos: usize,
    /// Videos that were left out because their name cannot be the name of a file, with the reason.
    pub left_out: LeftOutVideos,
}

/// The reason why an export failed. The folder was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The labels cannot be read.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// A file cannot be written.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The folder holds files.
    #[error("`{path}` is not empty, expected a folder that is new or empty")]
    NotEmpty {
        /// Path of the folder.
        path: PathBuf,
    },
    /// The splits have no video.
    #[error("version {version} has no video of split {splits}, expected at least one")]
    NoVideos {
        /// The store version.
        version: u64,
        /// The splits, with commas between them.
        splits: String,
    },
    /// The Parquet file cannot be written.
    #[error("cannot write Parquet to `{path}`")]
    Parquet {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: parquet::errors::ParquetError,
    },
}

/// A video and its labels.
struct ExportedVideo {
    name: Arc<str>,
    split: Split,
    seconds: f64,
    /// T; that of the longest video if the features of the video are missing.
    segments: usize,
    /// Positions of the classes of the weak label.
    weak: Vec<usize>,
    /// Labels `[T, C]` of audio and visual.
    labels: [Vec<u8>; 2],
}

/// All videos of an export.
struct Exported {
    version: u64,
    classes: Vec<Arc<str>>,
    videos: Vec<ExportedVideo>,
}

impl Exported {
    fn read(snapshot: &Snapshot, splits: &[Split]) -> Result<Exported, MatrixError> {
        let [audio, visual] = matrices::labels_of_both(snapshot, None)?;
        let ids = matrices::positions(&audio.classes);
        let mut rows = snapshot.read::<Videos>()?;
        rows.sort_by(|a, b| a.video.cmp(&b.video));
        let classes = audio.classes.len();
        let wanted = rows
            .into_iter()
            .enumerate()
            .filter(|(_, row)| splits.contains(&row.split));
        let videos = wanted.map(|(place, row)| {
            let segments = match row.segments as usize {
                0 => audio.segments,
                segments => segments,
            };
            let first = place * audio.segments * classes;
            let cells = first..first + segments * classes;
            let weak = row.weak_labels.iter();
            let weak = weak.map(|class| matrices::position(&ids, class, Videos::NAME, &row.video));
            let mut weak = weak.collect::<Result<Vec<usize>, _>>()?;
            weak.sort_unstable();
            Ok::<_, MatrixError>(ExportedVideo {
                name: row.video,
                split: row.split,
                seconds: row.segment_seconds,
                segments,
                weak,
                labels: [
                    audio.values[cells.clone()].to_vec(),
                    visual.values[cells].to_vec(),
                ],
            })
        });
        Ok(Exported {
            version: snapshot.version().version,
            videos: videos.collect::<Result<_, _>>()?,
            classes: audio.classes,
        })
    }
}

/// An event of a video.
struct ExportedEvent<'a> {
    class: &'a str,
    onset: usize,
    offset: usize,
}

impl ExportedVideo {
    /// The events of one modality, by class and onset.
    fn events<'a>(&self, modality: Modality, classes: &'a [Arc<str>]) -> Vec<ExportedEvent<'a>> {
        let cells: Vec<f64> = self.labels[modality.index()]
            .iter()
            .map(|cell| f64::from(*cell))
            .collect();
        let bits = BitMatrix::of_cells(classes.len(), &cells);
        let mut events = Vec::new();
        for (class, name) in classes.iter().enumerate() {
            events.extend(bits.runs(class).map(|(onset, offset)| ExportedEvent {
                class: name,
                onset,
                offset,
            }));
        }
        events
    }
}

/// Writes the labels of a store version. The folder appears complete, or not at all.
///
/// # Errors
/// Returns [`ExportError`] if the store cannot be read, the folder is not empty, or a file cannot be written.
pub fn run(request: &ExportRequest) -> Result<ExportSummary, ExportError> {
    let out = &request.out;
    let is_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if out.exists() && !is_empty(out) {
        return Err(ExportError::NotEmpty { path: out.clone() });
    }
    let of_store = |error| MatrixError::from(LabelError::from(error));
    let store = Store::open(&request.store).map_err(of_store)?;
    let snapshot = store.at_version(request.version).map_err(of_store)?;
    let exported = Exported::read(&snapshot, &request.splits)?;
    if exported.videos.is_empty() {
        let names: Vec<&str> = request.splits.iter().map(|split| split.as_str()).collect();
        return Err(ExportError::NoVideos {
            version: exported.version,
            splits: names.join(", "),
        });
    }
    let out = std::path::absolute(out).map_err(IngestError::io("find", out))?;
    let parent = out.parent().unwrap_or(&out);
    std::fs::create_dir_all(parent).map_err(IngestError::io("make", parent))?;
    // Written beside its final place, so that the rename stays on one disk.
    let scratch = tempfile::Builder::new()
        .prefix(".vaplan-export-")
        .tempdir_in(parent);
    let scratch = scratch.map_err(IngestError::io("make a folder in", parent))?;
    let folder = scratch.path().join("export");
    std::fs::create_dir(&folder).map_err(IngestError::io("make", &folder))?;
    let left_out = match request.format {
        ExportFormat::Valor => valor::write(&exported, &folder)?,
        ExportFormat::LlpCsv => llp_csv::write(&exported, &folder)?,
        ExportFormat::ActivityNet => activitynet::write(&exported, &folder)?,
        ExportFormat::HuggingFace => huggingface::write(&exported, &folder)?,
    };
    if out.exists() {
        std::fs::remove_dir(&out).map_err(IngestError::io("replace", &out))?;
    }
    std::fs::rename(&folder, &out).map_err(IngestError::io("write", &out))?;
    Ok(ExportSummary {
        version: exported.version,
        videos: exported.videos.len() - left_out.len(),
        left_out,
    })
}

/// Videos that an export left out, with the reason.
pub type LeftOutVideos = Vec<(Arc<str>, String)>;

/// Writes the names of the classes, one per line, in the order of the columns.
fn write_classes(exported: &Exported, folder: &Path) -> Result<(), IngestError> {
    let lines: String = exported
        .classes
        .iter()
        .map(|class| format!("{class}\n"))
        .collect();
    write_text(&folder.join("classes.txt"), &lines)
}

fn write_text(path: &Path, text: &str) -> Result<(), IngestError> {
    std::fs::write(path, text).map_err(IngestError::io("write", path))
}

#[cfg(test)]
mod tests;
