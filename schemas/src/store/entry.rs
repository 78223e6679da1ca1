//! One entry of a Delta log, made but not yet written.
//!
//! Its text is deltalake's ([`CommitData`]); the store writes it itself, so that the entries of all tables wait for the
//! disk together, and no log is read again for it.

use arrow::datatypes::SchemaRef;
use deltalake::DeltaTableError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{
    Action, EagerSnapshot, Metadata, MetadataExt, Protocol, StructType, Transaction, new_metadata,
};
use deltalake::protocol::{DeltaOperation, SaveMode};
use serde_json::json;
use url::Url;

use super::checkpoint::APP_ID;
use super::logged::{LoggedFile, LoggedFiles};
use crate::tables;

const FEATURE: &str = "deletionVectors";
const PROPERTY: &str = "delta.enableDeletionVectors";

/// Who commits, and for which store version.
pub(super) struct Stamp<'a> {
    pub(super) version: u64,
    pub(super) command: &'a str,
    /// Do rows change, or only where they lie?
    pub(super) data_change: bool,
}

/// The first entry of a table that is to have these files.
pub(super) fn create(
    table: &str,
    location: Url,
    schema: &SchemaRef,
    files: &LoggedFiles,
    stamp: &Stamp<'_>,
) -> Result<Vec<u8>, DeltaTableError> {
    let columns = columns_of(schema)?;
    // Old log entries are what time travel reads.
    let keep = [("delta.enableExpiredLogCleanup", "false")];
    let mut metadata = new_metadata(&columns, Vec::<String>::new(), keep)?.with_name(table.to_owned())?;
    let mut protocol: Protocol =
        serde_json::from_value(json!({ "minReaderVersion": 1, "minWriterVersion": 2 }))?;
    if files.values().any(|file| file.deleted.is_some()) {
        protocol = with_vectors(&[], &[])?;
        metadata = metadata.add_config_key(PROPERTY.to_owned(), "true".to_owned())?;
    }
    let operation = DeltaOperation::Create {
        mode: SaveMode::ErrorIfExists,
        location,
        protocol: protocol.clone(),
        metadata: metadata.clone(),
    };
    let mut actions = vec![Action::Protocol(protocol), Action::Metadata(metadata)];
    let now = chrono::Utc::now().timestamp_millis();
    actions.extend(files.values().map(|file| Action::Add(file.add(now))));
    text(actions, operation, stamp)
}

fn columns_of(schema: &SchemaRef) -> Result<StructType, DeltaTableError> {
    let columns = (&tables::plain(schema)).try_into_kernel();
    columns.map_err(DeltaTableError::from)
}

/// The entry that makes `wanted` of the files `found`; none where they are the same.
///
/// `say` is what its files ask the log to say first: see [`say`].
pub(super) fn change(
    found: &LoggedFiles,
    wanted: &LoggedFiles,
    stamp: &Stamp<'_>,
    say: Vec<Action>,
) -> Result<Option<Vec<u8>>, DeltaTableError> {
    // Which rows of a file are gone belongs to it: where that changes, the file goes and comes again.
    let same = |file: &LoggedFile, files: &LoggedFiles| {
        let other = files.get(&file.name);
        other.is_some_and(|other| other.deleted == file.deleted)
    };
    let gone: Vec<&LoggedFile> = found.values().filter(|file| !same(file, wanted)).collect();
    let new: Vec<&LoggedFile> = wanted.values().filter(|file| !same(file, found)).collect();
    if gone.is_empty() && new.is_empty() {
        return Ok(None);
    }
    let mut actions = say;
    let now = chrono::Utc::now().timestamp_millis();
    for file in gone {
        let mut remove = file.remove(now);
        remove.data_change = stamp.data_change;
        actions.push(Action::Remove(remove));
    }
    for file in new {
        let mut add = file.add(now);
        add.data_change = stamp.data_change;
        actions.push(Action::Add(add));
    }
    let operation = DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    };
    text(actions, operation, stamp).map(Some)
}

fn text(
    actions: Vec<Action>,
    operation: DeltaOperation,
    stamp: &Stamp<'_>,
) -> Result<Vec<u8>, DeltaTableError> {
    let note = json!({ "version": stamp.version, "command": stamp.command });
    let transaction = Transaction::new(APP_ID, i64::try_from(stamp.version).unwrap_or(i64::MAX));
    let metadata = [("vaplan".to_owned(), note)].into();
    let data = CommitData::new(actions, operation, metadata, vec![transaction]);
    Ok(data.get_bytes()?.to_vec())
}

/// Does the table's log allow deletion vectors?
pub(super) fn allows_vectors(snapshot: &EagerSnapshot) -> bool {
    let features = listed(snapshot.protocol().reader_features());
    features.iter().any(|feature| feature == FEATURE) && has_property(snapshot.metadata())
}

fn listed<F: AsRef<str>>(features: Option<&[F]>) -> Vec<String> {
    let features = features.unwrap_or_default().iter();
    features.map(|feature| feature.as_ref().to_owned()).collect()
}

fn has_property(metadata: &Metadata) -> bool {
    metadata.configuration().get(PROPERTY).map(String::as_str) == Some("true")
}

/// What a table's log must say before files with columns that it does not have yet, which are null in the files of
/// before, and, with `vectors`, before its first deletion vector; nothing where all is said.
///
/// Delta's protocol: reader 3 and writer 7 with the feature `deletionVectors`, and the property that lets writers
/// make vectors. A table that never had one stays readable by readers that know no vectors.
pub(super) fn say(
    snapshot: &EagerSnapshot,
    schema: &SchemaRef,
    vectors: bool,
) -> Result<Vec<Action>, DeltaTableError> {
    let mut actions = Vec::new();
    let mut metadata = snapshot.metadata().clone();
    let columns = columns_of(schema)?;
    if *snapshot.schema() != columns {
        metadata = metadata.with_schema(&columns)?;
    }
    let protocol = snapshot.protocol();
    let (reader, writer) = (
        listed(protocol.reader_features()),
        listed(protocol.writer_features()),
    );
    if vectors && !reader.iter().any(|feature| feature == FEATURE) {
        actions.push(Action::Protocol(with_vectors(&reader, &writer)?));
    }
    if vectors && !has_property(&metadata) {
        metadata = metadata.add_config_key(PROPERTY.to_owned(), "true".to_owned())?;
    }
    if metadata != *snapshot.metadata() {
        actions.push(Action::Metadata(metadata));
    }
    Ok(actions)
}

/// The protocol with these features and deletion vectors.
fn with_vectors(reader: &[String], writer: &[String]) -> Result<Protocol, DeltaTableError> {
    // What writer version 2 stood for; of its two features our tables use neither, and deltalake knows this one.
    let mut writer = writer.to_vec();
    for feature in ["appendOnly", FEATURE] {
        if !writer.iter().any(|known| known == feature) {
            writer.push(feature.to_owned());
        }
    }
    let reader: Vec<&str> = reader.iter().map(String::as_str).chain([FEATURE]).collect();
    Ok(serde_json::from_value(json!({
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": reader,
        "writerFeatures": writer,
    }))?)
}
