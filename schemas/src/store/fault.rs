//! Places where a test can end the process as `kill -9` would, in builds with debug assertions only.
//!
//! Every step that the disk could be caught in is one: before a file is written (`write`), synced (`sync`), renamed or
//! linked to its name (`name`), before a folder is synced (`folder`) and a file removed (`remove`). In the order of a
//! commit there are besides: `before-file` and `after-file` (each data file written, not yet named), `after-files` (all
//! named), `before-TABLE` and `after-TABLE` (its entry in the Delta log), `before-versions`, `after-versions`.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static WANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("VAPLAN_FAULT").ok());
static PASSED: AtomicU64 = AtomicU64::new(0);

/// Ends the process if `VAPLAN_FAULT` names this place, or is its number among all that were come to, from 1.
pub(super) fn point(place: &str) {
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
