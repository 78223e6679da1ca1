//! Makes the text of one entry of a Delta log, without writing it.
//!
//! deltalake formats the text ([`CommitData`]). The store writes the text itself, so that it can sync the entries of
//! all tables together and need not read a log again to write to it.

use arrow::datatypes::SchemaRef;
use deltalake::DeltaTableError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{
    Action, EagerSnapshot, Metadata, MetadataExt, Protocol, StructField, StructType, Transaction,
    new_metadata,
};
use deltalake::protocol::{DeltaOperation, SaveMode};
use serde_json::json;
use url::Url;

use super::logged::{LoggedFile, LoggedFiles};
use crate::storage::APP_ID;
use crate::tables;

const FEATURE: &str = "deletionVectors";
const PROPERTY: &str = "delta.enableDeletionVectors";

/// The store version and command that an entry records.
pub(super) struct Stamp<'a> {
    pub(super) version: u64,
    pub(super) command: &'a str,
    /// A text that no other commit has. In an object store a writer tells its own entry from that of another by it, if the
    /// response of a put was lost.
    pub(super) writer: Option<&'a str>,
    /// Whether the log of a table without deletion vectors shall no longer allow them.
    pub(super) plain_reader: bool,
    /// Whether rows change. `false` if the entry only moves rows to other files.
    pub(super) data_change: bool,
}

/// The first entry of a table, with these files.
pub(super) fn create(
    table: &str,
    location: Url,
    schema: &SchemaRef,
    files: &LoggedFiles,
    stamp: &Stamp<'_>,
) -> Result<Vec<u8>, DeltaTableError> {
    let columns = columns_of(schema)?;
    // Time travel reads old log entries, so deltalake must not delete them.
    let keep = [("delta.enableExpiredLogCleanup", "false")];
    let mut metadata = new_metadata(&columns, Vec::<String>::new(), keep)?.with_name(table.to_owned())?;
    let mut protocol = plain_protocol()?;
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

/// The entry that changes the files `found` to `wanted`, or `None` if they are the same.
///
/// `say` has the actions that must come first in the entry: see [`say`].
pub(super) fn change(
    found: &LoggedFiles,
    wanted: &LoggedFiles,
    stamp: &Stamp<'_>,
    say: Vec<Action>,
) -> Result<Option<Vec<u8>>, DeltaTableError> {
    // The deleted rows belong to a file in the log. If they change, the entry removes the file and adds it again.
    let same = |file: &LoggedFile, files: &LoggedFiles| {
        let other = files.get(&file.name);
        other.is_some_and(|other| other.deleted == file.deleted)
    };
    let gone: Vec<&LoggedFile> = found.values().filter(|file| !same(file, wanted)).collect();
    let new: Vec<&LoggedFile> = wanted.values().filter(|file| !same(file, found)).collect();
    if gone.is_empty() && new.is_empty() && say.is_empty() {
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
    let mut note = json!({ "version": stamp.version, "command": stamp.command });
    if let Some(writer) = stamp.writer {
        note["writer"] = writer.into();
    }
    let transaction = Transaction::new(APP_ID, i64::try_from(stamp.version).unwrap_or(i64::MAX));
    let metadata = [("vaplan".to_owned(), note)].into();
    let data = CommitData::new(actions, operation, metadata, vec![transaction]);
    Ok(data.get_bytes()?.to_vec())
}

/// Returns whether the log of a table allows deletion vectors.
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

/// The actions that a log needs before it can name new files: the new schema, if the files have columns that the log
/// does not have, and, with `vectors`, the permission for deletion vectors. Returns no actions if the log already has
/// them. Columns that a file does not have are null.
///
/// Deletion vectors need reader version 3 and writer version 7 of Delta's protocol with the feature
/// `deletionVectors`, and the table property that lets writers make vectors. A table without any deletion vector
/// stays readable by readers that do not support them.
pub(super) fn say(
    snapshot: &EagerSnapshot,
    schema: &SchemaRef,
    vectors: bool,
) -> Result<Vec<Action>, DeltaTableError> {
    let mut actions = Vec::new();
    let mut metadata = snapshot.metadata().clone();
    let columns = with_former(columns_of(schema)?, &snapshot.schema())?;
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

/// The actions after which a log asks for reader version 1, which every reader has. The table must have no deletion vector.
/// Returns no actions if the log never allowed deletion vectors, or needs a feature of another program.
pub(super) fn forbid_vectors(snapshot: &EagerSnapshot) -> Result<Vec<Action>, DeltaTableError> {
    let protocol = snapshot.protocol();
    let only_vectors = listed(protocol.reader_features())
        .iter()
        .all(|feature| feature == FEATURE);
    if protocol.min_reader_version() <= 1 || !only_vectors {
        return Ok(Vec::new());
    }
    let mut actions = vec![Action::Protocol(plain_protocol()?)];
    if has_property(snapshot.metadata()) {
        let metadata = snapshot.metadata().clone().remove_config_key(PROPERTY)?;
        actions.push(Action::Metadata(metadata));
    }
    Ok(actions)
}

/// The protocol of a table that every reader opens.
fn plain_protocol() -> Result<Protocol, DeltaTableError> {
    let versions = json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
    Ok(serde_json::from_value(versions)?)
}

/// The current columns, followed by the nullable columns that only the log has. Files of an older program hold values
/// in those columns; other readers would no longer find these values if the log did not name the columns.
///
/// If the log has a column without nulls that is no longer there, the table changed its layout. The commit then writes
/// every file anew, so no file holds a former column.
fn with_former(columns: StructType, logged: &StructType) -> Result<StructType, DeltaTableError> {
    let mut fields: Vec<StructField> = columns.fields().cloned().collect();
    let former = logged
        .fields()
        .filter(|field| columns.field(field.name()).is_none());
    let former: Vec<&StructField> = former.collect();
    if former.iter().all(|field| field.is_nullable()) {
        fields.extend(former.into_iter().cloned());
    }
    Ok(StructType::try_new(fields)?)
}

/// The protocol with the given features and deletion vectors.
fn with_vectors(reader: &[String], writer: &[String]) -> Result<Protocol, DeltaTableError> {
    // Writer version 2 implied two features, and version 7 must name them. Our tables use neither, and deltalake
    // knows only this one.
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
