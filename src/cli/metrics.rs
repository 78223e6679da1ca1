//! `--metrics`: numbers of this process for Prometheus, and a page for health checks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use vaplan_schemas::storage::requests_of_process;

use crate::engine::cluster::resident::updates_held;
use crate::watch::http;

/// Units of the command's progress bars until now: of the whole tasks, and done.
static UNITS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Sets the number of units of the current task.
pub(super) fn set_total(units: u64) {
    UNITS[0].store(units, Ordering::Relaxed);
}

/// Adds units that were done.
pub(super) fn add_done(units: u64) {
    UNITS[1].fetch_add(units, Ordering::Relaxed);
}

/// Serves `/metrics` and `/healthz` of a command until the process ends. Prints the address.
///
/// # Errors
/// Returns an error if the address is not a loopback address, or is in use.
pub(super) fn serve(address: SocketAddr, command: &'static str, process: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        address.ip().is_loopback(),
        "--metrics is {address}, expected a loopback address, such as 127.0.0.1:9464"
    );
    let begun = Instant::now();
    let pages = move |path: &str| match path {
        "/metrics" => Some(text(command, process, begun)),
        "/healthz" => Some(format!("ok {command}, process {process}\n")),
        _ => None,
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let address = http::serve(address, "metrics", kind, Arc::new(pages))
        .map_err(|error| anyhow::anyhow!("metrics at {address}: {error}"))?;
    super::stderr::tell(&format!("metrics at http://{address}/metrics"));
    Ok(())
}

fn text(command: &str, process: usize, begun: Instant) -> String {
    let labels = format!("process=\"{process}\",command=\"{command}\"");
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, lines: &[(String, String)]| {
        text.push_str(&format!(
            "# HELP vaplan_{name} {help}\n# TYPE vaplan_{name} {kind}\n"
        ));
        for (more, value) in lines {
            text.push_str(&format!("vaplan_{name}{{{labels}{more}}} {value}\n"));
        }
    };
    let plain = |value: String| [(String::new(), value)];
    let seconds = begun.elapsed().as_secs_f64();
    one(
        "seconds",
        "gauge",
        "Seconds since the command began.",
        &plain(format!("{seconds:.3}")),
    );
    let units = |nth: usize| plain(UNITS[nth].load(Ordering::Relaxed).to_string());
    one(
        "units",
        "gauge",
        "Units of the current task, such as shards.",
        &units(0),
    );
    one("units_done_total", "counter", "Units that were done.", &units(1));
    let counts = requests_of_process();
    let requests = [
        ("get", counts.get),
        ("list", counts.list),
        ("put", counts.put),
        ("delete", counts.delete),
    ];
    one(
        "object_requests_total",
        "counter",
        "Requests to object stores.",
        &requests.map(|(kind, count)| (format!(",kind=\"{kind}\""), count.to_string())),
    );
    let held: Vec<(String, String)> = updates_held()
        .into_iter()
        .map(|(worker, held)| (format!(",worker=\"{worker}\""), held.to_string()))
        .collect();
    one(
        "worker_updates_held",
        "gauge",
        "Updates in the arrangements of a worker, while this process has a part of a graph of process 0.",
        &held,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_process_and_the_command() {
        set_total(7);
        add_done(3);
        let text = text("label", 2, Instant::now());
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            assert!(line.contains("{process=\"2\",command=\"label\""), "{line}");
        }
        assert!(
            text.contains("vaplan_units{process=\"2\",command=\"label\"} 7\n"),
            "{text}"
        );
        let refused = serve("0.0.0.0:0".parse().unwrap(), "label", 0).unwrap_err();
        assert!(
            refused.to_string().contains("expected a loopback address"),
            "{refused}"
        );
    }
}
