//! Who does which share of a run, and how timely's workers are started: threads of one process, or of several.

use std::sync::{Mutex, PoisonError};

use crossbeam::channel::Sender;
use vaplan_dataflows::timely::communication::allocator::ProcessBuilder;
use vaplan_dataflows::timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use vaplan_dataflows::timely::communication::{AllocatorBuilder, Hooks, WorkerGuards};
use vaplan_dataflows::timely::dataflow::Stream;
use vaplan_dataflows::timely::dataflow::operators::Exchange;
use vaplan_dataflows::timely::worker::Worker;
use vaplan_dataflows::timely::{self, ExchangeData};

use super::cluster::control::Event;
use super::cluster::link::Link;

/// The workers of a run.
pub struct Team {
    workers: usize,
    process: usize,
    others: Option<Others>,
}

struct Others {
    // By process; none: this one.
    links: Mutex<Vec<Option<Link>>>,
    events: Sender<Event>,
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
        events: Sender<Event>,
    ) -> Team {
        let links = Mutex::new(links);
        Team {
            workers,
            process,
            others: Some(Others { links, events }),
        }
    }

    /// What worker `index` does of what this process does alone.
    pub(super) fn within(&self, index: usize) -> Share {
        Share {
            index: index - self.process * self.workers,
            of: self.workers,
        }
    }

    /// Where the results of all processes come together.
    pub(super) fn place(&self) -> Place {
        Place(self.others.as_ref().map(|_| self.workers as u64))
    }

    /// Starts the workers of this process.
    pub(super) fn start(
        &self,
        logic: impl Fn(&mut Worker) + Send + Sync + 'static,
    ) -> Result<WorkerGuards<()>, String> {
        let Some(others) = &self.others else {
            return timely::execute(timely::Config::process(self.workers), logic);
        };
        let links = std::mem::take(&mut *others.links.lock().unwrap_or_else(PoisonError::into_inner));
        let threads = ProcessBuilder::new_typed_vector(self.workers, Hooks::default().refill, None);
        let (builders, guard) =
            initialize_networking_from_sockets(threads, links, self.process, self.workers, Hooks::default())
                .map_err(|error| format!("no threads for the data links: {error}"))?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        let events = others.events.clone();
        timely::execute::execute_from(
            builders,
            Box::new(guard),
            timely::WorkerConfig::default(),
            move |worker| {
                let _fuse = Fuse(events.clone());
                logic(worker);
                // As timely does after this, but under the fuse.
                while worker.has_dataflows() {
                    worker.step_or_park(None);
                }
            },
        )
    }
}

/// Every `of`th thing, from `index`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Share {
    /// Is the nth thing in it?
    pub(super) fn has(self, nth: usize) -> bool {
        nth % self.of == self.index
    }
}

/// Where results come together: the workers of process 0, or wherever they are where there is one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(Option<u64>);

impl Place {
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

/// Tells of the panic of a worker: its process cannot know it from the others, which wait for it.
struct Fuse(Sender<Event>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody listens: the run is over.
            let _ = self.0.send(Event::Panicked);
        }
    }
}
