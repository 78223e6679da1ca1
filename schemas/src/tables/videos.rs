use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, ListBuilder, RecordBatch, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, int32, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::VideoRow;

/// The `videos` table.
///
/// Key: `video`. One row per key; sorted by key within a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Videos;

fn item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Utf8, false))
}

impl Table for Videos {
    type Row = VideoRow;
    const NAME: &'static str = "videos";
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("video", text(), false),
            Field::new("split", text(), false), // `train`, `val` or `test`
            Field::new("segments", DataType::Int32, false), // T; 0: no features could be read
            Field::new("segment_seconds", DataType::Float64, false), // length of a segment
            Field::new("weak_labels", DataType::List(item()), false), // in the order of the classes
            Field::new("source", text(), false), // file of the weak label
            Field::new("audio_source", text(), true), // null: missing or rejected
            Field::new("visual_source", text(), true), // null: missing or rejected
            Field::new("guessed", DataType::Boolean, true), // null: false, of a program before this column
        ]))
    }

    fn encode(rows: &[VideoRow]) -> RecordBatch {
        let mut texts: [TextBuilder; 4] = Default::default();
        let mut weak = ListBuilder::new(StringBuilder::new()).with_field(item());
        for row in rows {
            texts[0].push(&row.video);
            texts[1].push(&row.source);
            texts[2].push_option(row.audio_source.as_ref());
            texts[3].push_option(row.visual_source.as_ref());
            row.weak_labels
                .iter()
                .for_each(|class| weak.values().append_value(class));
            weak.append(true);
        }
        let [video, source, audio, visual] = texts.map(TextBuilder::finish);
        let weak: ArrayRef = Arc::new(weak.finish());
        batch(
            Self::schema(),
            vec![
                video,
                names(rows.iter().map(|row| (row.split.as_str(), 1))),
                Arc::new(Int32Array::from_iter_values(
                    rows.iter().map(|row| int32(row.segments)),
                )),
                Arc::new(Float64Array::from_iter_values(
                    rows.iter().map(|row| row.segment_seconds),
                )),
                weak,
                source,
                audio,
                visual,
                Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.guessed)))),
            ],
        )
    }

    fn compare(a: &VideoRow, b: &VideoRow) -> Ordering {
        a.video.cmp(&b.video)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<VideoRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (video, split) = (columns.required_text("video")?, columns.required_text("split")?);
        let (segments, seconds) = (columns.int32("segments")?, columns.float64("segment_seconds")?);
        let weak = columns.text_lists("weak_labels")?;
        let source = columns.required_text("source")?;
        let (audio, visual) = (columns.text("audio_source")?, columns.text("visual_source")?);
        let guessed = columns.added_boolean("guessed")?;
        weak.into_iter()
            .enumerate()
            .map(|(row, weak_labels)| {
                let name = split.expect(row);
                let split = name.parse().map_err(|_| {
                    columns.value(row, "split", format!("`{name}`"), "`train`, `val` or `test`")
                })?;
                Ok(VideoRow {
                    video: video.expect(row).clone(),
                    split,
                    segments: columns.small_count(row, "segments", segments.value(row))?,
                    segment_seconds: seconds.value(row),
                    weak_labels,
                    guessed: !guessed.is_null(row) && guessed.value(row),
                    source: source.expect(row).clone(),
                    audio_source: audio.get(row).cloned(),
                    visual_source: visual.get(row).cloned(),
                })
            })
            .collect()
    }

    fn video(row: &VideoRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
