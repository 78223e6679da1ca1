//! `vaplan parse`: applies a trained model to new media, without a store.
//!
//! ```text
//! model folder ── encoders checked by hash ─┐
//! media ── groups that are not done ── embed ┴─ features (T, D) ── network ── probabilities ── labels ─┬─ VideoEvents ── files
//!             ▲                                                                                        └─ Timeline
//!             └────────── ledger of the output folder ◀── a video is done when its files are there ◀────────────────────┘
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`encoders`] | opens the encoders that the model names, and refuses others |
//! | [`clips`] | clip features that the user gives, for networks that take them |
//! | [`apply`] | runs the network on the embeddings of one video |
//! | [`output`] | writes the files of a video, complete or not at all, and records which videos are done |
//! | [`error`] | the errors of these modules |

pub mod apply;
pub mod clips;
pub mod encoders;
pub mod error;
pub mod output;

use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectRow, Severity};

pub use self::apply::ParsedVideo;
use self::clips::ClipFeatures;
pub use self::error::ParseError;
use self::output::OutputFolder;
use crate::encode::embed::Embedder;
use crate::encode::media::{Media, find};
use crate::encode::{EncodeListener, EncodeProgress, EncodeRequest};
use crate::events::EventFormat;
use crate::ingest::seen::SeenInputs;
use crate::parser::{Gate, TrainedModel};

/// Number of videos that are encoded together. A run that was killed repeats at most the last batches of one group.
const GROUP: usize = 64;

/// The request of a run.
#[derive(Clone, Debug)]
pub struct ParseRequest {
    /// Media: files, folders of frames, and folders of media.
    pub media: Vec<PathBuf>,
    /// Folder of the trained model.
    pub model: PathBuf,
    /// Folder of the vision encoder. `None`: the folder that the model names.
    pub clip: Option<PathBuf>,
    /// Folder of the audio encoder. `None`: the folder that the model names.
    pub clap: Option<PathBuf>,
    /// Clip features of the media, by name: folders of npy files, or Parquet files. Empty for networks that take none.
    pub clips: Vec<PathBuf>,
    /// Number of segments of every video. `None`: the duration decides.
    pub segments: Option<usize>,
    /// Frames per second of folders of frames. `None`: as the model was trained.
    pub frame_rate: Option<f64>,
    /// The protocol that turns probabilities into labels. `None`: that of the model.
    pub protocol: Option<Gate>,
    /// Folder to write. `None`: nothing is written, and the listener receives each video.
    pub out: Option<PathBuf>,
    /// Formats of the files in `out`.
    pub formats: Vec<EventFormat>,
    /// Device of the network.
    pub device: tch::Device,
    /// How encoders run: threads, batches, device, ffmpeg. Its media, models and cut are not used.
    pub encoding: EncodeRequest,
}

/// The progress of a run.
#[derive(Debug)]
pub enum ParseProgress<'a> {
    /// Another process writes to the output folder; the text names that process.
    Waiting(&'a str),
    /// The media were found.
    Planned {
        /// Number of videos to parse.
        videos: usize,
        /// Number of videos that an earlier run parsed.
        done: usize,
    },
    /// A video was parsed, and its files are written.
    Parsed(&'a ParsedVideo),
    /// A video, or a file that is no video, was left out; or a video has a note.
    Row(&'a RejectRow),
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParseSummary {
    /// Number of videos that this run parsed.
    pub parsed: usize,
    /// Number of videos that an earlier run parsed.
    pub done: usize,
    /// Rejected rows and notes, in order.
    pub rejects: Vec<RejectRow>,
}

impl ParseSummary {
    /// Number of rejected rows, without notes.
    pub fn failed(&self) -> usize {
        self.rejects
            .iter()
            .filter(|row| row.severity == Severity::Reject)
            .count()
    }
}

/// Applies a trained model to media. A video that cannot be used becomes a rejected row, and the others are parsed. A run
/// that was killed and is started again parses what is not done.
///
/// # Errors
/// Returns [`ParseError`] if the model or an encoder cannot be used, if no media are found, or if the output folder cannot
/// be written.
pub fn run(
    request: &ParseRequest,
    encoding: &EncodeListener,
    on_progress: &mut dyn FnMut(ParseProgress<'_>),
) -> Result<ParseSummary, ParseError> {
    let model = TrainedModel::open(&request.model, request.device)?;
    let (media, mut rejects) = find::of_paths(&request.media)?;
    if media.is_empty() {
        let reason = rejects
            .first()
            .map(|row| format!("`{}` {}", row.file, row.reason));
        return Err(ParseError::NoMedia(
            reason.unwrap_or_else(|| "no media are named".to_owned()),
        ));
    }
    let mut plan = encoders::plan(request, &model)?;
    let mut seen = request
        .out
        .as_deref()
        .map_or_else(SeenInputs::default, output::memory);
    let clips = ClipFeatures::open(&request.clips, &media, model.parser.sizes().clips, &mut seen)?;
    let out = request.out.as_deref().map(|folder| {
        let clips = clips.as_ref().map(ClipFeatures::fingerprint);
        OutputFolder::open(folder, request, (&model, clips, seen), &mut |holder| {
            on_progress(ParseProgress::Waiting(holder))
        })
    });
    let mut out = out.transpose()?;
    let all = media.len();
    let media: Vec<Media> = match &mut out {
        Some(out) => media.into_iter().filter(|own| !out.is_done(own)).collect(),
        None => media,
    };
    let mut summary = ParseSummary {
        done: all - media.len(),
        ..ParseSummary::default()
    };
    on_progress(ParseProgress::Planned {
        videos: media.len(),
        done: summary.done,
    });
    rejects
        .iter()
        .for_each(|row| on_progress(ParseProgress::Row(row)));
    summary.rejects.append(&mut rejects);
    if media.is_empty() {
        out.iter().for_each(OutputFolder::remember);
        return Ok(summary);
    }
    let mut embedder = Embedder::open(plan.encode.clone())?;
    plan.check(request, &embedder)?;
    let scratch = match &out {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|source| ParseError::Io {
            action: "make a folder in",
            path: std::env::temp_dir(),
            source,
        })?),
    };
    let quiet: EncodeListener = {
        let listener = encoding.clone();
        Arc::new(move |progress| match progress {
            EncodeProgress::Writing => {}
            other => listener(other),
        })
    };
    for group in media.chunks(GROUP) {
        let cache = match (&out, &scratch) {
            (Some(out), _) => out.cache(),
            (None, Some(scratch)) => scratch.path().to_owned(),
            (None, None) => unreachable!("without an output folder there is a scratch folder"),
        };
        let mut embedded = embedder.embed(group, &cache, &quiet)?;
        let mut found: Vec<_> = (0..group.len())
            .map(|at| apply::embeddings_of(&mut embedded.embeddings, at))
            .collect();
        let mut group_clips = match &clips {
            Some(clips) => clips.read(group, &found, &mut embedded.rejects)?,
            None => Vec::new(),
        };
        for (at, media) in group.iter().enumerate() {
            let found = std::mem::take(&mut found[at]);
            let own_clips = group_clips.get_mut(at).and_then(Option::take);
            if clips.is_some() && own_clips.is_none() {
                // A rejected row says why the video has no clip features.
                continue;
            }
            let Some(parsed) = apply::parse(&model, &plan, request, media, (found, own_clips)) else {
                // The rows of the encoding give the reasons.
                continue;
            };
            if let Some(out) = &mut out
                && let Some(row) = out.write(media, &parsed)?
            {
                on_progress(ParseProgress::Row(&row));
                let failed = row.severity == Severity::Reject;
                summary.rejects.push(row);
                if failed {
                    continue;
                }
            }
            // The note of the video says what the row of the modality without a file says.
            embedded
                .rejects
                .retain(|row| !(parsed.note.is_some() && apply::has_no_file(media, row)));
            embedded.rejects.extend(parsed.note.clone());
            summary.parsed += 1;
            on_progress(ParseProgress::Parsed(&parsed));
        }
        embedded.rejects.sort();
        embedded
            .rejects
            .iter()
            .for_each(|row| on_progress(ParseProgress::Row(row)));
        summary.rejects.append(&mut embedded.rejects);
        if let Some(out) = &out {
            out.clear_cache()?;
            out.remember();
        }
    }
    Ok(summary)
}
