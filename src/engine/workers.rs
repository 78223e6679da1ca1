//! Starts the timely workers of a run, as threads of one process or of several processes, and divides the work.

use std::sync::{Mutex, PoisonError};

use crossbeam::channel::Sender;
use vaplan_dataflows::timely;
use vaplan_dataflows::timely::communication::allocator::ProcessBuilder;
use vaplan_dataflows::timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use vaplan_dataflows::timely::communication::{AllocatorBuilder, Hooks};
use vaplan_dataflows::timely::worker::Worker;
use vaplan_dataflows::workers::{self, ConnectedThreads, StopSignal, WorkersError};

use super::cluster::control::ClusterEvent;
use super::cluster::link::Link;
use crate::error::LabelError;

/// The workers of a run.
pub struct WorkerGroup {
    workers: usize,
    process: usize,
    others: Option<Others>,
}

struct Others {
    // One link per process; `None` for this process.
    links: Mutex<Vec<Option<Link>>>,
    events: Sender<ClusterEvent>,
}

impl WorkerGroup {
    /// Makes a team whose workers are all threads of this process.
    pub fn alone(workers: usize) -> WorkerGroup {
        WorkerGroup {
            workers,
            process: 0,
            others: None,
        }
    }

    /// Makes a team with `workers` threads in each of several processes. `links` are the links to the other processes.
    pub(crate) fn of_cluster(
        workers: usize,
        process: usize,
        links: Vec<Option<Link>>,
        events: Sender<ClusterEvent>,
    ) -> WorkerGroup {
        let links = Mutex::new(links);
        WorkerGroup {
            workers,
            process,
            others: Some(Others { links, events }),
        }
    }

    /// Returns the share of worker `index` in the work that this process does alone.
    pub(super) fn within(&self, index: usize) -> WorkerSlice {
        WorkerSlice {
            index: index - self.process * self.workers,
            of: self.workers,
        }
    }

    /// The number of workers of this process.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// The threads of this process in a dataflow of several processes; `None` if this process works alone.
    ///
    /// # Errors
    /// Returns [`LabelError::Stopped`] if the threads that send and receive cannot start.
    pub(crate) fn threads(&self) -> Result<Option<ConnectedThreads>, LabelError> {
        let others = self.others.as_ref();
        others.map(|others| self.connected(others)).transpose()
    }

    fn connected(&self, others: &Others) -> Result<ConnectedThreads, LabelError> {
        let links = std::mem::take(&mut *others.links.lock().unwrap_or_else(PoisonError::into_inner));
        let threads = ProcessBuilder::new_typed_vector(self.workers, Hooks::default().refill, None);
        let (builders, guard) =
            initialize_networking_from_sockets(threads, links, self.process, self.workers, Hooks::default())
                .map_err(|error| LabelError::Stopped(format!("no threads for the data links: {error}")))?;
        Ok(ConnectedThreads {
            builders: builders.into_iter().map(AllocatorBuilder::Tcp).collect(),
            network: Box::new(guard),
            first: self.process * self.workers,
        })
    }

    /// Runs `logic` on the workers of this process until their dataflows end.
    ///
    /// A panic of one worker stops all workers of this process. In a cluster, the control link also tells the other
    /// processes, because their workers would otherwise wait for the progress of this process for ever.
    ///
    /// # Errors
    /// Returns [`LabelError::Stopped`] if the workers cannot start, or one of them panicked.
    pub(super) fn run(
        &self,
        logic: impl Fn(&mut Worker, &StopSignal) + Send + Sync + 'static,
    ) -> Result<(), LabelError> {
        let stopped = |error: WorkersError| LabelError::Stopped(error.to_string());
        let Some(others) = &self.others else {
            workers::run(self.workers, logic).map_err(stopped)?;
            return Ok(());
        };
        let threads = self.connected(others)?;
        let events = others.events.clone();
        let signal = StopSignal::default();
        let of_worker = signal.clone();
        let guards = timely::execute::execute_from(
            threads.builders,
            threads.network,
            timely::WorkerConfig::default(),
            move |worker| {
                let done = of_worker.guard(worker, |worker| logic(worker, &of_worker));
                if done.is_none() {
                    // The send fails only if the run is over, so that no one receives events any more.
                    let _ = events.send(ClusterEvent::Panicked);
                }
            },
        )
        .map_err(LabelError::Stopped)?;
        for ended in guards.join() {
            ended.map_err(LabelError::Stopped)?;
        }
        match signal.panic() {
            Some((worker, message)) => Err(stopped(WorkersError::Panicked { worker, message })),
            None => Ok(()),
        }
    }
}

/// A share of a list: every `of`th item, starting at `index`.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerSlice {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl WorkerSlice {
    /// Returns whether the share has the nth item, counted from 0.
    pub(super) fn has(self, nth: usize) -> bool {
        nth % self.of == self.index
    }
}
