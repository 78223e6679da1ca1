use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, names};
use super::{Table, text};
use crate::error::TableError;
use crate::rows::CandidateRow;

/// The `candidates` table: features that were read, but do not count. They can count later, when the features that
/// count now are removed.
///
/// Key: all columns. One row per video, modality and file; sorted by key within a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Candidates;

impl Table for Candidates {
    type Row = CandidateRow;
    const NAME: &'static str = "candidates";
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("source", text(), false), // file of the features
        ]))
    }

    fn encode(rows: &[CandidateRow]) -> RecordBatch {
        let (mut video, mut source) = (TextBuilder::default(), TextBuilder::default());
        for row in rows {
            video.push(&row.video);
            source.push(&row.source);
        }
        let modality = names(rows.iter().map(|row| (row.modality.as_str(), 1)));
        batch(Self::schema(), vec![video.finish(), modality, source.finish()])
    }

    fn compare(a: &CandidateRow, b: &CandidateRow) -> Ordering {
        a.cmp(b)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<CandidateRow>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let source = columns.required_text("source")?;
        (0..batch.num_rows())
            .map(|row| {
                Ok(CandidateRow {
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    source: source.expect(row).clone(),
                })
            })
            .collect()
    }

    fn video(row: &CandidateRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}
