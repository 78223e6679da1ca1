//! Formats with one file per video, and the CSV file of all videos.

use std::path::Path;

use super::{Exported, LeftOutVideos, write_text};
use crate::events::{EventFormat, csv};
use crate::ingest::{IngestError, npy};

/// Writes one file per video, named by the full name of the video.
pub(super) fn write(
    exported: &Exported,
    folder: &Path,
    format: EventFormat,
) -> Result<LeftOutVideos, IngestError> {
    let mut left_out = LeftOutVideos::new();
    for video in exported.events() {
        let name = format!("{}{}", video.video, format.extension());
        match npy::file_name_problem(&name) {
            Some(problem) => left_out.push((video.video.clone(), problem)),
            None => write_text(&folder.join(name), &format.file(&video).text)?,
        }
    }
    Ok(left_out)
}

/// Writes `events.csv`, with the events of all videos.
pub(super) fn write_csv(exported: &Exported, folder: &Path) -> Result<LeftOutVideos, IngestError> {
    let videos: Vec<_> = exported.events().collect();
    write_text(&folder.join("events.csv"), &csv::text(&videos))?;
    Ok(LeftOutVideos::new())
}
