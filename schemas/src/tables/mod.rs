//! One file per table: its schema, its order on disk, and checked reading.
//!
//! On disk text is plain UTF-8, dictionary-encoded by Parquet, so that every reader of Delta tables understands it;
//! in batches it is an arrow dictionary. Delta has no unsigned numbers: a column that counts is signed and checked.

mod candidates;
mod classes;
pub(crate) mod columns;
mod epochs;
mod label_changes;
mod labels;
mod predictions;
mod prompts;
mod rejects;
mod scores;
mod settings;
mod truth;
mod user_labels;
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
pub use label_changes::LabelChanges;
pub use labels::Labels;
pub use predictions::Predictions;
pub use prompts::Prompts;
pub use rejects::Rejects;
pub use scores::Scores;
pub use settings::Settings;
pub use truth::Truth;
pub use user_labels::UserLabels;
pub use versions::Versions;
pub use video_predictions::VideoPredictions;
pub use videos::Videos;

use crate::error::TableError;

/// A table of the store.
pub trait Table {
    /// What code holds: a row, or all rows of a track.
    type Row: Clone + Debug + PartialEq + Send + Sync;

    /// Name of the table and of its folder.
    const NAME: &'static str;

    /// Is it cut by the hash of the video into buckets that are replaced one by one?
    const BUCKETED: bool;

    /// Schema of its batches.
    fn schema() -> SchemaRef;

    /// Rows to a batch, in the order given.
    fn encode(rows: &[Self::Row]) -> RecordBatch;

    /// A batch to rows; a track must not be cut by the end of the batch.
    ///
    /// # Errors
    /// [`TableError`]: a column that is missing or of another type, or a value that its column does not allow.
    fn decode(batch: &RecordBatch) -> Result<Vec<Self::Row>, TableError>;

    /// Order of the table's key; equal: the same key.
    fn compare(a: &Self::Row, b: &Self::Row) -> Ordering;

    /// How many rows on disk it takes: a track has one per segment.
    fn height(_row: &Self::Row) -> usize {
        1
    }

    /// The video of a row, where rows have one.
    fn video(_row: &Self::Row) -> Option<&Arc<str>> {
        None
    }
}

/// Something that is done for a table, whatever its rows are.
pub(crate) trait ForTable {
    /// What comes of it.
    type Out;

    /// Does it.
    fn table<T: Table>(&mut self) -> Self::Out;
}

/// Does it for all tables but `versions`: what a store version is made of.
pub(crate) fn each<W: ForTable>(work: &mut W) -> Vec<W::Out> {
    vec![
        work.table::<Settings>(),
        work.table::<Classes>(),
        work.table::<Prompts>(),
        work.table::<Videos>(),
        work.table::<Candidates>(),
        work.table::<Truth>(),
        work.table::<UserLabels>(),
        work.table::<Scores>(),
        work.table::<Labels>(),
        work.table::<LabelChanges>(),
        work.table::<Predictions>(),
        work.table::<VideoPredictions>(),
        work.table::<Epochs>(),
        work.table::<Rejects>(),
    ]
}

/// Names of all tables but `versions`, with the schema of each: what a store version is made of.
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

/// A schema as files have it and others read it: dictionaries are a matter of batches.
pub fn plain(schema: &SchemaRef) -> Schema {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, value) => Field::new(field.name(), (**value).clone(), field.is_nullable()),
        _ => field.as_ref().clone(),
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

/// Text in a batch.
fn text() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}
