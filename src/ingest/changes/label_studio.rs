//! Reads user labels from Label Studio's export (format JSON).
//!
//! An entry of `annotations` is what a person submitted for a task. It covers every track (modality and class) that the
//! task's `data.tracks` names, as our own tasks do, and every track with a region. A covered track counts for the whole
//! video: the segments of its regions are set, all others are unset. Entries of `predictions`, skipped annotations
//! (`was_cancelled`) and drafts do not count. If a task has several annotations, the one that is marked as ground truth
//! counts, or else the one that was updated last.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};

use super::confirmed::ConfirmedTrack;
use super::{ChangeRows, Origin, UserSpan};
use crate::events::label_studio::{AUDIO_CONTROL, VISUAL_CONTROL, seconds, track_of};
use crate::ingest::IngestError;

/// The events of each track that an annotation covers.
type Covered = BTreeMap<(Modality, Arc<str>), Vec<std::ops::Range<f64>>>;

/// Reads the annotations of all tasks.
pub(super) fn read(
    rows: &mut ChangeRows,
    path: &Path,
    file: &Arc<str>,
    text: &str,
) -> Result<(), IngestError> {
    let bad = |problem: String| IngestError::UserLabels {
        path: path.to_owned(),
        problem,
    };
    let document: Value = serde_json::from_str(text).map_err(|error| bad(format!("is no JSON: {error}")))?;
    let tasks = match document {
        Value::Array(tasks) => tasks,
        task @ Value::Object(_) => vec![task],
        _ => return Err(bad("is JSON, but no list of Label Studio's tasks".to_owned())),
    };
    if tasks
        .iter()
        .any(|task| task.get("annotations").is_none() && task.get("data").is_none())
    {
        let expected = "expected Label Studio's export in format `JSON` (not `JSON-MIN`)";
        return Err(bad(format!(
            "a task has neither `data` nor `annotations`, {expected}"
        )));
    }
    let mut open = 0;
    for (nth, task) in tasks.iter().enumerate() {
        let origin = Origin {
            file: file.clone(),
            row: Some(nth as u64 + 1),
        };
        if submitted(task).is_none() {
            open += 1;
        } else {
            read_task(rows, &origin, task, nth);
        }
    }
    if open > 0 {
        let origin = Origin {
            file: file.clone(),
            row: None,
        };
        let reason = format!(
            "{} without a submitted annotation, so that nobody confirmed the predictions: submit the tasks in Label Studio, and \
             export again",
            if open == 1 {
                "1 task is".to_owned()
            } else {
                format!("{open} tasks are")
            },
        );
        rows.rejects.push(RejectRow {
            severity: Severity::Note,
            ..origin.reject(RejectKind::FieldValue, None, reason)
        });
    }
    Ok(())
}

fn read_task(rows: &mut ChangeRows, origin: &Origin, task: &Value, nth: usize) {
    let name = match task.get("id") {
        Some(Value::Number(id)) => format!("task {id}"),
        _ => format!("task number {}", nth + 1),
    };
    let data = &task["data"];
    let Some(video) = video_of(data) else {
        let reason = format!("{name}: neither `data.name` nor `data.video` or `data.audio` names a video");
        rows.rejects
            .push(origin.reject(RejectKind::EmptyName, None, reason));
        return;
    };
    let submitted = submitted(task);
    let Some((annotation, others)) = submitted else {
        return;
    };
    if others > 0 {
        let id = &annotation["id"];
        let reason = format!("{name}: annotation {id} counts, {others} other annotations of the task do not");
        rows.rejects.push(RejectRow {
            severity: Severity::Note,
            ..origin.reject(RejectKind::LabelConflict, Some(&video), reason)
        });
    }
    match covered(annotation, data) {
        Ok(tracks) => {
            for ((modality, class), spans) in tracks {
                ConfirmedTrack {
                    modality,
                    class,
                    spans,
                }
                .add(&video, origin, rows);
            }
        }
        Err(problem) => {
            let reason = format!("{name}, {problem}; the task is left out");
            rows.rejects
                .push(origin.reject(RejectKind::FieldValue, Some(&video), reason));
        }
    }
}

/// The full name of the video: `data.name` of our own tasks, or else the file name of the media without its extension.
fn video_of(data: &Value) -> Option<Arc<str>> {
    if let Some(name) = data["name"].as_str().filter(|name| !name.is_empty()) {
        return Some(name.into());
    }
    let media = data["video"].as_str().or_else(|| data["audio"].as_str())?;
    // A path of local files is a query: `/data/local-files/?d=videos/a.mp4`.
    let file = media.rsplit(['/', '=', '\\']).next()?;
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    (!stem.is_empty()).then(|| stem.into())
}

/// The annotation that counts, and the number of other annotations that were submitted.
fn submitted(task: &Value) -> Option<(&Value, usize)> {
    let all = task.get("annotations").and_then(Value::as_array)?;
    let submitted: Vec<&Value> = all.iter().filter(|own| own["was_cancelled"] != true).collect();
    let time = |own: &&&Value| {
        let of = |key: &str| own[key].as_str().unwrap_or_default().to_owned();
        (
            own["ground_truth"] == true,
            of("updated_at"),
            of("created_at"),
            own["id"].as_i64(),
        )
    };
    let counts = submitted.iter().max_by_key(time)?;
    Some((counts, submitted.len() - 1))
}

fn covered(annotation: &Value, data: &Value) -> Result<Covered, String> {
    let mut covered = Covered::new();
    if let Some(tracks) = data.get("tracks") {
        let tracks = tracks
            .as_array()
            .ok_or("`data.tracks` is no list, expected names `audio/<class>`")?;
        for track in tracks {
            let named = track.as_str().and_then(track_of);
            let (modality, class) = named.ok_or_else(|| {
                format!("`data.tracks` has {track}, expected `audio/<class>` or `visual/<class>`")
            })?;
            covered.entry((modality, class.into())).or_default();
        }
    }
    let regions = annotation["result"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for region in regions {
        let id = region["id"].as_str().unwrap_or("without id");
        let in_region =
            |problem: String| format!("annotation {}, region `{id}`: {problem}", annotation["id"]);
        let Some(modality) = modality_of(region) else {
            continue;
        };
        let (labels, spans) = spans_of(region, data, modality).map_err(in_region)?;
        for span in &spans {
            UserSpan::Seconds(span.clone()).check().map_err(in_region)?;
        }
        for label in labels {
            covered
                .entry((modality, label.into()))
                .or_default()
                .extend(spans.iter().cloned());
        }
    }
    Ok(covered)
}

/// The modality of a region; `None` for regions of other kinds, such as choices and text.
fn modality_of(region: &Value) -> Option<Modality> {
    match (region["from_name"].as_str(), region["type"].as_str()) {
        (Some(AUDIO_CONTROL), _) | (_, Some("labels")) => Some(Modality::Audio),
        (Some(VISUAL_CONTROL), _) | (_, Some("timelinelabels")) => Some(Modality::Visual),
        _ => None,
    }
}

/// The labels and the spans of a region.
fn spans_of<'a>(
    region: &'a Value,
    data: &Value,
    modality: Modality,
) -> Result<(Vec<&'a str>, Vec<std::ops::Range<f64>>), String> {
    let value = &region["value"];
    let (key, spans) = match value.get("ranges") {
        Some(ranges) => {
            let ranges = ranges
                .as_array()
                .ok_or("`ranges` is no list, expected ranges of frames")?;
            let rate = data["frame_rate"]
                .as_f64()
                .filter(|rate| rate.is_finite() && *rate > 0.0);
            let rate = rate.ok_or("counts frames, but `data.frame_rate` of the task is no number above 0")?;
            let span = |range: &Value| {
                let frame = |key: &str| number(range, key);
                let (onset, offset) = seconds(frame("start")?, frame("end")?, rate);
                Ok::<_, String>(onset..offset)
            };
            (
                "timelinelabels",
                ranges.iter().map(span).collect::<Result<_, _>>()?,
            )
        }
        None => ("labels", vec![number(value, "start")?..number(value, "end")?]),
    };
    let labels = value[key]
        .as_array()
        .ok_or_else(|| format!("has no `{key}`, expected the {modality} classes"))?;
    let labels = labels.iter().map(|label| {
        label
            .as_str()
            .ok_or_else(|| format!("`{key}` has {label}, expected a class"))
    });
    Ok((labels.collect::<Result<_, _>>()?, spans))
}

fn number(value: &Value, key: &str) -> Result<f64, String> {
    value[key]
        .as_f64()
        .ok_or_else(|| format!("`{key}` is {}, expected a number", value[key]))
}
