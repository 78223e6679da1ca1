//! The output folder: the files of each video, complete or not at all, and the ledger of videos that are done.
//!
//! ```text
//! OUT/
//!   <video>.json ..          one file per format
//!   .vaplan-parse/
//!     done.jsonl             one line per video that is done: its name and a hash of everything that its files depend on
//!     inputs.seen            the memory of the media: which content each file had
//!     cache/                 embeddings of the group in progress; removed when the group is done
//!     lock
//! ```
//!
//! The files of a video are written and renamed first, then its line is added to the ledger. A run that is killed in between
//! parses the video again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::{RejectKind, RejectRow};
use vaplan_schemas::store::WriteLock;

use super::ParseRequest;
use super::apply::ParsedVideo;
use super::error::ParseError;
use crate::encode::media::{Media, Pictures, frames};
use crate::events::EventFormat;
use crate::ingest::npy;
use crate::ingest::seen::SeenInputs;
use crate::parser::TrainedModel;
use crate::world::hash::{feed, hash};

/// The folder of what is not a file of a video.
const OWN: &str = ".vaplan-parse";

/// The memory of the media and clip features that were parsed into an output folder.
pub(crate) fn memory(folder: &Path) -> SeenInputs {
    SeenInputs::open(&folder.join(OWN))
}

/// The output folder of a run. No other process can write to it until the value is dropped.
#[derive(Debug)]
pub struct OutputFolder {
    folder: PathBuf,
    own: PathBuf,
    formats: Vec<EventFormat>,
    /// What the files of all videos depend on: program, model, protocol and options. A file of a format that was not
    /// asked for before is absent, and the video is then parsed again.
    settings: String,
    done: BTreeMap<String, String>,
    ledger: File,
    seen: SeenInputs,
    _lock: WriteLock,
}

#[derive(Serialize, Deserialize)]
struct DoneLine {
    video: String,
    key: String,
}

impl OutputFolder {
    /// Opens or makes the folder, and reads which videos are done.
    ///
    /// # Errors
    /// Returns [`ParseError`] if the folder cannot be locked or written.
    pub(crate) fn open(
        folder: &Path,
        request: &ParseRequest,
        (model, clips, seen): (&TrainedModel, Option<&str>, SeenInputs),
        on_waiting: &mut dyn FnMut(&str),
    ) -> Result<OutputFolder, ParseError> {
        let own = folder.join(OWN);
        fs::create_dir_all(&own).map_err(ParseError::io("make", &own))?;
        let lock = WriteLock::take(&own.join("lock"), on_waiting)?;
        let path = own.join("done.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ParseError::io("read", &path)(error)),
        };
        // The last line can be half written, if the run was killed. The video is then parsed again.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<DoneLine>(line).ok());
        let done = lines.map(|line| (line.video, line.key)).collect();
        let ledger = File::options().create(true).append(true).open(&path);
        let mut ledger = ledger.map_err(ParseError::io("write", &path))?;
        if !text.is_empty() && !text.ends_with('\n') {
            ledger.write_all(b"\n").map_err(ParseError::io("write", &path))?;
        }
        let options = (
            &request.segments,
            &request.frame_rate,
            clips,
            request.protocol.map(|gate| gate.as_str()),
        );
        Ok(OutputFolder {
            folder: folder.to_owned(),
            settings: format!("{} {} {options:?}", env!("CARGO_PKG_VERSION"), model.sha256),
            formats: request.formats.clone(),
            own,
            done,
            ledger,
            seen,
            _lock: lock,
        })
    }

    /// The folder for the embeddings of the group in progress.
    pub fn cache(&self) -> PathBuf {
        self.own.join("cache")
    }

    /// Removes the embeddings of a group that is done.
    ///
    /// # Errors
    /// Returns [`ParseError::Io`] if they cannot be removed.
    pub fn clear_cache(&self) -> Result<(), ParseError> {
        let cache = self.cache();
        match fs::remove_dir_all(&cache) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ParseError::io("remove", &cache)(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether an earlier run wrote the same files of the video, from the same media.
    pub fn is_done(&mut self, media: &Media) -> bool {
        let key = self.key(media);
        let there = |format: &EventFormat| self.path(media, *format).is_file();
        self.done.get(&*media.name) == Some(&key) && self.formats.iter().all(there)
    }

    /// Records the contents of the media, so that a later run recognises media that were touched or copied.
    pub fn remember(&self) {
        self.seen.remember();
    }

    fn path(&self, media: &Media, format: EventFormat) -> PathBuf {
        self.folder.join(format!("{}{}", media.name, format.extension()))
    }

    fn key(&mut self, media: &Media) -> String {
        let mut files: Vec<PathBuf> = match &media.pictures {
            Some(Pictures::Frames(folder)) => frames::list(folder).map(|list| list.paths).unwrap_or_default(),
            Some(Pictures::Video(path)) => vec![path.clone()],
            None => Vec::new(),
        };
        files.extend(media.sound.clone());
        let seen = &mut self.seen;
        seen.look_at(&files);
        hash(|sum| {
            feed(sum, [&*self.settings, &*media.name]);
            files.iter().for_each(|file| seen.feed(sum, file));
        })
    }

    /// Writes the files of a video, and records that the video is done. Returns a rejected row if the name of the video can
    /// be no file name, and a note if a format cannot hold the name of a class.
    ///
    /// # Errors
    /// Returns [`ParseError::Io`] if a file cannot be written.
    pub fn write(&mut self, media: &Media, parsed: &ParsedVideo) -> Result<Option<RejectRow>, ParseError> {
        let mut note = None;
        let shown = self.folder.display().to_string();
        for format in self.formats.clone() {
            let path = self.path(media, format);
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(problem) = npy::file_name_problem(&name) {
                let reason = format!("no file was written: {problem}");
                return Ok(Some(
                    RejectRow::reject(RejectKind::FileName, shown, reason).video(&*media.name),
                ));
            }
            let file = format.file(&parsed.events);
            if let Some(class) = file.left_out.first() {
                let reason = format!(
                    "`{name}` does not have class `{}`, whose name has a control character",
                    class.escape_debug()
                );
                note =
                    Some(RejectRow::note(RejectKind::FieldValue, shown.clone(), reason).video(&*media.name));
            }
            let write = || {
                let mut scratch = tempfile::Builder::new()
                    // The umask applies. A temporary file is otherwise for its owner only.
                    .permissions(fs::Permissions::from_mode(0o666))
                    .tempfile_in(&self.own)?;
                scratch.write_all(file.text.as_bytes())?;
                scratch.as_file().sync_all()?;
                scratch.persist(&path).map(drop).map_err(|error| error.error)
            };
            write().map_err(ParseError::io("write", &path))?;
        }
        let line = DoneLine {
            video: media.name.to_string(),
            key: self.key(media),
        };
        let mut line = serde_json::to_string(&line).expect("texts are JSON");
        line.push('\n');
        let ledger = self.own.join("done.jsonl");
        self.ledger
            .write_all(line.as_bytes())
            .map_err(ParseError::io("write", &ledger))?;
        self.done.insert(media.name.to_string(), String::new());
        Ok(note)
    }
}
