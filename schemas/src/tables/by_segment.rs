//! The former layout of `scores`, `labels` and `label_changes`, which had one row per segment.
//!
//! Files of programs before the layout with one row per track are read here. The first commit that touches a table in
//! the former layout writes the whole table anew, because the columns of one Delta table have one type.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextColumn};
use super::labels::label_rule;
use super::text;
use super::why::{self, Reasons};
use crate::error::TableError;
use crate::ids::Modality;
use crate::rows::{LabelChangeTrack, LabelTrack, ScoreTrack};

/// The column that only files in the former layout have.
pub(super) const SEGMENT: &str = "segment";

/// A schema whose key has a segment, and these columns after the key.
fn schema(before: Option<Field>, columns: Vec<Field>) -> SchemaRef {
    let key = vec![
        Field::new("video", text(), false),
        Field::new("modality", text(), false),
        Field::new("class", text(), false),
        Field::new(SEGMENT, DataType::Int32, false),
    ];
    let fields = before.into_iter().chain(key).chain(columns);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn scores_schema() -> SchemaRef {
    let columns = vec![
        Field::new("cosine", DataType::Float32, false),
        Field::new("score", DataType::Float64, false),
    ];
    schema(None, columns)
}

pub(super) fn labels_schema() -> SchemaRef {
    let columns = vec![
        Field::new("label", DataType::Boolean, false),
        Field::new("rule", text(), false),
        Field::new("score", DataType::Float64, true),
        Field::new("threshold", DataType::Float64, true),
        why::field(),
    ];
    schema(None, columns)
}

pub(super) fn label_changes_schema() -> SchemaRef {
    let columns = vec![
        Field::new("from", DataType::Boolean, false),
        Field::new("to", DataType::Boolean, false),
        Field::new("rule", text(), false),
        why::field(),
    ];
    schema(Some(Field::new("version", DataType::Int64, false)), columns)
}

/// The rows of a file of `scores`.
pub(super) fn scores(columns: &Columns<'_>, rows: usize) -> Result<Vec<ScoreTrack>, TableError> {
    let (cosine, score) = (columns.float32("cosine")?, columns.float64("score")?);
    let tracks = tracks(columns, rows)?.into_iter();
    let rows = tracks.map(|(video, modality, class, rows)| ScoreTrack {
        video,
        modality,
        class,
        cosine: rows.clone().map(|row| cosine.value(row)).collect(),
        score: rows.map(|row| score.value(row)).collect(),
    });
    Ok(rows.collect())
}

/// The rows of a file of `labels`.
pub(super) fn labels(columns: &Columns<'_>, rows: usize) -> Result<Vec<LabelTrack>, TableError> {
    let (label, rule) = (columns.boolean("label")?, columns.required_text("rule")?);
    let (score, threshold) = (
        columns.optional_float64("score")?,
        columns.optional_float64("threshold")?,
    );
    let why = Reasons::of(columns)?;
    let of_track = |(video, modality, class, rows): TrackRows| {
        let mut track = LabelTrack {
            video,
            modality,
            class,
            labels: Vec::with_capacity(rows.len()),
            rules: Vec::with_capacity(rows.len()),
            scores: Vec::with_capacity(rows.len()),
            threshold: None,
            flips: Vec::new(),
        };
        for (segment, row) in rows.enumerate() {
            let rule = label_rule(columns, row, rule.expect(row))?;
            if !rule.compares() {
                track.scores.push(0.0);
            } else {
                if score.is_null(row) {
                    let expected = "a number, since the rule is not `user`";
                    return Err(columns.value(row, "score", "null", expected));
                }
                track.scores.push(score.value(row));
                let own = threshold.is_valid(row).then(|| threshold.value(row));
                match (track.threshold, own) {
                    (_, None) => {
                        let expected = "a number, since the rule is not `user`";
                        return Err(columns.value(row, "threshold", "null", expected));
                    }
                    (Some(before), Some(own)) if before != own => {
                        let expected = "the threshold of the other segments of the video and class";
                        return Err(columns.value(row, "threshold", own, expected));
                    }
                    _ => track.threshold = own,
                }
            }
            track.labels.push(label.value(row));
            track.rules.push(rule);
            if let Some(reason) = why.get(columns, row, row)? {
                track.flips.push((segment as u32, *reason));
            }
        }
        Ok(track)
    };
    tracks(columns, rows)?.into_iter().map(of_track).collect()
}

/// The rows of a file of `label_changes`, each with one segment.
pub(super) fn label_changes(columns: &Columns<'_>, rows: usize) -> Result<Vec<LabelChangeTrack>, TableError> {
    let version = columns.int64("version")?;
    let (video, modality) = (
        columns.required_text("video")?,
        columns.required_text("modality")?,
    );
    let (class, segment) = (columns.required_text("class")?, columns.int32("segment")?);
    let (from, to) = (columns.boolean("from")?, columns.boolean("to")?);
    let (rule, why) = (columns.required_text("rule")?, Reasons::of(columns)?);
    (0..rows)
        .map(|row| {
            if from.value(row) == to.value(row) {
                return Err(columns.value(row, "to", to.value(row), "another label than `from`"));
            }
            Ok(LabelChangeTrack {
                version: columns.count(row, "version", version.value(row))?,
                video: video.expect(row).clone(),
                modality: columns.modality(row, &modality)?,
                class: class.expect(row).clone(),
                to: to.value(row),
                rule: label_rule(columns, row, rule.expect(row))?,
                segments: vec![columns.small_count(row, "segment", segment.value(row))?],
                why: why.get(columns, row, row)?.into_iter().map(|why| *why).collect(),
            })
        })
        .collect()
}

/// The video, modality and class of a track, and its rows in the batch.
type TrackRows = (Arc<str>, Modality, Arc<str>, Range<usize>);

/// Divides the rows of `scores` or `labels` into tracks. A track begins at segment 0, and its segments count up
/// without a gap.
fn tracks(columns: &Columns<'_>, rows: usize) -> Result<Vec<TrackRows>, TableError> {
    let (video, modality) = (
        columns.required_text("video")?,
        columns.required_text("modality")?,
    );
    let (class, segment) = (columns.required_text("class")?, columns.int32("segment")?);
    let same = |text: &TextColumn, a: usize, b: usize| {
        Arc::ptr_eq(text.expect(a), text.expect(b)) || text.expect(a) == text.expect(b)
    };
    let mut tracks: Vec<TrackRows> = Vec::new();
    for row in 0..rows {
        let first = tracks.last().map(|track| track.3.start);
        let goes_on = first.is_some_and(|first| {
            segment.value(row) != 0
                && same(&video, first, row)
                && same(&modality, first, row)
                && same(&class, first, row)
        });
        let expected = match (goes_on, first) {
            (true, Some(first)) => (row - first) as i32,
            _ => 0,
        };
        if segment.value(row) != expected {
            let expected = if goes_on {
                "the segment after the row before"
            } else {
                "0, where a track begins"
            };
            return Err(columns.value(row, "segment", segment.value(row), expected));
        }
        match tracks.last_mut() {
            Some(track) if goes_on => track.3.end = row + 1,
            _ => tracks.push((
                video.expect(row).clone(),
                columns.modality(row, &modality)?,
                class.expect(row).clone(),
                row..row + 1,
            )),
        }
    }
    Ok(tracks)
}
