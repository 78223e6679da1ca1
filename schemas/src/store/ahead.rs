//! Opens a store to change it, in few rounds of requests. A round is a set of requests that are made together; each round waits
//! for the round before it. In an object store, a request takes longer than a small change takes to compute.
//!
//! ```text
//! round 1   list the lease ‖ get the copies of all logs ‖ get the mark of `vacuum`
//! round 2   put the lease ‖ get the entry of each copy, and the entry after it ‖ get the last file of `versions` ‖ get small files
//!           ‖ get the files of the rows that the caller will scan
//! ```
//!
//! Round 2 reads the last version while it takes the lease. The version is the last one nevertheless. The list of round 1 says that
//! the last writer gave the lease back, and a writer commits before it gives the lease back. The put of round 2 succeeds only if no
//! other process took the lease since that list. So every commit of another writer ended before round 2 began. In any other case
//! this process reads the version again when it has the lease. As always, the conditional put of the entry of `versions` decides
//! who commits.
//!
//! The copies of round 1 name the data files, although only round 2 tells whether the copies are those of the last version. The name
//! of a data file has the hash of its content, so a file that was read ahead has the right bytes for every version that names the
//! file. If another version is the last one, the bytes are dropped. If another process holds the lease, its commit would make them
//! useless, so no rows are read ahead.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::data_file::{DataFile, HeldFiles};
use super::log_copy::{self, CopiedLog};
use super::vacuum::{Mark, mark_key};
use super::{RowsAhead, Snapshot, Store, WriteLock, snapshot};
use crate::error::StoreError;
use crate::ids::StoreVersion;
use crate::storage::{AT_ONCE, LeaseLook, StoreUrl, entry_key};
use crate::tables::{self, Table, Versions};

/// The requests beside the reading of files that a round leaves room for: the lease and its renewal.
const SPARE: usize = 8;

/// The ends of all logs, as this process found them when it took the lease. A commit that follows them lists no log.
#[derive(Debug)]
pub(super) struct LogEnds {
    /// The Delta version of `versions` that has the row of the snapshot.
    pub(super) versions: u64,
    /// The last Delta version of each other table whose end is known; `None` if there is no log.
    tables: BTreeMap<&'static str, Option<u64>>,
}

impl LogEnds {
    /// The last Delta version in the log of a table, if it is known; `Some(None)` if there is no log.
    pub(super) fn of(&self, table: &str) -> Option<Option<u64>> {
        self.tables.get(table).copied()
    }
}

/// The copies of the logs, by table, and the text of the mark of `vacuum`.
struct FirstLook {
    copies: BTreeMap<&'static str, CopiedLog>,
    mark: Option<Bytes>,
}

impl Store {
    /// Opens an existing store, takes its write lock and opens its last version. Of a store at a URL, this needs fewer
    /// requests than [`Store::open`], [`Store::lock`] and [`Store::at_version`] one after the other. The files of `rows` are read
    /// meanwhile if the store is at a URL.
    ///
    /// # Errors
    /// Returns the errors of these functions.
    pub fn open_to_write(
        root: &Path,
        rows: &RowsAhead,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<(Store, WriteLock, Snapshot), StoreError> {
        if StoreUrl::parse(root)?.is_some()
            && let Some(opened) = open_ahead(root, rows, on_wait)?
        {
            return Ok(opened);
        }
        let store = Store::open(root)?;
        let lock = store.lock(on_wait)?;
        let snapshot = store.at_version(None)?;
        Ok((store, lock, snapshot))
    }

    /// Reads the copies of all logs; `None` if `versions` has none, as in a new store.
    fn first_look(&self) -> Result<Option<FirstLook>, StoreError> {
        let tables = all_tables();
        let mut keys: Vec<String> = tables.iter().map(|table| log_copy::key(table)).collect();
        keys.push(mark_key());
        let mut found = self.storage.get_all(&keys)?;
        let mark = found.pop().flatten();
        let copied =
            |(table, text): (&'static str, Option<Bytes>)| Some((table, CopiedLog::of_text(&text?)?));
        let copies: BTreeMap<_, _> = tables.into_iter().zip(found).filter_map(copied).collect();
        Ok(copies
            .contains_key(Versions::NAME)
            .then_some(FirstLook { copies, mark }))
    }

    /// Opens the last version, and reads the files of `rows`, if the copies of the logs tell the version; otherwise `None`.
    fn read_ahead(&self, first: FirstLook, rows: &RowsAhead) -> Result<Option<Snapshot>, StoreError> {
        let FirstLook { mut copies, mark } = first;
        let (tables, held) = (all_tables(), Arc::<HeldFiles>::default());
        let (mut keys, mut files) = (Vec::new(), Vec::new());
        let mut last = None;
        for table in &tables {
            let Some(copied) = copies.get(table) else {
                keys.push(entry_key(table, 0));
                continue;
            };
            let (version, folder) = (copied.known.version, self.folder(table));
            keys.extend([version, version + 1].map(|version| entry_key(table, version)));
            if *table == Versions::NAME {
                let newest = copied.known.files.values().next_back();
                last = newest.map(|file| folder.data_file(file).held_by(&held));
                files.extend(last.clone());
            } else {
                files.extend(snapshot::small_files(&folder, &copied.known.files, &held));
            }
        }
        let entries = keys.len();
        let most = AT_ONCE.saturating_sub(entries + files.len() + SPARE);
        files.extend(rows.files(most, &held, |table| {
            let copied = copies.get(table)?;
            Some((self.folder(table), &*copied.known.files))
        }));
        keys.extend(files.iter().filter_map(DataFile::key).map(str::to_owned));
        let mut found = self.storage.get_all(&keys)?;
        let read = keys[entries..].iter().cloned().zip(found.drain(entries..));
        held.insert(read.filter_map(|(key, bytes)| Some((key, bytes?))));

        let mut found = found.into_iter();
        let mut ends = BTreeMap::new();
        for table in tables {
            let entry = found.next().flatten();
            let Some(copied) = copies.remove(table) else {
                // A log begins with entry 0. An old log can lack this entry, but then a version names the table.
                if entry.is_none() {
                    ends.insert(table, None);
                }
                continue;
            };
            let next = found.next().flatten();
            if let Some(known) = entry.and_then(|entry| copied.checked(&entry)) {
                self.folder(table).keep(&known);
                if next.is_none() {
                    ends.insert(table, Some(known.version));
                }
            }
        }
        let (Some(Some(delta)), Some(last)) = (ends.remove(Versions::NAME), last) else {
            return Ok(None);
        };
        let rows = snapshot::decode::<Versions>(&last)?;
        let Some(row) = rows.into_iter().max_by_key(|row| row.version) else {
            return Ok(None);
        };
        if Mark::of_text(mark.as_deref(), self)?
            .check(StoreVersion(row.version))
            .is_err()
        {
            return Ok(None);
        }
        for (table, _) in &row.tables {
            if ends.get(table.as_str()) == Some(&None) {
                ends.remove(table.as_str());
            }
        }
        *self.last_row.lock().unwrap_or_else(PoisonError::into_inner) = Some((delta, row.clone()));
        let ends = LogEnds {
            versions: delta,
            tables: ends,
        };
        Ok(Some(Snapshot::to_write(self.clone(), row, held, ends)))
    }
}

/// Opens a store at a URL in two rounds; `None` if `versions` has no copy of its log.
fn open_ahead(
    root: &Path,
    rows: &RowsAhead,
    on_wait: &mut dyn FnMut(&str),
) -> Result<Option<(Store, WriteLock, Snapshot)>, StoreError> {
    let store = Store::at(root)?;
    let (look, first) = std::thread::scope(|scope| {
        let first = scope.spawn(|| store.first_look());
        (store.storage.look_at_lease(), joined(first))
    });
    let Some(first) = first? else { return Ok(None) };
    let look = look?;
    let none = RowsAhead::default();
    let rows = match look.as_ref().is_some_and(LeaseLook::is_given_back) {
        true => rows,
        false => &none,
    };
    let (lock, read) = std::thread::scope(|scope| {
        let read = scope.spawn(|| store.read_ahead(first, rows));
        (store.storage.lease(look, on_wait), joined(read))
    });
    let lock = lock?;
    let snapshot = match read {
        Ok(Some(snapshot)) if lock.is_free_since_look() => snapshot,
        // Another process wrote meanwhile, or `vacuum` removed a file.
        _ => store.at_version(None)?,
    };
    Ok(Some((store, lock, snapshot)))
}

/// The names of all tables, and of `versions`.
fn all_tables() -> Vec<&'static str> {
    let tables = tables::all().into_iter().map(|(table, _)| table);
    tables.chain([Versions::NAME]).collect()
}

/// Waits for a thread, and passes its panic on.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
