//! A copy of what the log of a table says: the file `_vaplan/logs/<table>.json` beside the tables.
//!
//! To read a log, a process opens the last checkpoint and up to 64 entries after it. A change of one label needs the logs of
//! ten tables, and that was most of its time. The copy is one file, and a process reads it instead.
//!
//! The log alone decides. A copy counts only if it is of the wanted version, and if the entry of this version is the file that
//! the copy was made from: it has the same hash. An entry has its time and the hashes of its files, so two histories do not
//! end in the same entry. Whoever reads or writes the last version of a log leaves a copy. A copy
//! that is missing, damaged or cannot be written is no error. `check` compares the copies with the logs.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::deleted::Deleted;
use super::delta::{DeltaFolder, Known};
use super::logged::LoggedFile;
use crate::error::StoreError;
use crate::storage::{Storage, entry_key};

/// The folder of the copies.
const FOLDER: &str = "_vaplan/logs";
/// Raise it with each change of [`Copied`]. Copies of other programs do not count.
const LAYOUT: &str = concat!(env!("CARGO_PKG_VERSION"), ", 1");

/// What a copy says. It counts only if the log has the entry that the copy was made from.
pub(super) struct CopiedLog {
    pub(super) known: Known,
    /// Hash of the bytes of the entry.
    entry: u64,
}

#[derive(Serialize, Deserialize)]
struct Copied {
    layout: String,
    version: u64,
    /// Hash of the bytes of the entry of this version.
    entry: u64,
    vectors: bool,
    columns: Vec<String>,
    refused: Option<String>,
    files: Vec<CopiedFile>,
}

#[derive(Serialize, Deserialize)]
struct CopiedFile {
    name: String,
    bytes: u64,
    rows: u64,
    /// The text and the number of rows of the deletion vector.
    deleted: Option<(String, u64)>,
    stats: Option<String>,
}

/// The key of the copy of the log of a table.
pub(super) fn key(table: &str) -> String {
    format!("{FOLDER}/{table}.json")
}

/// The copy of the log of a table, if there is one. The caller must look whether the copy counts ([`CopiedLog::checked`]), and
/// whether the log has later entries.
pub(super) fn copied(storage: &Arc<dyn Storage>, table: &str) -> Result<Option<CopiedLog>, StoreError> {
    Ok(storage
        .get(&key(table))?
        .and_then(|text| CopiedLog::of_text(&text)))
}

impl CopiedLog {
    /// Reads the text of a copy; `None` if it is damaged or of another program.
    pub(super) fn of_text(bytes: &[u8]) -> Option<CopiedLog> {
        let (sum, text) = bytes.split_first_chunk()?;
        if u64::from_le_bytes(*sum) != XxHash3_64::oneshot(text) {
            return None;
        }
        let copied: Copied = serde_json::from_slice(text).ok()?;
        let entry = copied.entry;
        let known = (copied.layout == LAYOUT).then(|| known(copied))??;
        Some(CopiedLog { known, entry })
    }

    /// What the log says, if the copy was made from this entry.
    pub(super) fn checked(self, entry: &[u8]) -> Option<Known> {
        (self.entry == XxHash3_64::oneshot(entry)).then_some(self.known)
    }
}

/// Reads what the log of a table says at `version`. `None` if there is no such copy.
pub(super) fn read(folder: &DeltaFolder, version: u64) -> Result<Option<Known>, StoreError> {
    let keys = [key(&folder.table), entry_key(&folder.table, version)];
    let mut found = folder.storage.get_all(&keys)?.into_iter();
    let (Some(Some(text)), Some(Some(entry))) = (found.next(), found.next()) else {
        return Ok(None);
    };
    let copied = CopiedLog::of_text(&text).filter(|copied| copied.known.version == version);
    Ok(copied.and_then(|copied| copied.checked(&entry)))
}

fn known(copied: Copied) -> Option<Known> {
    let files = copied.files.into_iter().map(|file| {
        let deleted = match file.deleted {
            Some((text, rows)) => Some(Deleted::of_text(&text, rows).ok()??),
            None => None,
        };
        let logged = LoggedFile {
            name: file.name.clone(),
            bytes: file.bytes,
            rows: file.rows,
            deleted,
            stats: file.stats,
        };
        Some((file.name, logged))
    });
    Some(Known {
        version: copied.version,
        files: Arc::new(files.collect::<Option<_>>()?),
        vectors: copied.vectors,
        columns: copied.columns.into(),
        refused: copied.refused,
    })
}

/// Leaves a copy of `known`. `entry` has the bytes of the entry of its version.
pub(super) fn write(folder: &DeltaFolder, known: &Known, entry: &[u8]) {
    if let Err(error) = folder.storage.put_copy(&key(&folder.table), text(known, entry)) {
        // A disk that is full or read-only: the next process reads the log.
        tracing::debug!(table = folder.table, %error, "no copy of the log");
    }
}

/// The text of a copy of `known`. `entry` has the bytes of the entry of its version.
pub(super) fn text(known: &Known, entry: &[u8]) -> Bytes {
    let file = |file: &LoggedFile| CopiedFile {
        name: file.name.clone(),
        bytes: file.bytes,
        rows: file.rows,
        deleted: file
            .deleted
            .as_ref()
            .map(|deleted| (deleted.text(), deleted.len())),
        stats: file.logged_stats(),
    };
    let copied = Copied {
        layout: LAYOUT.to_owned(),
        version: known.version,
        entry: XxHash3_64::oneshot(entry),
        vectors: known.vectors,
        columns: known.columns.to_vec(),
        refused: known.refused.clone(),
        files: known.files.values().map(file).collect(),
    };
    let text = serde_json::to_vec(&copied).expect("texts and numbers are JSON");
    // A copy that a crash cut does not have its checksum.
    [&XxHash3_64::oneshot(&text).to_le_bytes()[..], &text]
        .concat()
        .into()
}
