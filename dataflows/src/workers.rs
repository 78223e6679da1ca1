//! Timely workers of one process that end together: if one worker panics, the run returns an error and never hangs.
//!
//! ```text
//! run(n, logic) ─┬─ worker 0 ═ logic ─ steps ═ panics ─┐ StopSignal: message kept, every worker woken
//!                ├─ worker 1 ═ logic ─ steps ═ ends ◀──┤
//!                └─ worker 2 ═ logic ─ steps ═ ends ◀──┘─────▶ Err(WorkersError::Panicked)
//! ```
//!
//! `timely::execute` alone can hang. A worker waits for the progress messages of all other workers. If another worker
//! has panicked, its messages never come, and the call that joins the threads waits for ever.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use timely::communication::{AllocatorBuilder, WorkerGuards};
use timely::worker::Worker;

/// Longest time that a worker parks before it looks at the signal again: 1 s.
///
/// [`StopSignal::set`] unparks every worker, so a worker normally stops immediately. An operator that waits for a
/// channel can consume that unpark. The worker would then park although the signal is set.
const LONGEST_PARK: Duration = Duration::from_secs(1);

/// Why the workers did not finish their work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkersError {
    /// The caller asked for no worker.
    #[error("workers is 0, expected at least 1")]
    NoWorkers,
    /// Timely could not start the threads.
    #[error("the dataflow workers cannot start: {0}")]
    Start(String),
    /// A worker panicked, which is a bug, not bad input. If several did, this is the first one.
    #[error("dataflow worker {worker} panicked: {message}")]
    Panicked {
        /// Index of the worker.
        worker: usize,
        /// Message of the panic.
        message: String,
    },
    /// Someone set the signal before the work was done.
    #[error("the dataflow workers were told to stop before their work was done")]
    Stopped,
}

/// The signal was set while a worker waited, so the condition that the worker waited for may never come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dataflow workers were told to stop")]
pub struct Stopped;

/// A panic of a worker: its index, and the message.
type Panic = (usize, String);

#[derive(Default)]
struct State {
    set: AtomicBool,
    threads: Mutex<Vec<Thread>>,
    panic: Mutex<Option<Panic>>,
}

/// Tells all workers of one run to stop. Clones share one signal.
#[derive(Clone, Default)]
pub struct StopSignal(Arc<State>);

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopSignal")
            .field("set", &self.is_set())
            .finish_non_exhaustive()
    }
}

impl StopSignal {
    /// Sets the signal and wakes every worker that [`StopSignal::guard`] runs.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        for thread in own(&self.0.threads).iter() {
            thread.unpark();
        }
    }

    /// Returns whether the signal is set.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Returns the index and message of the worker that panicked first; `None` if no worker panicked.
    pub fn panic(&self) -> Option<(usize, String)> {
        own(&self.0.panic).clone()
    }

    /// Steps a worker as long as `condition` holds.
    ///
    /// # Errors
    /// Returns [`Stopped`] if the signal is set while `condition` still holds.
    pub fn step_while(
        &self,
        worker: &mut Worker,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), Stopped> {
        while condition() {
            if self.is_set() {
                return Err(Stopped);
            }
            worker.step_or_park(Some(LONGEST_PARK));
        }
        Ok(())
    }

    /// Steps a worker until all its dataflows have ended. Every record of these dataflows has then passed every operator
    /// of this worker.
    ///
    /// # Errors
    /// Returns [`Stopped`] if the signal is set while a dataflow is left.
    pub fn finish(&self, worker: &mut Worker) -> Result<(), Stopped> {
        while worker.has_dataflows() {
            if self.is_set() {
                return Err(Stopped);
            }
            worker.step_or_park(Some(LONGEST_PARK));
        }
        Ok(())
    }

    /// Runs `logic` and then the worker's dataflows to their end. Returns `None` if the signal was set before that.
    ///
    /// A panic of `logic`, or of an operator of the worker, sets the signal. The worker has no dataflow left
    /// afterwards. [`run`] and [`start`] call this function. Call this function directly if `timely::execute_from`
    /// starts the workers, as in a cluster.
    pub fn guard<T>(&self, worker: &mut Worker, logic: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        own(&self.0.threads).push(std::thread::current());
        let index = worker.index();
        let done = catch_unwind(AssertUnwindSafe(|| {
            let made = logic(worker);
            // If the signal is set, the test of `whole` below finds the dataflows that are left.
            let _ = self.finish(worker);
            made
        }));
        let made = done.map_err(|payload| self.panicked(index, &*payload)).ok();
        let whole = !self.is_set() || !worker.has_dataflows();
        for dataflow in worker.installed_dataflows() {
            // An operator whose state is broken may panic again when it is dropped.
            let dropped = catch_unwind(AssertUnwindSafe(|| worker.drop_dataflow(dataflow)));
            if let Err(payload) = dropped {
                self.panicked(index, &*payload);
            }
        }
        made.filter(|_| whole)
    }

    fn panicked(&self, worker: usize, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let message = text.unwrap_or_else(|| "a panic without a message".to_owned());
        own(&self.0.panic).get_or_insert((worker, message));
        self.set();
    }
}

/// Runs `logic` on each of `workers` threads of this process, and runs the dataflows that `logic` builds to their end.
/// Returns the results in order of worker.
///
/// `logic` must wait for its dataflow with [`StopSignal::step_while`], never with `Worker::step_or_park_while`, because
/// only [`StopSignal::step_while`] ends when another worker has panicked. Any other wait of `logic` or of an operator
/// must end by itself, or when [`StopSignal::is_set`] returns true. Otherwise a panic of one worker makes the run hang.
///
/// ```
/// use vaplan_dataflows::timely::dataflow::operators::{Exchange, Inspect, Probe, ToStream};
/// use vaplan_dataflows::workers::{WorkersError, run};
///
/// let sums = run(2, |worker, _stop| {
///     let of = worker.index() as u64;
///     worker.dataflow::<u64, _, _>(|scope| {
///         (0..3u64).to_stream(scope).container::<Vec<_>>().exchange(|n| *n).probe();
///     });
///     of
/// });
/// assert_eq!(sums, Ok(vec![0, 1]));
///
/// let failed = run(2, |worker, stop| {
///     let probe = worker.dataflow::<u64, _, _>(|scope| {
///         let numbers = (0..3u64).to_stream(scope).container::<Vec<_>>().exchange(|n| *n);
///         let (probe, _) = numbers.inspect(|n| assert_ne!(*n, 1, "one is refused")).probe();
///         probe
///     });
///     stop.step_while(worker, || !probe.done())
/// });
/// let Err(WorkersError::Panicked { worker, message }) = failed else { panic!("{failed:?}") };
/// assert_eq!(worker, 1);
/// assert!(message.contains("one is refused"));
/// ```
///
/// # Errors
/// Returns [`WorkersError`] if the threads cannot start, a worker panics, or the signal is set. No thread is left then.
pub fn run<T: Send + 'static>(
    workers: usize,
    logic: impl Fn(&mut Worker, &StopSignal) -> T + Send + Sync + 'static,
) -> Result<Vec<T>, WorkersError> {
    let signal = StopSignal::default();
    let guards = start(workers, &signal, logic)?;
    let ends: Vec<Option<T>> = guards
        .join()
        .into_iter()
        .map(|end| end.expect("the guard catches every panic of the thread"))
        .collect();
    if let Some((worker, message)) = signal.panic() {
        return Err(WorkersError::Panicked { worker, message });
    }
    ends.into_iter()
        .collect::<Option<Vec<T>>>()
        .ok_or(WorkersError::Stopped)
}

/// Starts `logic` as [`run`] does, but returns once the threads are started. The result of each thread is the result of
/// [`StopSignal::guard`].
///
/// # Errors
/// Returns [`WorkersError::NoWorkers`] if `workers` is 0, and [`WorkersError::Start`] if the threads cannot start.
pub fn start<T: Send + 'static>(
    workers: usize,
    signal: &StopSignal,
    logic: impl Fn(&mut Worker, &StopSignal) -> T + Send + Sync + 'static,
) -> Result<WorkerGuards<Option<T>>, WorkersError> {
    if workers == 0 {
        return Err(WorkersError::NoWorkers);
    }
    let signal = signal.clone();
    timely::execute(timely::Config::process(workers), move |worker| {
        signal.guard(worker, |worker| logic(worker, &signal))
    })
    .map_err(WorkersError::Start)
}

/// The threads of one process in a dataflow that has workers in several processes.
pub struct ConnectedThreads {
    /// What makes the allocator of each worker of this process.
    pub builders: Vec<AllocatorBuilder>,
    /// Holds the threads that send and receive. It is dropped when the workers have ended.
    pub network: Box<dyn Any + Send>,
    /// Index of the first worker of this process, among the workers of all processes.
    pub first: usize,
}

impl fmt::Debug for ConnectedThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedThreads")
            .field("workers", &self.builders.len())
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// Starts `logic` as [`start`] does, on the workers of one of several processes. If another process is lost, the returned
/// value can wait for ever when it is joined or dropped.
///
/// # Errors
/// Returns the same errors as [`start`].
pub fn start_connected<T: Send + 'static>(
    threads: ConnectedThreads,
    signal: &StopSignal,
    logic: impl Fn(&mut Worker, &StopSignal) -> T + Send + Sync + 'static,
) -> Result<WorkerGuards<Option<T>>, WorkersError> {
    if threads.builders.is_empty() {
        return Err(WorkersError::NoWorkers);
    }
    let signal = signal.clone();
    timely::execute::execute_from(
        threads.builders,
        threads.network,
        timely::WorkerConfig::default(),
        move |worker| signal.guard(worker, |worker| logic(worker, &signal)),
    )
    .map_err(WorkersError::Start)
}

/// Locks the mutex, also after a holder panicked: every assignment leaves the guarded value valid.
fn own<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Panics once in a process if the environment variable `VAPLAN_FAULT` is `panic-PLACE`. The function does this only in
/// builds with debug assertions. Tests use it to check that a panic in any operator ends a run with an error.
#[doc(hidden)]
#[inline]
pub fn panic_point(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if !cfg!(debug_assertions) {
        return;
    }
    let wanted = WANTED.get_or_init(|| {
        let fault = std::env::var("VAPLAN_FAULT").ok()?;
        fault.strip_prefix("panic-").map(str::to_owned)
    });
    if wanted.as_deref() == Some(place) && !PANICKED.swap(true, Ordering::SeqCst) {
        panic!("injected into {place}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::{Exchange, Inspect, Probe};

    use super::*;

    /// A test fails after this time instead of never ending.
    const HANG: Duration = Duration::from_secs(120);

    /// Where the panic is injected.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Place {
        /// Before the worker has built its dataflow.
        Start,
        /// While the dataflow is built.
        Building,
        /// In an operator, at a record.
        Operator,
        /// In the closure, between steps.
        Closure,
        /// When the dataflow is dropped, after a panic of an operator.
        Drop,
    }

    const PLACES: [Place; 5] = [
        Place::Start,
        Place::Building,
        Place::Operator,
        Place::Closure,
        Place::Drop,
    ];

    /// Panics when dropped.
    struct Brittle(bool);

    impl Drop for Brittle {
        fn drop(&mut self) {
            assert!(!self.0, "dropped");
        }
    }

    /// A dataflow that never ends by itself, and a panic in worker `broken` of it.
    fn panics(workers: usize, broken: usize, place: Place) -> Result<Vec<Result<(), Stopped>>, WorkersError> {
        run(workers, move |worker, stop| {
            let here = |at| place == at && worker.index() == broken;
            let peers = worker.peers() as u64;
            let at = PLACES.map(here);
            assert!(!at[0], "injected");
            // The open input keeps the dataflow alive: only the signal ends the run.
            let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<u64>>>::new();
            let probe = worker.dataflow::<u64, _, _>(|scope| {
                let brittle = Brittle(at[4]);
                assert!(!at[1], "injected");
                let numbers = input.to_stream(scope).exchange(|n| *n);
                let (probe, _) = numbers
                    .inspect(move |_| {
                        // Borrow the whole value, so that the closure captures the value and not only its field.
                        let Brittle(broken) = &brittle;
                        assert!(!at[2] && !broken, "injected");
                    })
                    .probe();
                probe
            });
            (0..peers).for_each(|n| input.send(n));
            // A flush alone leaves the records in the buffers of the exchange.
            input.advance_to(1);
            if at[3] {
                worker.step();
                panic!("injected");
            }
            stop.step_while(worker, || !probe.done())
        })
    }

    #[test]
    fn a_panic_anywhere_ends_all_workers_with_an_error_and_no_hang() {
        for place in PLACES {
            for (workers, broken) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)] {
                let (to, end) = channel();
                std::thread::spawn(move || to.send(panics(workers, broken, place)));
                let error = end
                    .recv_timeout(HANG)
                    .unwrap_or_else(|_| panic!("{workers} workers hang: {place:?} in worker {broken}"))
                    .unwrap_err();
                let expected = format!("dataflow worker {broken} panicked: injected");
                assert_eq!(error.to_string(), expected, "{place:?}, {workers} workers");
            }
        }
    }

    #[test]
    fn a_signal_that_is_set_stops_workers_that_wait() {
        let signal = StopSignal::default();
        let guards = start(2, &signal, |worker, stop| stop.step_while(worker, || true)).unwrap();
        signal.set();
        for end in guards.join() {
            assert_eq!(end.unwrap(), Some(Err(Stopped)));
        }
    }

    #[test]
    fn no_workers_are_refused() {
        let refused = run(0, |_worker, _stop| ()).unwrap_err();
        assert_eq!(refused.to_string(), "workers is 0, expected at least 1");
    }
}
