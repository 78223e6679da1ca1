//! A copy of what the log of a table says, in `_vaplan/logs/<table>.json`.
//!
//! To read a log, a process opens the last checkpoint and up to 64 entries after it. A change of one label needs the logs of
//! ten tables, and that was most of its time. The copy is one file, and a process reads it instead.
//!
//! The log alone decides. A copy counts only if it is of the wanted version, and if the entry of this version is the file that
//! the copy was made from: it has the same hash. An entry has its time and the hashes of its files, so two histories do not
//! end in the same entry. Whoever reads or writes the last version of a log leaves a copy. A copy
//! that is missing, damaged or cannot be written is no error. `check` compares the copies with the logs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::deleted::Deleted;
use super::delta::Known;
use super::logged::LoggedFile;

/// The folder of the copies, in the store's folder.
const FOLDER: &str = "_vaplan/logs";
/// Raise it with each change of [`Copied`]. Copies of other programs do not count.
const LAYOUT: &str = concat!(env!("CARGO_PKG_VERSION"), ", 1");

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

/// The file of the copy of the log of `table`, a folder of the store.
pub(super) fn path(table: &Path) -> Option<PathBuf> {
    let name = table.file_name()?.to_str()?;
    Some(table.parent()?.join(FOLDER).join(format!("{name}.json")))
}

/// Reads what the log of `table` says at `version`, whose entry is the file `entry`. `None` if there is no such copy.
pub(super) fn read(table: &Path, version: u64, entry: &Path) -> Option<Known> {
    let text = std::fs::read(path(table)?).ok()?;
    let (sum, text) = text.split_first_chunk()?;
    if u64::from_le_bytes(*sum) != XxHash3_64::oneshot(text) {
        return None;
    }
    let copied: Copied = serde_json::from_slice(text).ok()?;
    let same = copied.layout == LAYOUT && copied.version == version;
    if !same || copied.entry != XxHash3_64::oneshot(&std::fs::read(entry).ok()?) {
        return None;
    }
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
        version,
        files: Arc::new(files.collect::<Option<_>>()?),
        vectors: copied.vectors,
        columns: copied.columns.into(),
        refused: copied.refused,
    })
}

/// Leaves a copy of `known`. `entry` has the bytes of the entry of its version.
pub(super) fn write(table: &Path, known: &Known, entry: &[u8]) {
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
    let written = path(table).map(|path| replace(&path, &text));
    if let Some(Err(error)) = written {
        // A disk that is full or read-only: the next process reads the log.
        tracing::debug!(table = %table.display(), %error, "no copy of the log");
    }
}

fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Not synced: a copy that a crash cut does not have its checksum.
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(&XxHash3_64::oneshot(text).to_le_bytes())?;
    beside.write_all(text)?;
    beside.persist(path)?;
    Ok(())
}
