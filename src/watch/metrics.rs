//! Serves numbers to Prometheus, on a loopback address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::WatchError;
use super::http;
use super::status::{Figures, lock};

/// Serves `/metrics` from a thread of its own. Returns the address. If the port of `address` is 0, the returned address
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
    let pages = move |path: &str| (path == "/metrics").then(|| text(&lock(&figures)));
    let served = http::serve(
        address,
        "metrics",
        "text/plain; version=0.0.4; charset=utf-8",
        Arc::new(pages),
    );
    served.map_err(|error| failed(error.to_string()))
}

fn text(figures: &Figures) -> String {
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        let lines =
            format!("# HELP vaplan_{name} {help}\n# TYPE vaplan_{name} {kind}\nvaplan_{name} {value}\n");
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
    figures.waited.write(
        &mut text,
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
        for seconds in [0.004, 0.02, 0.5, 1000.0] {
            figures.waited.add(seconds);
        }
        let text = text(&figures);
        for line in [
            "vaplan_rename_to_commit_seconds_bucket{le=\"0.005\"} 1",
            "vaplan_rename_to_commit_seconds_bucket{le=\"0.02\"} 2",
            "vaplan_rename_to_commit_seconds_bucket{le=\"300\"} 3",
            "vaplan_rename_to_commit_seconds_bucket{le=\"+Inf\"} 4",
            "vaplan_rename_to_commit_seconds_count 4",
            "vaplan_store_version 0",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}:\n{text}");
        }
    }
}
