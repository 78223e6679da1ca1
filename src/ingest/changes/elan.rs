//! Reads user labels from ELAN files (.eaf).
//!
//! A tier `audio/<class>` or `visual/<class>` is a track. The whole track counts as confirmed by a person if its annotator
//! is not `vaplan`, or if its annotations differ from those that `export` or `parse` wrote: the header of such a file has a
//! fingerprint of each tier. A tier that nobody edited is a prediction, and does not count.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::confirmed::ConfirmedTrack;
use super::{ChangeRows, Origin, UserSpan};
use crate::events::elan::{ANNOTATOR, FINGERPRINT, VIDEO, fingerprint};
use crate::events::label_studio::track_of;
use crate::ingest::IngestError;

#[derive(Deserialize)]
struct ElanDocument {
    #[serde(rename = "HEADER")]
    header: ElanHeader,
    #[serde(rename = "TIME_ORDER")]
    times: ElanTimes,
    #[serde(rename = "TIER", default)]
    tiers: Vec<ElanTier>,
}

#[derive(Deserialize)]
struct ElanHeader {
    #[serde(rename = "@TIME_UNITS", default)]
    units: Option<String>,
    #[serde(rename = "PROPERTY", default)]
    properties: Vec<ElanProperty>,
}

#[derive(Deserialize)]
struct ElanProperty {
    #[serde(rename = "@NAME", default)]
    name: String,
    #[serde(rename = "$text", default)]
    value: String,
}

#[derive(Deserialize)]
struct ElanTimes {
    #[serde(rename = "TIME_SLOT", default)]
    slots: Vec<ElanTimeSlot>,
}

#[derive(Deserialize)]
struct ElanTimeSlot {
    #[serde(rename = "@TIME_SLOT_ID")]
    id: String,
    /// Absent for an annotation that is not aligned to the media.
    #[serde(rename = "@TIME_VALUE")]
    value: Option<u64>,
}

#[derive(Deserialize)]
struct ElanTier {
    #[serde(rename = "@TIER_ID")]
    id: String,
    #[serde(rename = "@ANNOTATOR", default)]
    annotator: Option<String>,
    #[serde(rename = "ANNOTATION", default)]
    annotations: Vec<ElanAnnotation>,
}

#[derive(Deserialize)]
struct ElanAnnotation {
    #[serde(rename = "ALIGNABLE_ANNOTATION")]
    aligned: Option<ElanAligned>,
}

#[derive(Deserialize)]
struct ElanAligned {
    #[serde(rename = "@ANNOTATION_ID")]
    id: String,
    #[serde(rename = "@TIME_SLOT_REF1")]
    first: String,
    #[serde(rename = "@TIME_SLOT_REF2")]
    last: String,
    #[serde(rename = "ANNOTATION_VALUE", default)]
    value: String,
}

/// Reads the confirmed tiers of a file. The video is that of the header property `vaplan:video`, or else the name of the
/// file without `.eaf`.
pub(super) fn read(
    rows: &mut ChangeRows,
    path: &Path,
    origin: Origin,
    text: &str,
) -> Result<(), IngestError> {
    let bad = |problem: String| IngestError::UserLabels {
        path: path.to_owned(),
        problem,
    };
    let document: ElanDocument = quick_xml::de::from_str(text)
        .map_err(|error| bad(format!("is XML, but no ELAN document that can be read: {error}")))?;
    match document.header.units.as_deref() {
        None | Some("milliseconds") => {}
        Some(other) => return Err(bad(format!("TIME_UNITS is `{other}`, expected `milliseconds`"))),
    }
    let mut properties: BTreeMap<String, String> = BTreeMap::new();
    for property in document.header.properties {
        properties.insert(property.name, property.value);
    }
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let video: Arc<str> = properties.get(VIDEO).map_or(stem, |name| name).into();
    let slots: BTreeMap<&str, Option<u64>> = document
        .times
        .slots
        .iter()
        .map(|slot| (&*slot.id, slot.value))
        .collect();
    let mut unedited = 0;
    for tier in &document.tiers {
        let Some((modality, class)) = track_of(&tier.id) else {
            let reason = format!(
                "tier `{}` is ignored, expected names `audio/<class>` and `visual/<class>`",
                tier.id
            );
            rows.rejects.push(RejectRow {
                severity: vaplan_schemas::rows::Severity::Note,
                ..origin.reject(RejectKind::FieldValue, Some(&video), reason)
            });
            continue;
        };
        match track(tier, (modality, class), &slots) {
            Ok((track, spans)) => {
                let written = properties.get(&format!("{FINGERPRINT}{}", tier.id));
                let ours = tier.annotator.as_deref() == Some(ANNOTATOR);
                let same = written.is_some_and(|written| *written == fingerprint(&spans));
                if ours && same {
                    unedited += 1;
                } else {
                    track.add(&video, &origin, rows);
                }
            }
            Err(reason) => {
                let reason = format!("tier `{}`, {reason}; the tier is left out", tier.id);
                let reject = origin.reject(RejectKind::FieldValue, Some(&video), reason);
                rows.rejects.push(reject.modality(modality));
            }
        }
    }
    if unedited > 0 {
        let reason = format!(
            "{} as the program wrote {}, so that nobody confirmed {}: edit the tier, or write the name of a person as its \
             annotator",
            if unedited == 1 {
                "1 tier is".to_owned()
            } else {
                format!("{unedited} tiers are")
            },
            if unedited == 1 { "it" } else { "them" },
            if unedited == 1 { "it" } else { "them" },
        );
        rows.rejects.push(RejectRow {
            severity: vaplan_schemas::rows::Severity::Note,
            ..origin.reject(RejectKind::FieldValue, Some(&video), reason)
        });
    }
    Ok(())
}

/// The track of a tier, and its spans in milliseconds.
fn track(
    tier: &ElanTier,
    (modality, class): (Modality, &str),
    slots: &BTreeMap<&str, Option<u64>>,
) -> Result<(ConfirmedTrack, Vec<(u64, u64)>), String> {
    let mut spans = Vec::new();
    for (nth, annotation) in tier.annotations.iter().enumerate() {
        let Some(own) = &annotation.aligned else {
            return Err(format!(
                "annotation {} is not aligned to time, expected an alignable annotation",
                nth + 1
            ));
        };
        let value = own.value.trim();
        if !value.is_empty() && value != class.trim() {
            return Err(format!(
                "annotation `{}`: value is `{value}`, expected `{class}` or nothing",
                own.id
            ));
        }
        let time = |slot: &str| match slots.get(slot) {
            Some(Some(time)) => Ok(*time),
            Some(None) => Err(format!(
                "annotation `{}`: time slot `{slot}` has no time, expected milliseconds",
                own.id
            )),
            None => Err(format!(
                "annotation `{}`: time slot `{slot}` is not in the file",
                own.id
            )),
        };
        let (onset, offset) = (time(&own.first)?, time(&own.last)?);
        let span = onset as f64 / 1000.0..offset as f64 / 1000.0;
        UserSpan::Seconds(span)
            .check()
            .map_err(|problem| format!("annotation `{}`: {problem}", own.id))?;
        spans.push((onset, offset));
    }
    let seconds = spans
        .iter()
        .map(|(onset, offset)| *onset as f64 / 1000.0..*offset as f64 / 1000.0);
    let track = ConfirmedTrack {
        modality,
        class: class.into(),
        spans: seconds.collect(),
    };
    Ok((track, spans))
}
