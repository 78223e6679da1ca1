//! JSON: one object per video.

use serde::Serialize;

use super::VideoEvents;

#[derive(Serialize)]
struct Document<'a> {
    video: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<&'a str>,
    /// Seconds.
    duration: f64,
    segment_seconds: f64,
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    modality: &'static str,
    class: &'a str,
    /// Seconds.
    onset: f64,
    offset: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
}

/// The object in one line, with a line break at its end. Times are seconds.
pub fn text(video: &VideoEvents) -> String {
    let events = video.events.iter().map(|event| Event {
        modality: event.modality.as_str(),
        class: video.class(event.class),
        onset: event.onset,
        offset: event.offset,
        score: event.score,
    });
    let document = Document {
        video: &video.video,
        media: video.media.as_deref(),
        duration: video.duration,
        segment_seconds: video.segment_seconds,
        events: events.collect(),
    };
    let mut text = serde_json::to_string(&document).expect("names and finite numbers are JSON");
    text.push('\n');
    text
}
