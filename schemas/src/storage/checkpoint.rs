//! Leaves actions out of a checkpoint of a Delta log that no reader needs.
//!
//! deltalake writes a checkpoint as one Parquet file with every action that is valid at its version. Two kinds of
//! actions would accumulate there although no reader of the store needs them, and every reader would decode them each
//! time:
//!
//! | action | left out | why that is safe |
//! |---|---|---|
//! | `txn` | app ids that begin with `vaplan-` | Older programs wrote one per commit and never read one back. Commits now carry the one id [`APP_ID`]. |
//! | `remove` | files that the table still has, with another deletion vector | The `add` of the file says which rows are valid. Delta's VACUUM keeps the file because of the `add`. |
//! | `remove` | files that are no longer on the disk | A `remove` protects a file from being deleted too early, and these files are deleted. |
//!
//! A `remove` of a file that is on the disk stays, because a kept store version may need the file.
//!
//! [`Durable`](super::durable_objects::Durable) and [`Retrying`](super::retry::Retrying) call this module before they give a
//! checkpoint its name, so that no reader ever sees two different files of one name.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StructArray};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// The app id of every transaction that the store commits; the version of the transaction is the store version.
///
/// Delta keeps the last version of every app id in all later checkpoints. One id therefore costs one row, whatever the
/// number of commits.
pub(crate) const APP_ID: &str = "vaplan";
/// The prefix of the app ids of older programs; a hash of the inputs follows it.
const OLD_APP_IDS: &str = "vaplan-";

/// The name of the file that names the last checkpoint.
pub(super) const HINT: &str = "_last_checkpoint";

/// Returns whether this is the name of a checkpoint that consists of one file.
pub(super) fn is_checkpoint(name: &str) -> bool {
    name.ends_with(".checkpoint.parquet")
}

/// Returns a checkpoint without the actions that this module leaves out. `exists` says whether the folder of the table has
/// a file. Returns `None` if the bytes are not a checkpoint as deltalake writes it; such bytes must stay as they are.
pub(super) fn trimmed(bytes: Bytes, exists: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .ok()?
        .build()
        .ok()?;
    let schema = arrow::array::RecordBatchReader::schema(&reader);
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().ok()?;
    let all = concat_batches(&schema, &batches).ok()?;
    let live: BTreeSet<String> = texts(&all, "add", "path")?.into_iter().flatten().collect();
    let needed = |path: &Option<String>| match path {
        Some(path) => !live.contains(path) && exists(path),
        None => true,
    };
    let removes = texts(&all, "remove", "path")?;
    let apps = texts(&all, "txn", "appId")?;
    let kept: BooleanArray = removes
        .iter()
        .zip(&apps)
        .map(|(path, app)| {
            let old = app.as_ref().is_some_and(|app| app.starts_with(OLD_APP_IDS));
            Some(needed(path) && !old)
        })
        .collect();
    let kept = filter_record_batch(&all, &kept).ok()?;
    // A table has few actions and many columns, so statistics and dictionaries of single values would be most of the
    // file.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false)
        .build();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options).ok()?;
    writer.write(&kept).ok()?;
    writer.into_inner().ok()
}

/// The name of the checkpoint that the text of `_last_checkpoint` names, if the checkpoint is one file.
pub(super) fn named(text: &[u8]) -> Option<String> {
    let hint: serde_json::Value = serde_json::from_slice(text).ok()?;
    Some(format!(
        "{:020}.checkpoint.parquet",
        hint.get("version")?.as_u64()?
    ))
}

/// Returns `_last_checkpoint` with the number of actions and the size that the checkpoint has after trimming. `bytes` are
/// those of the checkpoint. Returns `None` if the text or the checkpoint does not decode.
pub(super) fn hint(text: &[u8], bytes: &Bytes) -> Option<Vec<u8>> {
    let mut hint: serde_json::Value = serde_json::from_slice(text).ok()?;
    let size = bytes.len();
    let footer = ArrowReaderMetadata::load(bytes, Default::default()).ok()?;
    let fields = hint.as_object_mut()?;
    fields.insert(
        "size".to_owned(),
        footer.metadata().file_metadata().num_rows().into(),
    );
    if fields.contains_key("sizeInBytes") {
        fields.insert("sizeInBytes".to_owned(), size.into());
    }
    // The checksum was that of the old text.
    fields.remove("checksum");
    serde_json::to_vec(&hint).ok()
}

/// The text `field` of each action of one kind; `None` for actions of other kinds.
fn texts(actions: &RecordBatch, kind: &str, field: &str) -> Option<Vec<Option<String>>> {
    let kind: &StructArray = actions.column_by_name(kind)?.as_struct_opt()?;
    let text = cast(kind.column_by_name(field)?, &DataType::Utf8).ok()?;
    let text = text.as_string_opt::<i32>()?;
    let text = |row: usize| (kind.is_valid(row) && text.is_valid(row)).then(|| text.value(row).to_owned());
    Some((0..actions.num_rows()).map(text).collect())
}
