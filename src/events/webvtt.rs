//! WebVTT: one cue per event.

use std::fmt::Write as _;

use super::{VideoEvents, milliseconds};

/// A file with one cue per event, in order of time. The text of a cue is `modality: class`.
///
/// Source: <https://www.w3.org/TR/webvtt1/>; `&`, `<` and `>` are escaped as its section 4.2.2 says.
pub fn text(video: &VideoEvents) -> String {
    let mut text = "WEBVTT\n".to_owned();
    for event in video.by_time() {
        let (onset, offset) = (clock(event.onset), clock(event.offset));
        let class = escaped(video.class(event.class));
        let modality = event.modality;
        write!(text, "\n{onset} --> {offset}\n{modality}: {class}\n").expect("a String takes everything");
    }
    text
}

fn clock(seconds: f64) -> String {
    let all = milliseconds(seconds);
    let (hours, minutes) = (all / 3_600_000, all / 60_000 % 60);
    let (seconds, rest) = (all / 1000 % 60, all % 1000);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{rest:03}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
