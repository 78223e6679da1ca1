//! Serves numbers to Prometheus, on a loopback address.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::WatchError;
use super::http;
use super::status::{Figures, lock};

/// Upper bounds of the buckets in seconds. They are close together below 0.1 s, where the commit of one changed video
/// should be.
const BOUNDS: [f64; 20] = [
    0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
    60.0, 300.0,
];

/// A histogram of durations.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&mut self, seconds: f64) {
        for (bound, count) in BOUNDS.iter().zip(&mut self.buckets) {
            *count += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }

    /// Appends the histogram to the text of a page for Prometheus.
    pub(crate) fn write(&self, text: &mut String, name: &str, help: &str) {
        let _ = writeln!(text, "# HELP {name} {help}");
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (bound, count) in BOUNDS.iter().zip(&self.buckets) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(text, "{name}_sum {}\n{name}_count {}", self.sum, self.count);
    }
}

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
