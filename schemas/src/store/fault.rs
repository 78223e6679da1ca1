//! Places where a test can end the process as `kill -9` would, in builds with debug assertions only.
//!
//! In the order of a commit: `before-file` and `after-file` (each data file written, not yet named), `after-files` (all
//! named), `before-TABLE` and `after-TABLE` (its entry in the Delta log), `before-versions`, `after-versions`.

/// Ends the process if `VAPLAN_FAULT` names this place.
pub(super) fn point(place: &str) {
    if cfg!(debug_assertions) && std::env::var("VAPLAN_FAULT").is_ok_and(|wanted| wanted == place) {
        std::process::abort();
    }
}
