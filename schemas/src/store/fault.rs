//! Places where a test can end the process as `kill -9` would, in builds with debug assertions only.

/// Ends the process if `VAPLAN_FAULT` names this place.
pub(super) fn point(place: &str) {
    if cfg!(debug_assertions) && std::env::var("VAPLAN_FAULT").is_ok_and(|wanted| wanted == place) {
        std::process::abort();
    }
}
