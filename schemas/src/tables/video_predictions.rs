use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, float_lists, floats, int64};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::VideoPredictionRow;

/// The `video_predictions` table: the probabilities of a parser for whole videos. The protocols of `eval` need them.
///
/// They are not the mean of `predictions`: the parser weighs segments and modalities by its attention.
///
/// Key: (`epoch`, `video`). One row per key; sorted by key within a file; each epoch adds its own files. The three
/// lists of a row have the same length.
#[derive(Clone, Copy, Debug)]
pub struct VideoPredictions;

impl Table for VideoPredictions {
    type Row = VideoPredictionRow;
    const NAME: &'static str = "video_predictions";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("epoch", DataType::Int64, false), // from 1
            Field::new("video", text(), false),
            Field::new("probability", floats(), false), // p: C values, in the order of the classes
            Field::new("audio", floats(), false),       // p^a, as `probability`
            Field::new("visual", floats(), false),      // p^v, as `probability`
        ]))
    }

    fn encode(rows: &[VideoPredictionRow]) -> RecordBatch {
        let mut video = TextBuilder::default();
        for row in rows {
            video.push(&row.video);
        }
        batch(
            Self::schema(),
            vec![
                Arc::new(Int64Array::from_iter_values(
                    rows.iter().map(|row| int64(row.epoch)),
                )),
                video.finish(),
                float_lists(rows.iter().map(|row| row.probability.as_slice())),
                float_lists(rows.iter().map(|row| row.audio.as_slice())),
                float_lists(rows.iter().map(|row| row.visual.as_slice())),
            ],
        )
    }

    fn compare(a: &VideoPredictionRow, b: &VideoPredictionRow) -> Ordering {
        (a.epoch, &a.video).cmp(&(b.epoch, &b.video))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<VideoPredictionRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (epoch, video) = (columns.int64("epoch")?, columns.required_text("video")?);
        let audio = columns.float_lists("audio")?.into_iter();
        let visual = columns.float_lists("visual")?.into_iter();
        let all = columns.float_lists("probability")?.into_iter();
        let mut rows = Vec::with_capacity(batch.num_rows());
        for (row, ((probability, audio), visual)) in all.zip(audio).zip(visual).enumerate() {
            for (column, list) in [("audio", &audio), ("visual", &visual)] {
                if list.len() != probability.len() {
                    let found = format!("{} values", list.len());
                    return Err(columns.value(row, column, found, "as many as probability"));
                }
            }
            rows.push(VideoPredictionRow {
                epoch: columns.count(row, "epoch", epoch.value(row))?,
                video: video.expect(row).clone(),
                probability,
                audio,
                visual,
            });
        }
        Ok(rows)
    }

    fn video(row: &VideoPredictionRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
