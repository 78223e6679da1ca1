use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, names};
use super::scores::tracks;
use super::why::{self, Reasons};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::{FlipReason, LabelRule, LabelTrack};

/// The `labels` table: each label of a class of the weak label, and the reason for it.
///
/// Key: (`video`, `modality`, `class`, `segment`). One row per key; sorted by key within a bucket. Segments count
/// from 0 without a gap.
#[derive(Clone, Copy, Debug)]
pub struct Labels;

impl Table for Labels {
    type Row = LabelTrack;
    const NAME: &'static str = "labels";
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        let columns = vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("segment", DataType::Int32, false), // from 0
            Field::new("label", DataType::Boolean, false), // does the event occur
            Field::new("rule", text(), false),             // the rule that set it: `plg`, `pld` or `user`
            Field::new("score", DataType::Float64, true),  // the compared score; null for rule `user`
            Field::new("threshold", DataType::Float64, true), // the number it was compared with; null for rule `user`
            why::field(), // why PLD flipped the label; null for other rules
        ];
        Arc::new(Schema::new(columns))
    }

    fn encode(rows: &[LabelTrack]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for track in rows {
            video.push_run(&track.video, track.segments());
            class.push_run(&track.class, track.segments());
        }
        let modality = rows
            .iter()
            .map(|track| (track.modality.as_str(), track.segments()));
        let segment = rows.iter().flat_map(|track| 0..track.segments() as i32);
        let labels = rows.iter().flat_map(|track| &track.labels);
        let rules = rows.iter().flat_map(|track| &track.rules);
        let scores = rows.iter().flat_map(|track| {
            let scores = track.rules.iter().zip(&track.scores);
            scores.map(|(rule, score)| rule.compares().then_some(*score))
        });
        let thresholds = rows.iter().flat_map(|track| {
            let rules = track.rules.iter();
            rules.map(|rule| track.threshold.filter(|_| rule.compares()))
        });
        let columns: Vec<ArrayRef> = vec![
            video.finish(),
            names(modality),
            class.finish(),
            Arc::new(Int32Array::from_iter_values(segment)),
            Arc::new(labels.map(|label| Some(*label)).collect::<BooleanArray>()),
            names(rules.map(|rule| (rule.as_str(), 1))),
            Arc::new(scores.collect::<Float64Array>()),
            Arc::new(thresholds.collect::<Float64Array>()),
            why::encode(&whys(rows)),
        ];
        batch(Self::schema(), columns)
    }

    fn compare(a: &LabelTrack, b: &LabelTrack) -> Ordering {
        (&a.video, a.modality, &a.class).cmp(&(&b.video, b.modality, &b.class))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (label, rule) = (columns.boolean("label")?, columns.required_text("rule")?);
        let (score, threshold) = (
            columns.optional_float64("score")?,
            columns.optional_float64("threshold")?,
        );
        let why = Reasons::of(&columns)?;
        let of_track = |(video, modality, class, rows): super::scores::TrackRows| {
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
                let rule = label_rule(&columns, row, rule.expect(row))?;
                if !rule.compares() {
                    track.scores.push(0.0);
                } else {
                    if score.is_null(row) {
                        return Err(columns.value(
                            row,
                            "score",
                            "null",
                            "a number, since the rule is not `user`",
                        ));
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
                if let Some(reason) = why.get(&columns, row)? {
                    track.flips.push((segment as u32, *reason));
                }
            }
            Ok(track)
        };
        tracks(&columns, batch.num_rows())?
            .into_iter()
            .map(of_track)
            .collect()
    }

    fn height(row: &LabelTrack) -> usize {
        row.segments()
    }

    fn video(row: &LabelTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}

/// The reason of each row of these tracks. Few labels are flips, so a track has its reasons in a list of their own.
fn whys(rows: &[LabelTrack]) -> Vec<Option<&FlipReason>> {
    let mut whys = Vec::new();
    for track in rows {
        let first = whys.len();
        whys.resize(first + track.segments(), None);
        for (segment, why) in &track.flips {
            whys[first + *segment as usize] = Some(why);
        }
    }
    whys
}

pub(super) fn label_rule(columns: &Columns<'_>, row: usize, name: &str) -> Result<LabelRule, TableError> {
    [LabelRule::Plg, LabelRule::Pld, LabelRule::User]
        .into_iter()
        .find(|rule| rule.as_str() == name)
        .ok_or_else(|| columns.value(row, "rule", format!("`{name}`"), "`plg`, `pld` or `user`"))
}
