//! One file per table: its schema, its order on disk, and checked reading.
//!
//! Text columns on disk are plain UTF-8, dictionary-encoded by Parquet, so that every reader of Delta tables
//! understands them. In batches, text columns are arrow dictionaries. Delta has no unsigned numbers, so columns of
//! counts are signed, and reading them checks that no value is negative.
//!
//! A track is all segments of one video, modality and class. `scores` and `labels` have one row per track, with a list of
//! one value per segment in each column that depends on the segment. `label_changes` has one row for the segments of a
//! track that change together. `predictions` has one row per segment; in memory, all segments of one epoch, video and
//! modality are one [`PredictionTrack`](crate::rows::PredictionTrack).

mod by_segment;
mod candidates;
mod classes;
pub(crate) mod columns;
mod epochs;
mod label_bits;
mod label_changes;
mod label_columns;
mod labels;
mod lists;
mod predictions;
mod prompts;
mod rejects;
mod scores;
mod settings;
mod truth;
mod user_labels;
mod verdicts;
mod versions;
mod video_predictions;
mod videos;
pub(crate) mod why;

use std::cmp::Ordering;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use candidates::Candidates;
pub use classes::Classes;
pub use epochs::Epochs;
pub use label_bits::LabelBits;
pub use label_changes::LabelChanges;
pub use label_columns::{GeneratedLabels, LabelColumns};
pub use labels::Labels;
pub use predictions::Predictions;
pub use prompts::Prompts;
pub use rejects::Rejects;
pub use scores::Scores;
pub use settings::Settings;
pub use truth::Truth;
pub use user_labels::UserLabels;
pub use verdicts::Verdicts;
pub use versions::Versions;
pub use video_predictions::VideoPredictions;
pub use videos::Videos;

use crate::error::TableError;

/// A table of the store.
pub trait Table {
    /// The type of a row in memory: one row, or all rows of a track.
    type Row: Clone + Debug + PartialEq + Send + Sync;

    /// The name of the table and of its folder.
    const NAME: &'static str;

    /// Whether the table is divided into buckets by the hash of the video. Buckets are replaced one by one.
    const BUCKETED: bool;

    /// A column that only files of programs before the current layout have. The first commit that touches a table with
    /// such files writes the whole table anew. `None` if the layout never changed.
    const FORMER: Option<&str> = None;

    /// The columns that a reader of this type needs. `None`: all.
    const COLUMNS: Option<&'static [&'static str]> = None;

    /// The schema of the table's batches.
    fn schema() -> SchemaRef;

    /// Encodes rows into a batch, in the given order.
    fn encode(rows: &[Self::Row]) -> RecordBatch;

    /// Decodes a batch into rows. The end of the batch must not cut a track.
    ///
    /// # Errors
    /// Returns [`TableError`] if a column is missing or has another type, or if a column does not allow a value.
    fn decode(batch: &RecordBatch) -> Result<Vec<Self::Row>, TableError>;

    /// Compares the keys of two rows. `Equal` means that the rows have the same key.
    fn compare(a: &Self::Row, b: &Self::Row) -> Ordering;

    /// The number of rows on disk: 1, or the number of segments for a [`PredictionTrack`](crate::rows::PredictionTrack).
    fn height(_row: &Self::Row) -> usize {
        1
    }

    /// The schema of the layout before, if there is one.
    fn former_schema() -> SchemaRef {
        Self::schema()
    }

    /// Whether a file with these columns was written by a program before the current layout of the table.
    fn is_former(schema: &Schema) -> bool {
        Self::FORMER.is_some_and(|column| schema.column_with_name(column).is_some())
    }

    /// Like [`Table::height`], in a file for which [`Table::is_former`] holds.
    fn former_height(row: &Self::Row) -> usize {
        Self::height(row)
    }

    /// The number of labels whose change a row of `label_changes` records; 0 for other tables.
    fn changed_labels(_row: &Self::Row) -> u64 {
        0
    }

    /// The video of a row, if the rows of the table have one.
    fn video(_row: &Self::Row) -> Option<&Arc<str>> {
        None
    }
}

/// Work that is done for a table, whatever its row type is.
pub(crate) trait ForTable {
    /// The result of the work.
    type Out;

    /// Does the work for table `T`.
    fn table<T: Table>(&mut self) -> Self::Out;
}

/// Does the work for all tables that a store version names: all tables but `versions`.
pub(crate) fn each<W: ForTable>(work: &mut W) -> Vec<W::Out> {
    vec![
        work.table::<Settings>(),
        work.table::<Classes>(),
        work.table::<Prompts>(),
        work.table::<Videos>(),
        work.table::<Candidates>(),
        work.table::<Truth>(),
        work.table::<UserLabels>(),
        work.table::<Verdicts>(),
        work.table::<Scores>(),
        work.table::<Labels>(),
        work.table::<LabelChanges>(),
        work.table::<Predictions>(),
        work.table::<VideoPredictions>(),
        work.table::<Epochs>(),
        work.table::<Rejects>(),
    ]
}

/// The names and schemas of all tables that a store version names: all tables but `versions`.
pub fn all() -> Vec<(&'static str, SchemaRef)> {
    struct Names;
    impl ForTable for Names {
        type Out = (&'static str, SchemaRef);

        fn table<T: Table>(&mut self) -> Self::Out {
            (T::NAME, T::schema())
        }
    }
    each(&mut Names)
}

/// The schema of a table in files, as other readers see it. Only batches in memory have dictionary types.
pub fn plain(schema: &SchemaRef) -> Schema {
    fn plain(field: &Field) -> Field {
        let data_type = match field.data_type() {
            DataType::Dictionary(_, value) => (**value).clone(),
            DataType::List(values) => DataType::List(Arc::new(plain(values))),
            other => other.clone(),
        };
        Field::new(field.name(), data_type, field.is_nullable())
    }
    Schema::new(
        schema
            .fields()
            .iter()
            .map(|field| plain(field))
            .collect::<Vec<_>>(),
    )
}

/// The type of a text column in a batch.
fn text() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}
