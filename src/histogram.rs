//! A histogram of durations, for Prometheus.

use std::fmt::Write as _;

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

    /// Appends the histogram to the text of a page for Prometheus. `label` is in every line, such as `process="0"`; it can
    /// be empty.
    pub(crate) fn write(&self, text: &mut String, label: &str, name: &str, help: &str) {
        let (own, before) = match label {
            "" => (String::new(), String::new()),
            label => (format!("{{{label}}}"), format!("{label},")),
        };
        let _ = writeln!(text, "# HELP {name} {help}");
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (bound, count) in BOUNDS.iter().zip(&self.buckets) {
            let _ = writeln!(text, "{name}_bucket{{{before}le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_bucket{{{before}le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(
            text,
            "{name}_sum{own} {}\n{name}_count{own} {}",
            self.sum, self.count
        );
    }
}
