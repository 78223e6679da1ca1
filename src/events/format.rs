//! The formats of a file with the events of one video.

use std::sync::Arc;

use super::{VideoEvents, audacity, csv, elan, json, textgrid, webvtt};
use crate::choice::Choice;

/// A format of a file with the events of one video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFormat {
    /// JSON: an object with the video, its tracks and its events.
    Json,
    /// CSV: one row per event, which `relabel --user` reads.
    Csv,
    /// WebVTT: one cue per event, which players show as subtitles.
    WebVtt,
    /// ELAN: one tier per modality and class.
    Elan,
    /// Praat TextGrid: one interval tier per modality and class.
    TextGrid,
    /// Audacity label track: one label per event.
    Audacity,
}

impl Choice for EventFormat {
    const WHAT: &'static str = "format";
    const ALL: &'static [(EventFormat, &'static str, &'static str)] = &[
        (
            EventFormat::Json,
            "json",
            "One JSON object per video, with its events and their mean probability",
        ),
        (
            EventFormat::Csv,
            "csv",
            "One row per event; `relabel --user` reads the file",
        ),
        (
            EventFormat::WebVtt,
            "webvtt",
            "One subtitle per event, for players",
        ),
        (
            EventFormat::Elan,
            "elan",
            "ELAN (.eaf): one tier per modality and class",
        ),
        (
            EventFormat::TextGrid,
            "textgrid",
            "Praat TextGrid: one interval tier per modality and class",
        ),
        (
            EventFormat::Audacity,
            "audacity",
            "Label track of Audacity: one line per event",
        ),
    ];
}

/// The text of a file, and the classes that the format cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFile {
    /// The whole file.
    pub text: String,
    /// Classes that were left out, because their name has a control character.
    pub left_out: Vec<Arc<str>>,
}

impl EventFormat {
    /// The extension of the file's name, with the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            EventFormat::Json => ".json",
            EventFormat::Csv => ".csv",
            EventFormat::WebVtt => ".vtt",
            EventFormat::Elan => ".eaf",
            EventFormat::TextGrid => ".TextGrid",
            EventFormat::Audacity => ".txt",
        }
    }

    /// The file of one video.
    pub fn file(self, video: &VideoEvents) -> EventFile {
        let write = match self {
            EventFormat::Json => return EventFile::whole(json::text(video)),
            EventFormat::Csv => return EventFile::whole(csv::text([video])),
            EventFormat::WebVtt => webvtt::text,
            EventFormat::Elan => elan::text,
            EventFormat::TextGrid => textgrid::text,
            EventFormat::Audacity => audacity::text,
        };
        let (kept, left_out) = video.without_control_characters();
        EventFile {
            text: write(&kept),
            left_out,
        }
    }
}

impl EventFile {
    fn whole(text: String) -> EventFile {
        EventFile {
            text,
            left_out: Vec::new(),
        }
    }
}
