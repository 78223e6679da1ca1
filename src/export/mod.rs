//! `vaplan export`: writes the labels of a store version in the formats of other programs.
//!
//! ```text
//! videos, labels of both modalities ── ExportedVideo, in order of name ─┬─ valor        <id>.npy (T, C) per modality
//!                                                                       ├─ llp_csv      AVVP_*.csv
//!                                                                       ├─ activitynet  one JSON file
//!                                                                       ├─ huggingface  Parquet files and a card
//!                                                                       └─ VideoEvents ─┬─ label_studio  tasks and a config
//!                                                                                       ├─ fiftyone      one JSON file
//!                                                                                       └─ per_video     one file a video
//! ```

mod activitynet;
mod fiftyone;
mod huggingface;
mod label_studio;
mod llp_csv;
mod media;
mod per_video;
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
use crate::events::{EventFormat, EventMatrices, VideoEvents, of_matrices};
use crate::ingest::IngestError;
use crate::matrices::{self, MatrixError};

use self::media::MediaTemplate;

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
    /// Tasks of Label Studio with the labels as predictions, and the labelling configuration.
    LabelStudio,
    /// Samples of FiftyOne with temporal detections, and the script that loads them.
    FiftyOne,
    /// One ELAN file per video.
    Elan,
    /// One Praat TextGrid per video.
    TextGrid,
    /// One label track of Audacity per video.
    Audacity,
    /// One WebVTT file per video.
    WebVtt,
    /// One CSV file with the events of all videos.
    Csv,
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
        (
            ExportFormat::LabelStudio,
            "label-studio",
            "tasks.json with the labels as predictions, and config.xml; `relabel --user` reads the annotations back",
        ),
        (
            ExportFormat::FiftyOne,
            "fiftyone",
            "samples.json with temporal detections, and load.py, which makes a FiftyOne data set of them",
        ),
        (
            ExportFormat::Elan,
            "elan",
            "<video>.eaf with one tier per modality and class; `relabel --user` reads edited files back",
        ),
        (
            ExportFormat::TextGrid,
            "textgrid",
            "<video>.TextGrid for Praat, with one interval tier per modality and class",
        ),
        (
            ExportFormat::Audacity,
            "audacity",
            "<video>.txt, a label track of Audacity",
        ),
        (
            ExportFormat::WebVtt,
            "webvtt",
            "<video>.vtt with one subtitle per event",
        ),
        (
            ExportFormat::Csv,
            "csv",
            "events.csv with one row per event, in the columns that `relabel --user` reads",
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
    /// Path or URL of the media of a video, for the formats that name it: `{video}` stands for the full name and `{id}` for
    /// its first 11 characters. In a URL, the name is percent-encoded. Default: `{video}.mp4`.
    pub media: String,
    /// Frames per second of the media, for the formats that count frames. Default: 24.
    pub frame_rate: f64,
}

impl ExportRequest {
    /// A request with the default of every option: all splits of the latest version.
    pub fn new(store: PathBuf, format: ExportFormat, out: PathBuf) -> ExportRequest {
        ExportRequest {
            store,
            version: None,
            splits: Split::ALL.to_vec(),
            format,
            out,
            media: MEDIA.to_owned(),
            frame_rate: FRAME_RATE,
        }
    }
}

/// Default of [`ExportRequest::media`].
pub const MEDIA: &str = "{video}.mp4";
/// Default of [`ExportRequest::frame_rate`]; also that of Label Studio's tag `Video`.
pub const FRAME_RATE: f64 = 24.0;

/// The result of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSummary {
    /// The store version that was written.
    pub version: u64,
    /// Number of videos that were written.
    pub videos: usize,
    /// Videos that were left out because their name cannot be the name of a file, with the reason.
    pub left_out: LeftOutVideos,
    /// Classes that were left out because the format cannot hold their name.
    pub left_out_classes: Vec<Arc<str>>,
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
    /// The path is of a file or device.
    #[error("`{path}` is no folder, expected a folder that is new or empty")]
    NoFolder {
        /// The path.
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
    /// All videos would have the same media.
    #[error(
        "--media is `{found}`{unknown}, so that {videos} videos have the same media: expected `{{video}}` or `{{id}}` in it"
    )]
    Media {
        /// The template found.
        found: String,
        /// The number of videos.
        videos: usize,
        /// Says that the template has an unknown place, or is empty.
        unknown: String,
    },
    /// The number of frames per second cannot be used.
    #[error("frame rate is {found}, expected 0.001 to 1000000 frames per second")]
    FrameRate {
        /// The number found.
        found: f64,
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
    /// Scores of audio and visual, as the labels; empty for the formats without scores.
    scores: [Vec<f32>; 2],
    /// Whether the store has features, and therefore labels, of audio and visual.
    labelled: [bool; 2],
}

/// All videos of an export.
struct Exported {
    version: u64,
    /// When the version was committed, in milliseconds since 1970-01-01 UTC.
    committed_at: i64,
    classes: Vec<Arc<str>>,
    media: MediaTemplate,
    frame_rate: f64,
    videos: Vec<ExportedVideo>,
}

impl Exported {
    fn read(snapshot: &Snapshot, request: &ExportRequest) -> Result<Exported, MatrixError> {
        let [audio, visual] = matrices::labels_of_both(snapshot, None)?;
        let scored = matches!(request.format, ExportFormat::Csv | ExportFormat::LabelStudio);
        let scores = match scored {
            true => Modality::ALL
                .into_iter()
                .map(|modality| Ok(matrices::scores(snapshot, None, modality)?.values))
                .collect::<Result<Vec<_>, MatrixError>>()?,
            false => Vec::new(),
        };
        let ids = matrices::positions(&audio.classes);
        let mut rows = snapshot.read::<Videos>()?;
        rows.sort_by(|a, b| a.video.cmp(&b.video));
        let classes = audio.classes.len();
        let wanted = rows
            .into_iter()
            .enumerate()
            .filter(|(_, row)| request.splits.contains(&row.split));
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
            let scores_of = |modality: Modality| {
                let all = scores.get(modality.index());
                all.map_or_else(Vec::new, |all| {
                    all[cells.clone()].iter().map(|score| *score as f32).collect()
                })
            };
            Ok::<_, MatrixError>(ExportedVideo {
                scores: Modality::ALL.map(scores_of),
                labelled: [row.audio_source.is_some(), row.visual_source.is_some()],
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
            committed_at: snapshot.version().committed_at,
            videos: videos.collect::<Result<_, _>>()?,
            classes: audio.classes,
            media: MediaTemplate::new(&request.media, request.format),
            frame_rate: request.frame_rate,
        })
    }

    /// The events of all videos, in order of name. The tracks of a video are those of its weak label in the modalities that
    /// are labelled.
    fn events(&self) -> impl Iterator<Item = VideoEvents> {
        let classes: Arc<[Arc<str>]> = self.classes.clone().into();
        self.videos.iter().map(move |video| {
            let of = |modality: Modality| {
                let weak = video
                    .weak
                    .iter()
                    .filter(move |_| video.labelled[modality.index()]);
                weak.map(move |class| (modality, *class))
            };
            VideoEvents {
                video: video.name.clone(),
                media: Some(self.media.of(&video.name)),
                duration: video.segments as f64 * video.seconds,
                segment_seconds: video.seconds,
                classes: classes.clone(),
                tracks: Modality::ALL.into_iter().flat_map(of).collect(),
                events: of_matrices(&EventMatrices {
                    classes: self.classes.len(),
                    labels: [&video.labels[0], &video.labels[1]],
                    scores: (!video.scores[0].is_empty()).then_some([&video.scores[0], &video.scores[1]]),
                    segment_seconds: video.seconds,
                }),
                made_at: self.committed_at,
            }
        })
    }

    /// The classes whose name the formats of single lines and of XML cannot hold.
    fn with_control_characters(&self) -> Vec<Arc<str>> {
        let bad = |class: &&Arc<str>| class.chars().any(char::is_control);
        self.classes.iter().filter(bad).cloned().collect()
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
        let bits = BitMatrix::of_cells(classes.len(), &self.labels[modality.index()], |cell| cell != 0);
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
    if out.exists() {
        if !out.is_dir() {
            return Err(ExportError::NoFolder { path: out.clone() });
        }
        let mut entries = std::fs::read_dir(out).map_err(IngestError::io("list", out))?;
        if entries.next().is_some() {
            return Err(ExportError::NotEmpty { path: out.clone() });
        }
    }
    let of_store = |error| MatrixError::from(LabelError::from(error));
    let store = Store::open(&request.store).map_err(of_store)?;
    let snapshot = store.at_version(request.version).map_err(of_store)?;
    if !(request.frame_rate.is_finite() && (1e-3..=1e6).contains(&request.frame_rate)) {
        let found = request.frame_rate;
        return Err(ExportError::FrameRate { found });
    }
    let exported = Exported::read(&snapshot, request)?;
    if exported.videos.is_empty() {
        let names: Vec<&str> = request.splits.iter().map(|split| split.as_str()).collect();
        return Err(ExportError::NoVideos {
            version: exported.version,
            splits: names.join(", "),
        });
    }
    exported.media.check(&exported)?;
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
        ExportFormat::LabelStudio => label_studio::write(&exported, &folder)?,
        ExportFormat::FiftyOne => fiftyone::write(&exported, &folder)?,
        ExportFormat::Elan => per_video::write(&exported, &folder, EventFormat::Elan)?,
        ExportFormat::TextGrid => per_video::write(&exported, &folder, EventFormat::TextGrid)?,
        ExportFormat::Audacity => per_video::write(&exported, &folder, EventFormat::Audacity)?,
        ExportFormat::WebVtt => per_video::write(&exported, &folder, EventFormat::WebVtt)?,
        ExportFormat::Csv => per_video::write_csv(&exported, &folder)?,
    };
    let lines = [
        ExportFormat::LabelStudio,
        ExportFormat::Elan,
        ExportFormat::TextGrid,
        ExportFormat::Audacity,
        ExportFormat::WebVtt,
    ];
    let left_out_classes = match lines.contains(&request.format) {
        true => exported.with_control_characters(),
        false => Vec::new(),
    };
    if out.exists() {
        std::fs::remove_dir(&out).map_err(IngestError::io("replace", &out))?;
    }
    std::fs::rename(&folder, &out).map_err(IngestError::io("write", &out))?;
    Ok(ExportSummary {
        version: exported.version,
        videos: exported.videos.len() - left_out.len(),
        left_out,
        left_out_classes,
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
