//! Samples of FiftyOne with temporal detections, and the script that loads them.

use std::path::Path;

use serde::Serialize;
use vaplan_schemas::Modality;

use super::{Exported, LeftOutVideos, write_text};
use crate::events::VideoEvents;
use crate::events::label_studio::frames;
use crate::ingest::IngestError;

/// The script makes a data set of `samples.json` in the working directory.
const LOAD: &str = "\
import json, fiftyone as fo
field = lambda events: fo.TemporalDetections(detections=[fo.TemporalDetection(**event) for event in events])
fo.Dataset(\"vaplan\").add_samples([fo.Sample(filepath=s[\"filepath\"], tags=s[\"tags\"], video=s[\"video\"], audio=field(s[\"audio\"]), visual=field(s[\"visual\"])) for s in json.load(open(\"samples.json\"))])
";

#[derive(Serialize)]
struct Sample<'a> {
    filepath: &'a str,
    /// The split.
    tags: [&'static str; 1],
    video: &'a str,
    /// Seconds.
    duration: f64,
    frame_rate: f64,
    audio: Vec<Detection<'a>>,
    visual: Vec<Detection<'a>>,
}

/// The fields of `fiftyone.TemporalDetection`.
#[derive(Serialize)]
struct Detection<'a> {
    label: &'a str,
    /// The first and the last frame, counted from 1.
    support: [u64; 2],
    /// Begin and end in seconds. FiftyOne keeps the list as an attribute of its own.
    seconds: [f64; 2],
}

/// Writes `samples.json`, one sample per video, and `load.py`.
///
/// Source: the documentation of FiftyOne, "Temporal detection": `support` has the first and the last frame, counted from 1.
pub(super) fn write(exported: &Exported, folder: &Path) -> Result<LeftOutVideos, IngestError> {
    let events: Vec<VideoEvents> = exported.events().collect();
    let samples = events.iter().zip(&exported.videos).map(|(video, row)| {
        let of = |modality: Modality| {
            let own = video
                .events
                .iter()
                .filter(move |event| event.modality == modality);
            let detection = own.map(|event| {
                let (first, last) = frames(event.onset, event.offset, exported.frame_rate);
                Detection {
                    label: video.class(event.class),
                    support: [first, last],
                    seconds: [event.onset, event.offset],
                }
            });
            detection.collect()
        };
        Sample {
            filepath: video.media.as_deref().unwrap_or_default(),
            tags: [row.split.as_str()],
            video: &video.video,
            duration: video.duration,
            frame_rate: exported.frame_rate,
            audio: of(Modality::Audio),
            visual: of(Modality::Visual),
        }
    });
    let samples: Vec<Sample<'_>> = samples.collect();
    let text = serde_json::to_string_pretty(&samples).expect("names and finite numbers are JSON");
    write_text(&folder.join("samples.json"), &format!("{text}\n"))?;
    write_text(&folder.join("load.py"), LOAD)?;
    Ok(LeftOutVideos::new())
}
