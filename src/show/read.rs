//! Reads the timeline of one video from a store version.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectRow, Severity, Split, TruthRow, VideoRow};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables;
use vaplan_schemas::{Modality, StoreError};

use super::find::{FindError, find};
use super::timeline::{Timeline, TimelineRows};
use crate::ingest::annotations::Annotations;

/// The reason why a video cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShowError {
    /// The name fits no video, or several videos.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The timeline of the video that `query` means ([`find`]) in a store version.
///
/// The truth comes from `annotations` if they are given, otherwise from table `truth`. A video without true events
/// counts as annotated if another video of its split has a true event: then nothing happens in the video.
///
/// # Errors
/// - Returns [`ShowError::Find`] if the name fits no video, or several videos.
/// - Returns [`ShowError::Store`] if a table cannot be read.
pub fn read(
    snapshot: &Snapshot,
    query: &str,
    annotations: Option<&Annotations>,
) -> Result<Timeline, ShowError> {
    let videos = snapshot.read::<tables::Videos>()?;
    let names: Vec<Arc<str>> = videos.iter().map(|video| video.video.clone()).collect();
    let video = &videos[find(&names, query)?];
    let truth = match annotations {
        Some(annotations) => truth_of_annotations(annotations, video),
        None => truth_of_rows(snapshot.read::<tables::Truth>()?, &videos, video),
    };
    Ok(Timeline::of_rows(&TimelineRows {
        video,
        classes: &snapshot.read::<tables::Classes>()?,
        labels: &snapshot.read_video::<tables::Labels>(&video.video)?,
        scores: &snapshot.read_video::<tables::Scores>(&video.video)?,
        truth: truth.as_deref(),
    }))
}

/// The modalities in which a video has a weak label and no labels, with the reasons of its rejected rows.
///
/// # Errors
/// Returns [`ShowError::Store`] if a table cannot be read.
pub fn missing(snapshot: &Snapshot, timeline: &Timeline) -> Result<Vec<(Modality, Vec<String>)>, ShowError> {
    let labels = snapshot.read_video::<tables::Labels>(&timeline.video)?;
    let mut missing = Vec::new();
    for modality in Modality::ALL {
        if timeline.weak_labels.is_empty() || labels.iter().any(|track| track.modality == modality) {
            continue;
        }
        let own = |row: &RejectRow| {
            let video = row.video.as_deref() == Some(&*timeline.video);
            video && row.severity == Severity::Reject && row.modality.is_none_or(|own| own == modality)
        };
        let rows = snapshot.read::<tables::Rejects>()?.into_iter().filter(own);
        missing.push((modality, rows.map(|row| row.reason).collect()));
    }
    Ok(missing)
}

/// True events of `video`. `None` if no video of its split has an event.
fn truth_of_rows(rows: Vec<TruthRow>, videos: &[VideoRow], video: &VideoRow) -> Option<Vec<TruthRow>> {
    let split: BTreeSet<&str> = videos
        .iter()
        .filter(|other| other.split == video.split)
        .map(|other| &*other.video)
        .collect();
    rows.iter()
        .any(|row| split.contains(&*row.video))
        .then(|| rows.into_iter().filter(|row| row.video == video.video).collect())
}

/// True events of `video`. `None` if `annotations` lack the video, or if no video of its split has an event there.
fn truth_of_annotations(annotations: &Annotations, video: &VideoRow) -> Option<Vec<TruthRow>> {
    let position = annotations.videos.position(&video.video)?;
    let split_of = |video: usize| -> Split { annotations.videos.get(video).split };
    annotations
        .events
        .iter()
        .any(|event| split_of(event.video) == split_of(position))
        .then(|| {
            let events = annotations.events.iter().filter(|event| event.video == position);
            events
                .map(|event| TruthRow {
                    video: video.video.clone(),
                    modality: event.modality,
                    class: annotations.classes[event.class.index()].clone(),
                    onset: event.onset,
                    offset: event.offset,
                })
                .collect()
        })
}
