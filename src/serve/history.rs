//! The versions of a store, and those that changed the labels of a video.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, VersionRow};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::LabelChanges;

use crate::error::LabelError;

/// Characters of a command that are shown; a command can name thousands of files.
const COMMAND: usize = 300;

/// A store version, as the page shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownVersion {
    /// Number of the version.
    pub version: u64,
    /// Milliseconds since 1970, UTC.
    pub committed_at: i64,
    /// Epoch, if the version carries one.
    pub epoch: Option<u64>,
    /// Author.
    pub author: Option<Arc<str>>,
    /// Note.
    pub note: Option<Arc<str>>,
    /// The beginning of the command line.
    pub command: String,
    /// Number of labels that the version changed.
    pub changed: Option<u64>,
}

impl From<&VersionRow> for ShownVersion {
    fn from(row: &VersionRow) -> ShownVersion {
        ShownVersion {
            version: row.version,
            committed_at: row.committed_at,
            epoch: row.epoch,
            author: row.author.clone(),
            note: row.note.clone(),
            command: row.command.chars().take(COMMAND).collect(),
            changed: row.changed_labels,
        }
    }
}

/// The history of a video.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VideoHistory {
    /// The store version that the history ends with.
    pub version: u64,
    /// The versions that changed labels of the video, the latest first.
    pub versions: Vec<VideoVersion>,
}

/// The changes of a video by one version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VideoVersion {
    /// The version.
    #[serde(flatten)]
    pub version: ShownVersion,
    /// The changes of each track.
    pub changes: Vec<ShownChange>,
}

/// Labels of a track that a version changed alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownChange {
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The labels after the change.
    pub to: bool,
    /// The rule that set them.
    pub rule: LabelRule,
    /// Segments.
    pub segments: Vec<u32>,
}

/// Reads the history of a video up to a version.
///
/// # Errors
/// Returns [`LabelError`] if a table cannot be read.
pub fn read(snapshot: &Snapshot, video: &str) -> Result<VideoHistory, LabelError> {
    let filter = Filter::videos([Arc::from(video)]);
    let mut by_version: BTreeMap<u64, Vec<ShownChange>> = BTreeMap::new();
    for found in snapshot.scan::<LabelChanges>(&filter)? {
        let row = found.row;
        by_version.entry(row.version).or_default().push(ShownChange {
            modality: row.modality,
            class: row.class,
            to: row.to,
            rule: row.rule,
            segments: row.segments,
        });
    }
    let rows = snapshot.store().versions()?;
    let versions = rows.iter().rev().filter_map(|row| {
        let changes = by_version.remove(&row.version)?;
        let version = ShownVersion::from(row);
        Some(VideoVersion { version, changes })
    });
    Ok(VideoHistory {
        version: snapshot.version().version,
        versions: versions.collect(),
    })
}
