//! Numbers of the server for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::save::SavedVersion;
use crate::histogram::Histogram;

/// Counters since the start of the server.
#[derive(Debug, Default)]
pub(super) struct ReviewFigures {
    /// Requests that were answered, whatever the answer.
    pub(super) requests: AtomicU64,
    /// Saves that changed nothing.
    pub(super) idle: AtomicU64,
    /// Saves that were refused because labels had changed.
    pub(super) conflicts: AtomicU64,
    /// Requests with verdicts that were saved.
    pub(super) verdicts: AtomicU64,
    set: AtomicU64,
    unset: AtomicU64,
    saved: Mutex<Histogram>,
}

impl ReviewFigures {
    /// Counts a save.
    pub(super) fn save(&self, saved: &SavedVersion) {
        if !saved.saved {
            self.idle.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.set.fetch_add(saved.set, Ordering::Relaxed);
        self.unset.fetch_add(saved.unset, Ordering::Relaxed);
        let mut times = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        times.add(saved.milliseconds / 1e3);
    }

    /// The text of `/metrics`. `version` is the latest store version, `videos` the number of videos of the index, and
    /// `bytes` its size.
    pub(super) fn text(&self, version: u64, videos: usize, bytes: usize) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            text.push_str(&format!(
                "# HELP vaplan_{name} {help}\n# TYPE vaplan_{name} {kind}\nvaplan_{name} {value}\n"
            ));
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        one("store_version", "gauge", "Latest store version.", version);
        one("videos_indexed", "gauge", "Videos in the list.", videos as u64);
        one(
            "index_bytes",
            "gauge",
            "Bytes of the list in memory.",
            bytes as u64,
        );
        one(
            "requests_total",
            "counter",
            "Requests answered.",
            count(&self.requests),
        );
        one(
            "labels_set_total",
            "counter",
            "Labels set by corrections.",
            count(&self.set),
        );
        one(
            "labels_unset_total",
            "counter",
            "Labels unset by corrections.",
            count(&self.unset),
        );
        one(
            "saves_idle_total",
            "counter",
            "Corrections that changed nothing.",
            count(&self.idle),
        );
        one(
            "save_conflicts_total",
            "counter",
            "Corrections refused because labels had changed.",
            count(&self.conflicts),
        );
        one(
            "verdict_saves_total",
            "counter",
            "Requests with verdicts that were saved.",
            count(&self.verdicts),
        );
        let times = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        times.write(
            &mut text,
            "",
            "vaplan_save_seconds",
            "From the arrival of a correction to its durable version.",
        );
        text
    }
}
