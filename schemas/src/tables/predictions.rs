use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, compare_text, float_lists, floats, int64, names};
use super::lists::Lists;
use super::{Table, text};
use crate::error::TableError;
use crate::rows::PredictionTrack;

/// The `predictions` table: the segment probabilities of a parser for all classes.
///
/// Key: (`epoch`, `video`, `modality`, `segment`). One row per key; sorted by key within a file; each epoch adds its
/// own files. Segments count from 0 without a gap, and all lists of a track have the same length.
#[derive(Clone, Copy, Debug)]
pub struct Predictions;

impl Table for Predictions {
    type Row = PredictionTrack;
    const NAME: &'static str = "predictions";
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("epoch", DataType::Int64, false), // from 1
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("segment", DataType::Int32, false), // from 0
            Field::new("probability", floats(), false),    // C values, in the order of the classes
        ]))
    }

    fn encode(rows: &[PredictionTrack]) -> RecordBatch {
        let mut video = TextBuilder::default();
        for track in rows {
            video.push_run(&track.video, track.segments() as usize);
        }
        let epochs = rows
            .iter()
            .flat_map(|track| std::iter::repeat_n(int64(track.epoch), track.segments() as usize));
        let segments = rows.iter().flat_map(|track| 0..track.segments() as i32);
        let lists = rows
            .iter()
            .flat_map(|track| track.probability.chunks_exact(track.classes as usize));
        let modality = rows
            .iter()
            .map(|track| (track.modality.as_str(), track.segments() as usize));
        batch(
            Self::schema(),
            vec![
                Arc::new(Int64Array::from_iter_values(epochs)),
                video.finish(),
                names(modality),
                Arc::new(Int32Array::from_iter_values(segments)),
                float_lists(lists),
            ],
        )
    }

    fn compare(a: &PredictionTrack, b: &PredictionTrack) -> Ordering {
        let order = a.epoch.cmp(&b.epoch);
        let order = order.then_with(|| compare_text(&a.video, &b.video));
        order.then(a.modality.cmp(&b.modality))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<PredictionTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (epoch, segment) = (columns.int64("epoch")?, columns.int32("segment")?);
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let mut tracks: Vec<PredictionTrack> = Vec::new();
        let lists = Lists::new(&columns, "probability", "List(Float32)", true)?;
        let values = lists.float32(&columns)?;
        for row in 0..batch.num_rows() {
            let list = &values.values()[lists.range(row).unwrap_or_default()];
            if list.is_empty() {
                return Err(columns.value(row, "probability", "an empty list", "a value per class"));
            }
            let number = columns.count(row, "epoch", epoch.value(row))?;
            let of = columns.modality(row, &modality)?;
            let own = tracks.last_mut().filter(|track| {
                segment.value(row) != 0
                    && track.epoch == number
                    && track.modality == of
                    && track.video == *video.expect(row)
            });
            let Some(track) = own else {
                if segment.value(row) != 0 {
                    let expected = "0, where a track begins";
                    return Err(columns.value(row, "segment", segment.value(row), expected));
                }
                tracks.push(PredictionTrack {
                    epoch: number,
                    video: video.expect(row).clone(),
                    modality: of,
                    classes: list.len() as u32,
                    probability: list.to_vec(),
                });
                continue;
            };
            if segment.value(row) != track.segments() as i32 {
                let expected = "the segment after the row before";
                return Err(columns.value(row, "segment", segment.value(row), expected));
            }
            if list.len() != track.classes as usize {
                let found = format!("{} values", list.len());
                return Err(columns.value(row, "probability", found, "as many as the row before"));
            }
            track.probability.extend_from_slice(list);
        }
        Ok(tracks)
    }

    fn height(row: &PredictionTrack) -> usize {
        row.segments() as usize
    }

    fn video(row: &PredictionTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
