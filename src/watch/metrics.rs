//! Serves numbers to Prometheus and a page for health checks, on a loopback address.
//!
//! Every line has the label `process`, the number of the process in its cluster; `watch` is a single process, 0.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::WatchError;
use super::http;
use super::status::{Figures, lock};

/// Serves `/metrics` and `/healthz` from a thread of its own. Returns the address. If the port of `address` is 0, the returned address
/// has the port that the system chose.
///
/// # Errors
/// Returns [`WatchError::Metrics`] if the address is not a loopback address or is in use.
pub fn serve(address: SocketAddr, figures: Arc<Mutex<Figures>>) -> Result<SocketAddr, WatchError> {
    let failed = |problem: String| WatchError::Metrics { address, problem };
    if !address.ip().is_loopback() {
        return Err(failed(
            "expected a loopback address, such as 127.0.0.1:9464".to_owned(),
        ));
    }
    let pages = move |path: &str| match path {
        "/metrics" => Some(text(&lock(&figures))),
        // The page is there as long as the process works. It answers only if the figures are not locked for ever.
        "/healthz" => Some(format!("ok version {}\n", lock(&figures).version)),
        _ => None,
    };
    let served = http::serve(
        address,
        "metrics",
        "text/plain; version=0.0.4; charset=utf-8",
        Arc::new(pages),
    );
    served.map_err(|error| failed(error.to_string()))
}

/// The label of a single process.
const PROCESS: &str = "process=\"0\"";

fn text(figures: &Figures) -> String {
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        let lines = format!(
            "# HELP vaplan_{name} {help}\n# TYPE vaplan_{name} {kind}\nvaplan_{name}{{{PROCESS}}} {value}\n"
        );
        text.push_str(&lines);
    };
    one("store_version", "gauge", "Latest store version.", figures.version);
    one("videos_held", "gauge", "Videos in memory.", figures.videos);
    one(
        "updates_held",
        "gauge",
        "Updates in the arrangements of the graph.",
        figures.held,
    );
    one(
        "batches_total",
        "counter",
        "Batches that made a version.",
        figures.batches,
    );
    one(
        "deliveries_done_total",
        "counter",
        "Deliveries committed.",
        figures.done,
    );
    one(
        "deliveries_again_total",
        "counter",
        "Deliveries that were done before.",
        figures.again,
    );
    one(
        "deliveries_failed_total",
        "counter",
        "Deliveries that could not be used.",
        figures.failed,
    );
    one(
        "rows_rejected_total",
        "counter",
        "Rows of deliveries that were left out.",
        figures.rejected,
    );
    one("cells_set_total", "counter", "Labels set.", figures.set);
    one("cells_unset_total", "counter", "Labels unset.", figures.unset);
    one(
        "epochs_total",
        "counter",
        "Epochs of own training in the store.",
        figures.epochs,
    );
    one(
        "loads_total",
        "counter",
        "Loads of the graph from the tables.",
        figures.loads,
    );
    text.push_str("# HELP vaplan_worker_updates_held Updates in the arrangements of a worker.\n");
    text.push_str("# TYPE vaplan_worker_updates_held gauge\n");
    for (worker, held) in figures.held_by_worker.iter().enumerate() {
        text.push_str(&format!(
            "vaplan_worker_updates_held{{{PROCESS},worker=\"{worker}\"}} {held}\n"
        ));
    }
    figures.waited.write(
        &mut text,
        PROCESS,
        "vaplan_rename_to_commit_seconds",
        "From the rename into the inbox to the committed version.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_served() {
        let error = serve("0.0.0.0:0".parse().unwrap(), Arc::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "metrics at 0.0.0.0:0: expected a loopback address, such as 127.0.0.1:9464"
        );
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut figures = Figures::default();
        figures.held_by_worker = vec![4, 7];
        for seconds in [0.004, 0.02, 0.5, 1000.0] {
            figures.waited.add(seconds);
        }
        let text = text(&figures);
        for line in [
            "vaplan_rename_to_commit_seconds_bucket{process=\"0\",le=\"0.005\"} 1",
            "vaplan_rename_to_commit_seconds_bucket{process=\"0\",le=\"0.02\"} 2",
            "vaplan_rename_to_commit_seconds_bucket{process=\"0\",le=\"300\"} 3",
            "vaplan_rename_to_commit_seconds_bucket{process=\"0\",le=\"+Inf\"} 4",
            "vaplan_rename_to_commit_seconds_count{process=\"0\"} 4",
            "vaplan_store_version{process=\"0\"} 0",
            "vaplan_worker_updates_held{process=\"0\",worker=\"1\"} 7",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}:\n{text}");
        }
    }
}
