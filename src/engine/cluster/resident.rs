//! Graphs that stay in memory and have workers in all processes, for `run` and `watch`.
//!
//! ```text
//! process 0   Graph ─▶ others    rows in, outputs back, version after version     GraphEnded ─▶ others
//! others      run their workers ─────────────────────────────────────────────────▶ wait for the next frame
//! ```
//!
//! Process 0 reads the store, feeds all rows, gets the outputs of all workers and commits. The other processes hold the
//! arrangements of their videos, label and denoise them. They read nothing of the store.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vaplan_dataflows::session::{SessionPeers, SessionWorkers, host};
use vaplan_dataflows::workers::StopSignal;

use super::control::ClusterEvent;
use super::frame::Frame;
use super::meeting::RequestValues;
use super::member::ClusterMember;
use super::settings::ClusterSettings;
use crate::engine::flow::Alone;
use crate::engine::group::LabellingGroup;
use crate::engine::score::lock;
use crate::error::LabelError;

/// The index of the first worker of this process, and the number of updates that each worker holds.
type HeldUpdates = (usize, Arc<[AtomicI64]>);

/// The updates of the graph that this process has a part of, while it has one.
static HELD: Mutex<Option<HeldUpdates>> = Mutex::new(None);

/// The number of updates in the arrangements of each worker of this process, while it has a part of a graph of process 0.
pub(crate) fn updates_held() -> Vec<(usize, i64)> {
    let held = lock(&HELD);
    let Some((first, held)) = &*held else {
        return Vec::new();
    };
    let updates = held.iter().enumerate();
    updates
        .map(|(nth, held)| (first + nth, held.load(Ordering::SeqCst)))
        .collect()
}

/// The processes that keep graphs in memory together, as process 0 sees them.
#[derive(Clone)]
pub struct GraphProcesses {
    workers: usize,
    /// `None` if this process works alone.
    member: Option<Arc<Mutex<ClusterMember>>>,
    /// Whether a process failed or is lost, so that the error of the run names that process.
    lost: Arc<AtomicBool>,
}

impl fmt::Debug for GraphProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphProcesses")
            .field("workers", &self.workers)
            .field("alone", &self.member.is_none())
            .finish()
    }
}

impl GraphProcesses {
    /// This process alone, with so many workers.
    pub fn alone(workers: usize) -> GraphProcesses {
        GraphProcesses {
            workers,
            member: None,
            lost: Arc::default(),
        }
    }

    /// Waits for the other processes, in process 0. Without settings, this process works alone.
    ///
    /// # Errors
    /// Returns [`LabelError::Cluster`] if a process does not come, or has another secret or request.
    pub(crate) fn join(
        settings: Option<&ClusterSettings>,
        workers: usize,
        asked: RequestValues,
    ) -> Result<GraphProcesses, LabelError> {
        let mut processes = GraphProcesses::alone(workers);
        if let Some(settings) = settings {
            let mut member = ClusterMember::join(settings, asked)?;
            member.control.lasts();
            processes.member = Some(Arc::new(Mutex::new(member)));
        }
        Ok(processes)
    }

    /// The number of workers of this process.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// The number of processes.
    pub(crate) fn processes(&self) -> usize {
        self.held().map_or(1, |member| member.hosts().processes())
    }

    fn held(&self) -> Option<MutexGuard<'_, ClusterMember>> {
        self.member.as_ref().map(|member| lock(member))
    }

    /// Starts the workers of a graph in all processes.
    ///
    /// # Errors
    /// Returns [`LabelError::Cluster`] if a process is lost before all are connected.
    pub(crate) fn graph(&self, learning: bool) -> Result<SessionWorkers, LabelError> {
        let Some(mut member) = self.held() else {
            return Ok(SessionWorkers::Alone(self.workers));
        };
        member.control.say_all(&Frame::Graph {
            learning,
            workers: self.workers as u32,
        });
        let threads = member.workers(self.workers)?.threads()?;
        let threads = threads.expect("a cluster has other processes");
        let peers = Peers {
            member: self.member.clone().expect("it was locked above"),
            problem: None,
            lost: self.lost.clone(),
        };
        Ok(SessionWorkers::Connected(threads, Box::new(peers)))
    }

    /// Runs `work` with the processes as one group that labels all videos.
    pub(crate) fn label<T>(&self, work: impl GroupWork<T>) -> Result<T, LabelError> {
        let done = match self.held() {
            Some(mut member) => work.run(&mut *member),
            None => work.run(&mut Alone),
        };
        if matches!(done, Err(LabelError::Cluster(_))) {
            self.lost.store(true, Ordering::SeqCst);
        }
        done
    }

    /// Checks that no process is lost.
    ///
    /// # Errors
    /// Returns [`LabelError::Cluster`] if one is.
    pub(crate) fn check(&self) -> Result<(), LabelError> {
        let Some(mut member) = self.held() else {
            return Ok(());
        };
        let polled = member.control.poll();
        self.lost.fetch_or(polled.is_err(), Ordering::SeqCst);
        Ok(polled?)
    }

    /// Ends the run in all processes: tells them the latest version, or why this process ends. All graphs have ended.
    pub(crate) fn end(self, outcome: Result<u64, String>) {
        let Some(member) = self.member else { return };
        {
            let member = lock(&member);
            match outcome {
                Ok(version) => member.control.say_all(&Frame::Finished(version)),
                Err(error) => member.fail(&error, self.lost.load(Ordering::SeqCst)),
            }
        }
        // A thread that a lost process left behind may hold the member; the links then close with the process.
        if let Ok(member) = Arc::try_unwrap(member) {
            let member = member.into_inner();
            member.unwrap_or_else(std::sync::PoisonError::into_inner).leave();
        }
    }
}

/// Work of one process or of all processes together.
pub(crate) trait GroupWork<T> {
    /// Does the work.
    ///
    /// # Errors
    /// Returns the error of the work.
    fn run(self, group: &mut impl LabellingGroup) -> Result<T, LabelError>;
}

/// The other processes of a graph.
struct Peers {
    member: Arc<Mutex<ClusterMember>>,
    /// Why a process is lost. The event that says so comes only once.
    problem: Option<String>,
    lost: Arc<AtomicBool>,
}

impl SessionPeers for Peers {
    fn problem(&mut self) -> Option<String> {
        if self.problem.is_none() {
            let polled = lock(&self.member).control.poll();
            self.problem = match polled {
                Err(error) => {
                    self.lost.store(true, Ordering::SeqCst);
                    Some(error.to_string())
                }
                // The caller of `GraphProcesses` got the event. Without this look, the end of the session would wait for ever for
                // workers that wait for a silent process.
                Ok(()) => self
                    .lost
                    .load(Ordering::SeqCst)
                    .then(|| "a process is lost".to_owned()),
            };
        }
        self.problem.clone()
    }

    fn end(&mut self) {
        lock(&self.member).control.say_all(&Frame::GraphEnded);
    }
}

impl ClusterMember {
    /// In a process other than process 0: runs the workers of a graph until process 0 ends it.
    ///
    /// # Errors
    /// Returns [`LabelError::Cluster`] if a process is lost, or a worker panics.
    pub(crate) fn host(
        &mut self,
        (learning, of_leader): (bool, u32),
        workers: usize,
    ) -> Result<(), LabelError> {
        let threads = self.workers(workers)?.threads()?;
        let threads = threads.expect("a cluster has other processes");
        let first = threads.first;
        let held: Arc<[AtomicI64]> = (0..workers).map(|_| AtomicI64::new(0)).collect();
        *lock(&HELD) = Some((first, held.clone()));
        let stop = StopSignal::default();
        let (done, result) = crossbeam::channel::bounded(1);
        let (signal, events) = (stop.clone(), self.control.sender());
        std::thread::spawn(move || {
            let hosted = host(threads, learning, of_leader as usize, &held, &signal);
            if hosted.is_err() {
                // The send fails only if the run is over, so that no one receives events any more.
                let _ = events.send(ClusterEvent::Panicked);
            }
            let _ = done.send(());
        });
        match self.control.next_during()? {
            (_, Frame::GraphEnded) => {}
            (process, frame) => return Err(self.unexpected(process, &frame)),
        }
        stop.set();
        self.control.wait(&result)?;
        *lock(&HELD) = None;
        Ok(())
    }
}
