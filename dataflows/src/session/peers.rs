//! A session whose graph has workers in several processes.
//!
//! ```text
//!             process 0                             other processes
//! rows ─▶ inputs ── to the worker of the video ──▶ labelling ──┐
//!            └───────────────────────────────────▶ labelling ──┤
//! Outcome ◀═ outputs ◀── to the workers of process 0 ◀─────────┘
//! ```
//!
//! The caller of process 0 works with the session as with one of a single process. The other processes call [`host`]: they
//! hold the arrangements of their videos and label them, and know nothing of the store.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::worker;
use crate::workers::{ConnectedThreads, StopSignal, WorkersError};

/// How long a wait lasts until it asks again whether all processes are there.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// The other processes of a session, as process 0 sees them.
pub trait SessionPeers: Send {
    /// Returns why a process is lost; `None` while all processes are there.
    fn problem(&mut self) -> Option<String>;

    /// Tells the other processes that the session has ended.
    fn end(&mut self);
}

/// The workers of a session.
pub enum SessionWorkers {
    /// So many threads of this process.
    Alone(usize),
    /// The threads of process 0, and the other processes.
    Connected(ConnectedThreads, Box<dyn SessionPeers>),
}

impl From<usize> for SessionWorkers {
    fn from(workers: usize) -> SessionWorkers {
        SessionWorkers::Alone(workers)
    }
}

impl SessionWorkers {
    /// The number of workers of this process.
    pub(super) fn count(&self) -> usize {
        match self {
            SessionWorkers::Alone(workers) => *workers,
            SessionWorkers::Connected(threads, _) => threads.builders.len(),
        }
    }
}

/// Runs the workers of a process other than process 0 until `stop` is set. `learning` says whether process 0 starts the
/// session with a learner, and `of_leader` is the number of workers of process 0. Each worker keeps the number of updates in its
/// arrangements in its entry of `held`.
///
/// # Errors
/// Returns [`WorkersError`] if the threads cannot start or a worker panics.
pub fn host(
    threads: ConnectedThreads,
    learning: bool,
    of_leader: usize,
    held: &Arc<[AtomicI64]>,
    stop: &StopSignal,
) -> Result<(), WorkersError> {
    let guards = worker::host(threads, (learning, of_leader), held, stop)?;
    for ended in guards.join() {
        ended.map_err(WorkersError::Start)?;
    }
    match stop.panic() {
        Some((worker, message)) => Err(WorkersError::Panicked { worker, message }),
        None => Ok(()),
    }
}

/// Runs `work` in a thread of its own. Returns `None` if a process is lost before the work is done; the thread is then left
/// behind.
pub(super) fn unless_lost<T: Send + 'static>(
    peers: &mut dyn SessionPeers,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = channel();
    // Sending fails only if the caller gave up.
    std::thread::spawn(move || drop(done.send(work())));
    loop {
        match result.recv_timeout(LOOK) {
            Ok(result) => return Some(result),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if peers.problem().is_some() => return None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}
