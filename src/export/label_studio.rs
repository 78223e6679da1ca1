//! Tasks of Label Studio, with the labels as predictions, and the labelling configuration.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use vaplan_schemas::Modality;

use super::{Exported, LeftOutVideos, write_text};
use crate::events::xml::XmlPage;
use crate::events::{TimedEvent, VideoEvents, label_studio::*};
use crate::ingest::IngestError;

/// One task: a video, and the labels as one prediction.
#[derive(Serialize)]
struct Task<'a> {
    data: TaskData<'a>,
    predictions: [Value; 1],
}

/// What the configuration refers to by `$`, and what `relabel --user` reads back.
#[derive(Serialize)]
struct TaskData<'a> {
    video: &'a str,
    audio: &'a str,
    name: &'a str,
    /// Seconds.
    duration: f64,
    segment_seconds: f64,
    frame_rate: f64,
    /// The modalities and classes that the task asks about, as `modality/class`.
    tracks: Vec<String>,
}

/// Writes `tasks.json`, for "Import", and `config.xml`, for "Labeling Interface". Events of the sound are regions of tag
/// `Labels` in seconds. Visible events are regions of tag `TimelineLabels`, in frames from 1; the last frame belongs to the
/// region.
///
/// Source: `docs/source/tags/timelinelabels.md` and `labels.md` of HumanSignal/label-studio, `label_interface` of
/// HumanSignal/label-studio-sdk.
pub(super) fn write(exported: &Exported, folder: &Path) -> Result<LeftOutVideos, IngestError> {
    let version = format!(
        "vaplan {}, store version {}",
        env!("CARGO_PKG_VERSION"),
        exported.version
    );
    let mut text = "[".to_owned();
    for (nth, video) in exported.events().enumerate() {
        let (video, _) = video.without_control_characters();
        let task = task(exported, &video, &version);
        text.push_str(if nth == 0 { "\n" } else { ",\n" });
        text += &serde_json::to_string(&task).expect("names and finite numbers are JSON");
    }
    text.push_str("\n]\n");
    write_text(&folder.join("tasks.json"), &text)?;
    write_text(&folder.join("config.xml"), &config(exported))?;
    Ok(LeftOutVideos::new())
}

fn task<'a>(exported: &Exported, video: &'a VideoEvents, version: &str) -> Task<'a> {
    let regions: Vec<Value> = (video.events.iter().enumerate())
        .map(|(nth, event)| region(video, event, nth, exported.frame_rate))
        .collect();
    let mut prediction = json!({ "model_version": version, "result": regions });
    let scores: Vec<f64> = video.events.iter().filter_map(|event| event.score).collect();
    if !scores.is_empty() {
        prediction["score"] = json!(scores.iter().sum::<f64>() / scores.len() as f64);
    }
    let media = video.media.as_deref().unwrap_or_default();
    let track = |(modality, class): &(Modality, usize)| track_name(*modality, video.class(*class));
    Task {
        data: TaskData {
            video: media,
            audio: media,
            name: &video.video,
            duration: video.duration,
            segment_seconds: video.segment_seconds,
            frame_rate: exported.frame_rate,
            tracks: video.tracks.iter().map(track).collect(),
        },
        predictions: [prediction],
    }
}

fn region(video: &VideoEvents, event: &TimedEvent, nth: usize, frame_rate: f64) -> Value {
    let (id, class) = (format!("e{}", nth + 1), video.class(event.class));
    let mut region = match event.modality {
        Modality::Audio => json!({
            "id": id,
            "from_name": AUDIO_CONTROL,
            "to_name": AUDIO_OBJECT,
            "type": "labels",
            "original_length": video.duration,
            "value": { "start": event.onset, "end": event.offset, "channel": 0, "labels": [class] },
        }),
        Modality::Visual => {
            let (start, end) = frames(event.onset, event.offset, frame_rate);
            json!({
                "id": id,
                "from_name": VISUAL_CONTROL,
                "to_name": VISUAL_OBJECT,
                "type": "timelinelabels",
                "value": { "ranges": [{ "start": start, "end": end }], "timelinelabels": [class] },
            })
        }
    };
    if let Some(score) = event.score {
        region["score"] = json!(score);
    }
    region
}

fn config(exported: &Exported) -> String {
    let left_out = exported.with_control_characters();
    let labels = |page: &mut XmlPage| {
        for class in exported.classes.iter().filter(|class| !left_out.contains(class)) {
            page.empty("Label", &[("value", class)]);
        }
    };
    let rate = exported.frame_rate.to_string();
    let mut page = XmlPage::fragment();
    page.element("View", &[], |page| {
        page.empty("Header", &[("value", "$name")]);
        page.element(
            "TimelineLabels",
            &[("name", VISUAL_CONTROL), ("toName", VISUAL_OBJECT)],
            labels,
        );
        let video = [
            ("name", VISUAL_OBJECT),
            ("value", "$video"),
            ("frameRate", &rate),
            ("sync", "media"),
        ];
        page.empty("Video", &video);
        page.element(
            "Labels",
            &[("name", AUDIO_CONTROL), ("toName", AUDIO_OBJECT)],
            labels,
        );
        page.empty(
            "Audio",
            &[("name", AUDIO_OBJECT), ("value", "$audio"), ("sync", "media")],
        );
    });
    page.finish()
}
