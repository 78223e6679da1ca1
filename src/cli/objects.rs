//! The requests of a command to object stores.

use vaplan_schemas::storage::requests_of_process;

/// Logs how many requests the command made, if it made any.
pub(super) fn log_requests() {
    let counts = requests_of_process();
    if counts.all() > 0 {
        tracing::debug!(%counts, "requests to object stores");
    }
}
