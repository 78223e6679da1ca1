use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Float32Array, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, compare_text, names};
use super::lists::{self, Lists, list};
use super::{Table, by_segment, text};
use crate::error::TableError;
use crate::rows::ScoreTrack;

/// The `scores` table. It holds scores only for the classes of the weak label.
///
/// Key: (`video`, `modality`, `class`). One row per key; sorted by key within a bucket. The two lists of a row have one
/// value per segment, from segment 0.
#[derive(Clone, Copy, Debug)]
pub struct Scores;

impl Table for Scores {
    type Row = ScoreTrack;
    const NAME: &'static str = "scores";
    const BUCKETED: bool = true;
    const FORMER: Option<&str> = Some(by_segment::SEGMENT);

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("cosine", list(DataType::Float32, false), false), // cosine of segment and prompt
            Field::new("score", list(DataType::Float64, false), false), // probability over all C classes, or scaled cosine
        ]))
    }

    fn encode(rows: &[ScoreTrack]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for track in rows {
            video.push(&track.video);
            class.push(&track.class);
        }
        let cosine = rows.iter().flat_map(|track| track.cosine.iter().copied());
        let score = rows.iter().flat_map(|track| track.score.iter().copied());
        let cosine = Arc::new(Float32Array::from_iter_values(cosine));
        let score = Arc::new(Float64Array::from_iter_values(score));
        let columns = vec![
            video.finish(),
            names(rows.iter().map(|track| (track.modality.as_str(), 1))),
            class.finish(),
            lists::build(rows.iter().map(|track| track.cosine.len()), cosine, false, None),
            lists::build(rows.iter().map(|track| track.score.len()), score, false, None),
        ];
        batch(Self::schema(), columns)
    }

    fn compare(a: &ScoreTrack, b: &ScoreTrack) -> Ordering {
        let order = compare_text(&a.video, &b.video).then(a.modality.cmp(&b.modality));
        order.then_with(|| compare_text(&a.class, &b.class))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<ScoreTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        if Self::is_former(&batch.schema()) {
            return by_segment::scores(&columns, batch.num_rows());
        }
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let class = columns.required_text("class")?;
        let cosines = Lists::new(&columns, "cosine", "List(Float32)", true)?;
        let scores = Lists::new(&columns, "score", "List(Float64)", true)?;
        let (cosine, score) = (cosines.float32(&columns)?, scores.float64(&columns)?);
        (0..batch.num_rows())
            .map(|row| {
                let of = scores.range(row).unwrap_or_default();
                if of.is_empty() {
                    return Err(columns.value(row, "score", "an empty list", "a value per segment"));
                }
                let own = cosines.range_of(&columns, row, of.len())?;
                Ok(ScoreTrack {
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    class: class.expect(row).clone(),
                    cosine: cosine.values()[own].to_vec(),
                    score: score.values()[of].to_vec(),
                })
            })
            .collect()
    }

    fn former_height(row: &ScoreTrack) -> usize {
        row.score.len()
    }

    fn former_schema() -> SchemaRef {
        by_segment::scores_schema()
    }

    fn video(row: &ScoreTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
