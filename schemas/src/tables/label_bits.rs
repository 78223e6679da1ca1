use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::columns::{Columns, compare_text};
use super::lists::Lists;
use super::{Labels, Table, by_segment};
use crate::error::TableError;
use crate::rows::LabelBitTrack;

/// Table `labels` without the reasons of its labels: a reader of labels alone decodes four of the eight columns. Only for
/// reading.
#[derive(Clone, Copy, Debug)]
pub struct LabelBits;

impl Table for LabelBits {
    type Row = LabelBitTrack;
    const NAME: &'static str = Labels::NAME;
    const BUCKETED: bool = Labels::BUCKETED;
    const FORMER: Option<&str> = Labels::FORMER;
    const COLUMNS: Option<&'static [&'static str]> = Some(&["video", "modality", "class", "label"]);

    fn schema() -> SchemaRef {
        Labels::schema()
    }

    fn encode(_rows: &[LabelBitTrack]) -> RecordBatch {
        unreachable!("rows without reasons are not written")
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelBitTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        if Self::is_former(&batch.schema()) {
            let tracks = by_segment::labels(&columns, batch.num_rows())?;
            let bits = tracks.into_iter().map(|track| LabelBitTrack {
                video: track.video,
                modality: track.modality,
                class: track.class,
                labels: track.labels,
            });
            return Ok(bits.collect());
        }
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let class = columns.required_text("class")?;
        let lists = Lists::new(&columns, "label", "List(Boolean)", true)?;
        let label: BooleanArray = lists.booleans(&columns)?;
        let track = |row: usize| {
            let of = lists.range(row).unwrap_or_default();
            if of.is_empty() {
                return Err(columns.value(row, "label", "an empty list", "a value per segment"));
            }
            Ok(LabelBitTrack {
                video: video.expect(row).clone(),
                modality: columns.modality(row, &modality)?,
                class: class.expect(row).clone(),
                labels: of.map(|at| label.value(at)).collect(),
            })
        };
        (0..batch.num_rows()).map(track).collect()
    }

    fn compare(a: &LabelBitTrack, b: &LabelBitTrack) -> Ordering {
        let order = compare_text(&a.video, &b.video).then(a.modality.cmp(&b.modality));
        order.then_with(|| compare_text(&a.class, &b.class))
    }

    fn former_height(row: &LabelBitTrack) -> usize {
        row.labels.len()
    }

    fn former_schema() -> SchemaRef {
        Labels::former_schema()
    }

    fn video(row: &LabelBitTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
