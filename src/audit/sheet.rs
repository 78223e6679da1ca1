//! The CSV file of a sample, which a person fills in, and verdicts read from it.

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, VerdictRow};
use vaplan_schemas::store::Snapshot;

use super::AuditError;
use super::draw::SampledSegment;
use super::population::{self, AuditStrata, Population};
use crate::choice::Choice;
use crate::ingest::absolute;
use crate::ingest::sheet::{self, optional, required};

/// The file of a sample. Column `verdict` is empty: a person writes 1 if the event occurs in the segment, 0 if it does
/// not, and `?` if the person is unsure. The label is not in the file, because a person who sees it judges less freely.
pub fn text(sample: &[SampledSegment], version: u64, by: AuditStrata, seconds: f64) -> String {
    let mut rows = csv::Writer::from_writer(Vec::new());
    let header = [
        "video",
        "modality",
        "class",
        "segment",
        "start_seconds",
        "end_seconds",
        "verdict",
        "version",
        "strata",
    ];
    rows.write_record(header).expect("a Vec takes everything");
    for own in sample {
        let start = f64::from(own.segment) * seconds;
        let row = [
            &own.video,
            own.modality.as_str(),
            &own.class,
            &own.segment.to_string(),
            &start.to_string(),
            &(start + seconds).to_string(),
            "",
            &version.to_string(),
            by.name(),
        ];
        rows.write_record(row).expect("a Vec takes everything");
    }
    let bytes = rows.into_inner().expect("a Vec takes everything");
    String::from_utf8(bytes).expect("all fields are UTF-8")
}

/// Verdicts of a file, and the rows that were left out.
#[derive(Debug, Default)]
pub struct ReadVerdicts {
    /// The verdicts.
    pub verdicts: Vec<VerdictRow>,
    /// Number of rows without a verdict.
    pub open: usize,
    /// Rows that cannot be used.
    pub rejects: Vec<RejectRow>,
}

/// Reads the verdicts of a file. A row must name a segment that the version has labels of. A verdict is of this version if the
/// file does not say on which version the verdict was made.
///
/// # Errors
/// Returns [`AuditError::Ingest`] if the file cannot be read or lacks a column, and [`AuditError::Store`] if the labels cannot
/// be read.
pub fn read(path: &Path, snapshot: &Snapshot) -> Result<ReadVerdicts, AuditError> {
    let latest = snapshot.version().version;
    let path = absolute(path)?;
    let source: Arc<str> = path.display().to_string().into();
    let columns = [
        required("video"),
        required("modality"),
        required("class"),
        required("segment"),
        required("verdict"),
        optional("version"),
        optional("strata"),
    ];
    let mut read = ReadVerdicts::default();
    let rows = sheet::read(&path, columns, &mut read.rejects)?;
    let named = rows
        .iter()
        .filter_map(|row| row.fields[0].as_deref().map(Arc::from));
    let population: Population = population::of_videos(snapshot, named)?;
    for row in rows {
        let [video, modality, class, segment, verdict, version, strata] =
            row.fields.each_ref().map(Option::as_deref);
        let Some(verdict) = verdict else {
            read.open += 1;
            continue;
        };
        let own = || -> Result<VerdictRow, (RejectKind, String)> {
            let bad = |reason: String| (RejectKind::FieldValue, reason);
            let (video, class) = (video.unwrap_or_default(), class.unwrap_or_default());
            let modality: Modality = modality.unwrap_or_default().parse().map_err(|_| {
                bad(format!(
                    "modality is `{}`, expected `audio` or `visual`",
                    modality.unwrap_or_default()
                ))
            })?;
            let text = segment.unwrap_or_default();
            let segment: u32 = text
                .parse()
                .map_err(|_| bad(format!("segment is `{text}`, expected a whole number from 0")))?;
            let present = match verdict {
                "1" => Some(true),
                "0" => Some(false),
                "?" => None,
                other => {
                    return Err(bad(format!(
                        "verdict is `{other}`, expected 1, 0, `?` (unsure) or nothing"
                    )));
                }
            };
            let version = match version {
                None => latest,
                Some(text) => {
                    let known = text
                        .parse::<u64>()
                        .ok()
                        .filter(|version| (1..=latest).contains(version));
                    known.ok_or_else(|| {
                        bad(format!(
                            "version is `{text}`, expected a store version from 1 to {latest}"
                        ))
                    })?
                }
            };
            let strata = match strata {
                None => AuditStrata::All,
                Some(name) => AuditStrata::parse(name).map_err(|error| bad(error.to_string()))?,
            };
            let track = population
                .get(&(video.into(), modality, class.into()))
                .ok_or_else(|| {
                    let reason =
                        format!("the store has no {modality} labels of class `{class}` of this video");
                    (RejectKind::UnknownVideo, reason)
                })?;
            if segment as usize >= track.labels.len() {
                return Err(bad(format!(
                    "segment is {segment}, expected less than {}",
                    track.labels.len()
                )));
            }
            Ok(VerdictRow {
                video: video.into(),
                modality,
                class: class.into(),
                segment,
                present,
                version,
                strata: strata.name().into(),
                source: source.clone(),
            })
        };
        match own() {
            Ok(verdict) => read.verdicts.push(verdict),
            Err((kind, reason)) => {
                let mut reject = RejectRow::reject(kind, &*source, reason).row(row.line);
                reject.video = video.map(str::to_owned);
                read.rejects.push(reject);
            }
        }
    }
    Ok(read)
}
