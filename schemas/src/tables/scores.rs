use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Float32Array, Float64Array, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, TextColumn, batch, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::ScoreTrack;

/// The `scores` table. It holds scores only for the classes of the weak label.
///
/// Key: (`video`, `modality`, `class`, `segment`). One row per key; sorted by key within a bucket. Segments count
/// from 0 without a gap.
#[derive(Clone, Copy, Debug)]
pub struct Scores;

impl Table for Scores {
    type Row = ScoreTrack;
    const NAME: &'static str = "scores";
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("segment", DataType::Int32, false), // from 0
            Field::new("cosine", DataType::Float32, false), // cosine of segment and prompt
            Field::new("score", DataType::Float64, false), // probability over all C classes, or scaled cosine
        ]))
    }

    fn encode(rows: &[ScoreTrack]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for track in rows {
            video.push_run(&track.video, track.score.len());
            class.push_run(&track.class, track.score.len());
        }
        batch(
            Self::schema(),
            vec![
                video.finish(),
                names(
                    rows.iter()
                        .map(|track| (track.modality.as_str(), track.score.len())),
                ),
                class.finish(),
                Arc::new(Int32Array::from_iter_values(
                    rows.iter().flat_map(|track| 0..track.score.len() as i32),
                )),
                Arc::new(Float32Array::from_iter_values(
                    rows.iter().flat_map(|track| track.cosine.iter().copied()),
                )),
                Arc::new(Float64Array::from_iter_values(
                    rows.iter().flat_map(|track| track.score.iter().copied()),
                )),
            ],
        )
    }

    fn compare(a: &ScoreTrack, b: &ScoreTrack) -> Ordering {
        (&a.video, a.modality, &a.class).cmp(&(&b.video, b.modality, &b.class))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<ScoreTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (cosine, score) = (columns.float32("cosine")?, columns.float64("score")?);
        let tracks = tracks(&columns, batch.num_rows())?.into_iter();
        let rows = tracks.map(|(video, modality, class, rows)| ScoreTrack {
            video,
            modality,
            class,
            cosine: rows.clone().map(|row| cosine.value(row)).collect(),
            score: rows.map(|row| score.value(row)).collect(),
        });
        Ok(rows.collect())
    }

    fn height(row: &ScoreTrack) -> usize {
        row.score.len()
    }

    fn video(row: &ScoreTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}

/// The video, modality and class of a track, and its rows in the batch.
pub(super) type TrackRows = (Arc<str>, crate::ids::Modality, Arc<str>, std::ops::Range<usize>);

/// Divides the rows of `scores` or `labels` into tracks. A track begins at segment 0, and its segments count up
/// without a gap.
pub(super) fn tracks(columns: &Columns<'_>, rows: usize) -> Result<Vec<TrackRows>, TableError> {
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
