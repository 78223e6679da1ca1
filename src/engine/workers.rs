//! Who does which share of a run, and how timely's workers are started: threads of one process, or of several.

use std::sync::{Mutex, PoisonError};

use crossbeam::channel::Sender;
use vaplan_dataflows::timely::communication::allocator::ProcessBuilder;
use vaplan_dataflows::timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use vaplan_dataflows::timely::communication::{AllocatorBuilder, Hooks};
use vaplan_dataflows::timely::dataflow::Stream;
use vaplan_dataflows::timely::dataflow::operators::Exchange;
use vaplan_dataflows::timely::worker::Worker;
use vaplan_dataflows::timely::{self, ExchangeData};
use vaplan_dataflows::workers::{self, StopSignal, WorkersError};

use super::cluster::control::ClusterEvent;
use super::cluster::link::Link;
use crate::error::LabelError;

/// The workers of a run.
pub struct Team {
    workers: usize,
    process: usize,
    others: Option<Others>,
}

struct Others {
    // By process; none: this one.
    links: Mutex<Vec<Option<Link>>>,
    events: Sender<ClusterEvent>,
}

impl Team {
    /// Threads of this process alone.
    pub fn alone(workers: usize) -> Team {
        Team {
            workers,
            process: 0,
            others: None,
        }
    }

    /// As many threads in each of several processes, which have links to all others.
    pub(crate) fn of_cluster(
        workers: usize,
        process: usize,
        links: Vec<Option<Link>>,
        events: Sender<ClusterEvent>,
    ) -> Team {
        let links = Mutex::new(links);
        Team {
            workers,
            process,
            others: Some(Others { links, events }),
        }
    }

    /// What worker `index` does of what this process does alone.
    pub(super) fn within(&self, index: usize) -> WorkerSlice {
        WorkerSlice {
            index: index - self.process * self.workers,
            of: self.workers,
        }
    }

    /// Where the results of all processes come together.
    pub(super) fn place(&self) -> GatherTarget {
        GatherTarget(self.others.as_ref().map(|_| self.workers as u64))
    }

    /// Runs `logic` on the workers of this process until their dataflows end.
    ///
    /// A panic of one worker stops all workers of this process. In a cluster it also tells the control link, because the
    /// workers of other processes would wait for the progress of this one.
    ///
    /// # Errors
    /// [`LabelError::Stopped`] if the workers cannot start, or one of them panicked.
    pub(super) fn run(
        &self,
        logic: impl Fn(&mut Worker, &StopSignal) + Send + Sync + 'static,
    ) -> Result<(), LabelError> {
        let stopped = |error: WorkersError| LabelError::Stopped(error.to_string());
        let Some(others) = &self.others else {
            workers::run(self.workers, logic).map_err(stopped)?;
            return Ok(());
        };
        let links = std::mem::take(&mut *others.links.lock().unwrap_or_else(PoisonError::into_inner));
        let threads = ProcessBuilder::new_typed_vector(self.workers, Hooks::default().refill, None);
        let (builders, guard) =
            initialize_networking_from_sockets(threads, links, self.process, self.workers, Hooks::default())
                .map_err(|error| LabelError::Stopped(format!("no threads for the data links: {error}")))?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        let events = others.events.clone();
        let signal = StopSignal::default();
        let of_worker = signal.clone();
        let guards = timely::execute::execute_from(
            builders,
            Box::new(guard),
            timely::WorkerConfig::default(),
            move |worker| {
                let done = of_worker.guard(worker, |worker| logic(worker, &of_worker));
                if done.is_none() {
                    // The send fails only if nothing listens any more: the run is over then.
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

/// Every `of`th thing, from `index`.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerSlice {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl WorkerSlice {
    /// Is the nth thing in it?
    pub(super) fn has(self, nth: usize) -> bool {
        nth % self.of == self.index
    }
}

/// Where results come together: the workers of process 0, or wherever they are where there is one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct GatherTarget(Option<u64>);

impl GatherTarget {
    /// Brings results there; `spread` is any number of a record.
    pub(super) fn gather<'scope, D: ExchangeData>(
        self,
        results: Stream<'scope, u64, Vec<D>>,
        spread: impl Fn(&D) -> u64 + 'static,
    ) -> Stream<'scope, u64, Vec<D>> {
        match self.0 {
            // The first workers are those of process 0.
            Some(workers) => results.exchange(move |record| spread(record) % workers),
            None => results,
        }
    }
}
