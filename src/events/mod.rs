//! Events of videos, with onset and offset in seconds, and the files that hold them.
//!
//! ```text
//! label matrices (T, C) of both modalities ── of_matrices ──▶ VideoEvents ── format ─┬─ json, csv
//!                                                                                    ├─ elan, textgrid
//!                                                                                    └─ audacity, webvtt
//! ```
//!
//! `parse` and `export` share these writers. Each writer is a pure function from the events of one video to the text of one
//! file.

pub mod audacity;
pub mod csv;
pub mod elan;
pub mod format;
pub mod json;
pub mod label_studio;
pub mod textgrid;
pub mod webvtt;
pub mod xml;

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_schemas::Modality;

pub use format::{EventFile, EventFormat};

/// One event: a class that occurs in one modality from `onset` to `offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedEvent {
    /// The modality in which the class occurs.
    pub modality: Modality,
    /// Position of the class in [`VideoEvents::classes`].
    pub class: usize,
    /// Begin of the event in seconds from the start of the video.
    pub onset: f64,
    /// End of the event in seconds from the start of the video; it is greater than `onset`.
    pub offset: f64,
    /// Mean probability of the event's segments, from 0 to 1, or mean of the scores that the labels were made from. `None` if the
    /// source has none.
    pub score: Option<f64>,
}

/// The events of one video.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoEvents {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Path or URL of the media, for the formats that name it.
    pub media: Option<String>,
    /// Length of the video in seconds: the number of segments times their length.
    pub duration: f64,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// Names of all classes, in order.
    pub classes: Arc<[Arc<str>]>,
    /// The modalities and classes that were labelled, sorted. Each one may have no event.
    pub tracks: Vec<(Modality, usize)>,
    /// The events, sorted by modality, class and onset.
    pub events: Vec<TimedEvent>,
    /// The time at which the labels were made, in milliseconds since 1970-01-01 UTC.
    pub made_at: i64,
}

/// The label matrices of one video, from which events are made.
#[derive(Clone, Copy, Debug)]
pub struct EventMatrices<'a> {
    /// C, the number of classes.
    pub classes: usize,
    /// Labels of audio and visual, `[T, C]` each, row-major; not 0 where the label is set. An empty matrix means that the
    /// modality was not labelled.
    pub labels: [&'a [u8]; 2],
    /// Scores of audio and visual, as `labels`; NaN where a segment has none. `None` if the source has none.
    pub scores: Option<[&'a [f32]; 2]>,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
}

/// The events of label matrices, sorted by modality, class and onset. An event is a maximal run of segments with the same
/// label. Its score is the mean of the scores of its segments.
///
/// ```
/// use vaplan::events::{EventMatrices, of_matrices};
/// let audio = [0, 1, 1, 1, 0, 0];           // T = 3, C = 2
/// let matrices = EventMatrices { classes: 2, labels: [&audio, &[]], scores: None, segment_seconds: 0.5 };
/// let events = of_matrices(&matrices);
/// let spans: Vec<_> = events.iter().map(|event| (event.class, event.onset, event.offset)).collect();
/// assert_eq!(spans, [(0, 0.5, 1.0), (1, 0.0, 1.0)]);
/// ```
pub fn of_matrices(matrices: &EventMatrices<'_>) -> Vec<TimedEvent> {
    let classes = matrices.classes;
    let mut events = Vec::new();
    for modality in Modality::ALL {
        let labels = matrices.labels[modality.index()];
        let segments = labels.len().checked_div(classes).unwrap_or(0);
        let set = |class: usize, segment: usize| segment < segments && labels[segment * classes + class] != 0;
        for class in 0..classes {
            let mut onset = 0;
            while onset < segments {
                if !set(class, onset) {
                    onset += 1;
                    continue;
                }
                let mut offset = onset;
                while set(class, offset) {
                    offset += 1;
                }
                let score = matrices.scores.and_then(|scores| {
                    let own =
                        (onset..offset).map(|at| f64::from(scores[modality.index()][at * classes + class]));
                    Some(own.sum::<f64>() / (offset - onset) as f64).filter(|score| score.is_finite())
                });
                events.push(TimedEvent {
                    modality,
                    class,
                    onset: onset as f64 * matrices.segment_seconds,
                    offset: offset as f64 * matrices.segment_seconds,
                    score,
                });
                onset = offset;
            }
        }
    }
    events
}

impl VideoEvents {
    /// The name of the class of an event or track.
    pub fn class(&self, class: usize) -> &str {
        &self.classes[class]
    }

    /// The events of one modality and class, in order of onset.
    pub fn of_track(&self, modality: Modality, class: usize) -> impl Iterator<Item = &TimedEvent> {
        let own = move |event: &&TimedEvent| event.modality == modality && event.class == class;
        self.events.iter().filter(own)
    }

    /// The events in order of onset, then modality and class.
    pub fn by_time(&self) -> Vec<&TimedEvent> {
        let mut events: Vec<&TimedEvent> = self.events.iter().collect();
        events.sort_by(|a, b| {
            let times = a.onset.total_cmp(&b.onset);
            times.then_with(|| (a.modality, a.class).cmp(&(b.modality, b.class)))
        });
        events
    }

    /// Leaves out the classes with a control character in their name, because the formats of single lines and of XML
    /// attributes cannot hold one. Returns these names.
    pub fn without_control_characters(&self) -> (VideoEvents, Vec<Arc<str>>) {
        let bad = |class: usize| self.classes[class].chars().any(char::is_control);
        let left: BTreeSet<usize> = self
            .tracks
            .iter()
            .map(|(_, class)| *class)
            .filter(|class| bad(*class))
            .collect();
        let mut kept = self.clone();
        if !left.is_empty() {
            kept.tracks.retain(|(_, class)| !left.contains(class));
            kept.events.retain(|event| !left.contains(&event.class));
        }
        (
            kept,
            left.into_iter()
                .map(|class| self.classes[class].clone())
                .collect(),
        )
    }
}

/// Seconds as whole milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round().max(0.0) as u64
}

#[cfg(test)]
pub(crate) mod tests;
