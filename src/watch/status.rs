//! The status of a watch: a file, and the numbers for the metrics.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::WatchError;
use crate::histogram::Histogram;

/// Counters since the start of the watch, and current values.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Store version of the graph.
    pub version: u64,
    /// Batches that made a version.
    pub batches: u64,
    /// Deliveries in these batches.
    pub done: u64,
    /// Deliveries that an earlier version recorded.
    pub again: u64,
    /// Deliveries that could not be used.
    pub failed: u64,
    /// Rejected rows.
    pub rejected: u64,
    /// Labels that were set.
    pub set: u64,
    /// Labels that were unset.
    pub unset: u64,
    /// Number of times that the graph was loaded from the tables.
    pub loads: u64,
    /// Videos in memory.
    pub videos: u64,
    /// Updates in the arrangements of the graph. The memory use is proportional to them.
    pub held: u64,
    /// The same number for each worker.
    pub held_by_worker: Vec<u64>,
    /// Epochs of the training that were committed.
    pub epochs: u64,
    /// Progress of the training.
    training: Option<String>,
    /// Times from the rename of a delivery to the commit of its version.
    pub waited: Histogram,
    /// The last [`RECENT`] of these times, in seconds. A new time replaces the oldest.
    recent: Vec<f64>,
    /// Times of the last batch.
    times: Times,
}

/// Times of the parts of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Reading and hashing the deliveries.
    pub hash: Duration,
    /// Waiting for the lock of the store. If another process changed the store, loading its changes is included.
    pub wait: Duration,
    /// Finding what the changes touch, and reading its rows.
    pub prepare: Duration,
    /// Computing in the graph.
    pub graph: Duration,
    /// Writing and committing the version.
    pub commit: Duration,
    /// Moving the deliveries out of the inbox.
    pub acknowledge: Duration,
}

/// Number of times that the quantiles are computed from.
const RECENT: usize = 1024;

/// Contents of the status file.
#[derive(Serialize)]
struct Status<'a> {
    state: &'a str,
    error: Option<&'a str>,
    pid: u32,
    started: &'a str,
    metrics: Option<SocketAddr>,
    version: u64,
    batches: u64,
    done: u64,
    again: u64,
    failed: u64,
    rejected: u64,
    loads: u64,
    videos: u64,
    held: u64,
    epochs: u64,
    training: Option<&'a str>,
    last_commit_ms: f64,
    last_batch_ms: Millis,
    rename_to_commit_ms: Quantiles,
}

#[derive(Serialize)]
struct Millis {
    hash: f64,
    wait: f64,
    prepare: f64,
    graph: f64,
    commit: f64,
    acknowledge: f64,
}

#[derive(Serialize)]
struct Quantiles {
    count: u64,
    last: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

/// Keeps the numbers of a watch and writes its status file.
#[derive(Debug)]
pub struct Board {
    path: Option<PathBuf>,
    started: String,
    metrics: Option<SocketAddr>,
    figures: Arc<Mutex<Figures>>,
}

impl Board {
    /// Creates the board of a watch that begins now. `path` is the status file.
    pub fn new(path: Option<PathBuf>) -> Board {
        Board {
            path,
            started: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            metrics: None,
            figures: Arc::default(),
        }
    }

    /// Returns the numbers, to serve them as metrics.
    pub fn figures(&self) -> Arc<Mutex<Figures>> {
        self.figures.clone()
    }

    /// Records the address of the metrics.
    pub fn serves(&mut self, address: SocketAddr) {
        self.metrics = Some(address);
    }

    /// Counts a load of the graph.
    pub fn loaded(&mut self) {
        lock(&self.figures).loads += 1;
    }

    /// Records what the graph holds.
    /// `held` has the number of updates of each worker.
    pub fn holds(&mut self, version: u64, videos: usize, held: Vec<u64>) {
        let mut figures = lock(&self.figures);
        figures.version = version;
        (figures.videos, figures.held) = (videos as u64, held.iter().sum());
        figures.held_by_worker = held;
    }

    /// Counts a delivery that could not be used.
    pub fn failed(&mut self) {
        lock(&self.figures).failed += 1;
    }

    /// Counts deliveries that an earlier version recorded.
    pub fn again(&mut self, deliveries: usize) {
        lock(&self.figures).again += deliveries as u64;
    }

    /// Counts a batch. `waited` has the time from the rename to the commit of each delivery.
    pub fn batch(
        &mut self,
        times: &Times,
        waited: impl IntoIterator<Item = Duration>,
        rejected: usize,
        (set, unset): (u64, u64),
    ) {
        let mut figures = lock(&self.figures);
        figures.batches += 1;
        figures.rejected += rejected as u64;
        figures.set += set;
        figures.unset += unset;
        figures.times = *times;
        for waited in waited {
            let (seconds, next) = (waited.as_secs_f64(), figures.done as usize % RECENT);
            figures.done += 1;
            figures.waited.add(seconds);
            match figures.recent.get_mut(next) {
                Some(oldest) => *oldest = seconds,
                None => figures.recent.push(seconds),
            }
        }
    }

    /// Counts a committed epoch of the training.
    pub fn epoch(&mut self) {
        lock(&self.figures).epochs += 1;
    }

    /// Records the progress of the training.
    pub fn training(&mut self, at: String) {
        lock(&self.figures).training = Some(at);
    }

    /// Counts the labels that a denoising set and unset.
    pub fn denoised(&mut self, (set, unset): (u64, u64)) {
        let mut figures = lock(&self.figures);
        figures.set += set;
        figures.unset += unset;
    }

    /// Writes the status file. The new file replaces the old one as a whole.
    ///
    /// # Errors
    /// Returns [`WatchError::Io`] if the file cannot be written.
    pub fn state(&self, state: &str, error: Option<String>) -> Result<(), WatchError> {
        let Some(path) = &self.path else { return Ok(()) };
        let figures = lock(&self.figures).clone();
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let times = &figures.times;
        let status = Status {
            state,
            error: error.as_deref(),
            pid: std::process::id(),
            started: &self.started,
            metrics: self.metrics,
            version: figures.version,
            batches: figures.batches,
            done: figures.done,
            again: figures.again,
            failed: figures.failed,
            rejected: figures.rejected,
            loads: figures.loads,
            videos: figures.videos,
            held: figures.held,
            epochs: figures.epochs,
            training: figures.training.as_deref(),
            last_commit_ms: ms(times.commit),
            last_batch_ms: Millis {
                hash: ms(times.hash),
                wait: ms(times.wait),
                prepare: ms(times.prepare),
                graph: ms(times.graph),
                commit: ms(times.commit),
                acknowledge: ms(times.acknowledge),
            },
            rename_to_commit_ms: figures.quantiles(),
        };
        let text = serde_json::to_string(&status).expect("a status is plain numbers and text");
        let mut beside = path.clone().into_os_string();
        beside.push(".tmp");
        fs::write(&beside, text + "\n").map_err(WatchError::io("write", &beside))?;
        fs::rename(&beside, path).map_err(WatchError::io("write", path))
    }
}

impl Figures {
    fn quantiles(&self) -> Quantiles {
        let last = self
            .done
            .checked_sub(1)
            .and_then(|last| self.recent.get(last as usize % RECENT));
        let mut sorted = self.recent.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let ms = |seconds: &f64| (seconds * 1e6).round() / 1e3;
        // The smallest value that is at least as large as `percent` % of all values.
        let of = |percent: usize| {
            sorted
                .get((sorted.len() * percent).div_ceil(100).saturating_sub(1))
                .map(ms)
        };
        Quantiles {
            count: self.done,
            last: last.map(ms),
            p50: of(50),
            p99: of(99),
            max: of(100),
        }
    }
}

/// Locks the numbers. A lock whose holder panicked is used anyway, because numbers stay valid after a panic.
pub fn lock(figures: &Mutex<Figures>) -> MutexGuard<'_, Figures> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_latest_waits_and_the_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let mut board = Board::new(Some(path.clone()));
        board.state("loading", None).unwrap();
        let waits = (0..2 * RECENT as u64).map(|nth| Duration::from_millis(nth.min(RECENT as u64 + 99)));
        board.batch(&Times::default(), waits, 1, (2, 3));
        board.holds(7, 5, vec![4, 7]);
        board.state("watching", None).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(status["state"], "watching");
        assert_eq!((&status["version"], &status["held"]), (&7.into(), &11.into()));
        let waited = &status["rename_to_commit_ms"];
        assert_eq!(waited["count"], 2048);
        assert_eq!((&waited["p50"], &waited["max"]), (&1123.0.into(), &1123.0.into()));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }
}
