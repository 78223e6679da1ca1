//! Faults for tests: points where a test can end the process as `kill -9` would, and a disk that a test can fill.
//! Both exist in builds with debug assertions only.
//!
//! `VAPLAN_FAULT` names a point, or gives its number among all points that the process reaches, from 1. A point is
//! every step that a power cut could interrupt: before a file is written (`write`), synced (`sync`), renamed or
//! linked to its name (`name`), before a folder is synced (`folder`) and before a file is removed (`remove`). A
//! commit has further points: `before-file` and `after-file` (around each data file, which has no name yet),
//! `after-files` (all data files have their names), `before-TABLE` and `after-TABLE` (around the entry in the Delta
//! log of a table), `before-versions` and `after-versions`. A process that writes a part of a commit has `before-part` and
//! `after-part` (around the names of its files).
//!
//! `VAPLAN_ROOM` is the number of free bytes on a simulated disk. [`room`] takes bytes from it and fails as a full
//! disk does, [`freed`] gives bytes back. Sizes count in blocks of 4,096 bytes, as most file systems allocate them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

static WANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("VAPLAN_FAULT").ok());
static PASSED: AtomicU64 = AtomicU64::new(0);
static ROOM: LazyLock<Option<Mutex<u64>>> =
    LazyLock::new(|| Some(Mutex::new(std::env::var("VAPLAN_ROOM").ok()?.parse().ok()?)));

const BLOCK: u64 = 4096;

/// Ends the process if `VAPLAN_FAULT` names this point or its number.
pub(crate) fn point(place: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    if let Some(wanted) = WANTED.as_deref() {
        let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        if wanted == place || wanted.parse() == Ok(number) {
            std::process::abort();
        }
    }
}

/// Takes room for this number of bytes of a file that is being written.
///
/// # Errors
/// Returns [`io::ErrorKind::StorageFull`] if the simulated disk has less room.
pub(crate) fn room(bytes: usize) -> io::Result<()> {
    if let (true, Some(room)) = (cfg!(debug_assertions), &*ROOM) {
        let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = (bytes as u64).div_ceil(BLOCK) * BLOCK;
        *room = room
            .checked_sub(needed)
            .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
    }
    Ok(())
}

/// Gives back the room of a removed file of this size.
pub(crate) fn freed(bytes: u64) {
    if let (true, Some(room)) = (cfg!(debug_assertions), &*ROOM) {
        *room.lock().unwrap_or_else(PoisonError::into_inner) += bytes.div_ceil(BLOCK) * BLOCK;
    }
}
