//! One worker of a session: the thread that runs its commands.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use timely::communication::WorkerGuards;
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::{InspectCore, Probe};
use timely::worker::Worker;
use vaplan_schemas::Modality;

use super::rows::Updates;
use crate::changes::Change;
use crate::feed::Feed;
use crate::graph::{labelling, learning};
use crate::outcome::Output;
use crate::placement::Placement;
use crate::records::{LabelRecord, VideoId};
use crate::train::{Learner, LearnerHandle, LearnerStatus};
use crate::workers::{self, ConnectedThreads, StopSignal, WorkersError};

/// A command of the session to a worker.
pub(super) enum Command {
    /// Process this share of the next version.
    Version(Box<Share>),
    /// Panic, as a bug would.
    #[cfg(test)]
    Panic,
}

/// A worker's share of a version.
pub(super) struct Share {
    pub(super) updates: Updates,
    pub(super) previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
}

/// A worker's part of the output of a version.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Records that were added (1) and removed (-1), each once.
    pub(super) outputs: Vec<((VideoId, Output), isize)>,
    /// Labels that differ from the version before.
    pub(super) changes: Vec<Change>,
}

/// The ends of a worker's two channels.
pub(super) type Ends = (Receiver<Command>, Sender<Answer>);

/// Holds the learner until worker 0 takes it.
pub(super) struct LearnerSlot {
    learner: Mutex<Option<Box<dyn Learner>>>,
    pub(super) status: Arc<LearnerStatus>,
    /// Why training cannot go on.
    pub(super) problem: Arc<OnceLock<String>>,
}

impl LearnerSlot {
    pub(super) fn new(learner: Box<dyn Learner>) -> LearnerSlot {
        LearnerSlot {
            learner: Mutex::new(Some(learner)),
            status: Arc::default(),
            problem: Arc::default(),
        }
    }

    /// Returns the learner on worker 0, and `None` on all other workers.
    fn learner_handle(&self, worker: usize, stop: &StopSignal) -> Option<LearnerHandle> {
        let mut learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner);
        let learner = learner.take_if(|_| worker == 0)?;
        let (stop, own) = (stop.clone(), self.problem.clone());
        Some(LearnerHandle {
            learner,
            status: self.status.clone(),
            fail: Box::new(move |problem| {
                own.get_or_init(|| problem);
                stop.set();
            }),
        })
    }
}

/// Starts the threads. Each keeps the number of updates in its arrangements in its entry of `held`. `threads` are those of
/// process 0, if other processes have workers, too.
pub(super) fn spawn(
    threads: Option<ConnectedThreads>,
    ends: Vec<Option<Ends>>,
    stop: &StopSignal,
    held: &Arc<[AtomicI64]>,
    slot: Option<LearnerSlot>,
) -> Result<WorkerGuards<Option<()>>, WorkersError> {
    let workers = ends.len();
    let ends = Mutex::new(ends);
    let held = held.clone();
    let collects = threads.is_some().then_some(workers as u64);
    let logic = move |worker: &mut Worker, stop: &StopSignal| {
        let mut all = ends.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all[worker.index()].take().expect("a worker starts once");
        drop(all);
        live(worker, own, stop, &held, (slot.as_ref(), collects));
    };
    match threads {
        None => workers::start(workers, stop, logic),
        Some(threads) => workers::start_connected(threads, stop, logic),
    }
}

/// Runs the workers of a process other than process 0, until `stop` is set or a worker panics. `learning` says whether the
/// session has a learner, and `collecting` is the number of workers of process 0.
pub(super) fn host(
    threads: ConnectedThreads,
    (learning, collecting): (bool, usize),
    held: &Arc<[AtomicI64]>,
    stop: &StopSignal,
) -> Result<WorkerGuards<Option<()>>, WorkersError> {
    let (first, held) = (threads.first, held.clone());
    workers::start_connected(threads, stop, move |worker, stop| {
        count_held(worker, first, held.clone());
        let graph = Graph::new(worker, learning.then_some(None), Some(collecting as u64));
        // Process 0 feeds all rows. Without this drop, the inputs of this worker would hold the frontier of all workers.
        drop(graph);
        // Process 0 ends the session, because its dataflow may never end by itself.
        let _ = stop.step_while(worker, || true);
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    })
}

/// Runs the commands of a worker until the channel of commands is closed, or the signal is set.
fn live(
    worker: &mut Worker,
    (commands, answers): Ends,
    stop: &StopSignal,
    held: &Arc<[AtomicI64]>,
    (slot, collects): (Option<&LearnerSlot>, Option<u64>),
) {
    count_held(worker, 0, held.clone());
    let learner = slot.map(|slot| slot.learner_handle(worker.index(), stop));
    let mut graph = Graph::new(worker, learner, collects);
    // Worker 0 steps until the learner has the labels of the version. The learner then trains while the caller works on
    // the answer.
    let learner = slot.filter(|_| worker.index() == 0);
    let knows = |version: u64| learner.is_none_or(|slot| slot.status.knows(version));
    let mut version = 0;
    // The channel closes when the session ends.
    while let Ok(command) = commands.recv() {
        match command {
            Command::Version(share) => {
                graph.feed(*share, version + 1);
                let probe = graph.probe.clone();
                let waits = || probe.less_than(&(version + 1)) || !knows(version);
                if stop.step_while(worker, waits).is_err() {
                    break;
                }
                version += 1;
                if answers.send(graph.collected()).is_err() {
                    break;
                }
            }
            #[cfg(test)]
            Command::Panic => panic!("told to"),
        }
    }
    drop(graph);
    // Drop the dataflow before its end. No one needs its output, and with a learner the dataflow may never end.
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}

/// Counts the updates in all arrangements of the worker, by the log events for new, merged and dropped batches.
/// `first` is the index of the first worker of this process.
fn count_held(worker: &Worker, first: usize, held: Arc<[AtomicI64]>) {
    let index = worker.index() - first;
    let mut register = worker.log_register().expect("the worker was made with a timer");
    register.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_time, events| {
        for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
            let change = match event {
                DifferentialEvent::Batch(batch) => batch.length as i64,
                DifferentialEvent::Merge(merge) => merge
                    .complete
                    .map_or(0, |merged| merged as i64 - (merge.length1 + merge.length2) as i64),
                DifferentialEvent::Drop(batch) => -(batch.length as i64),
                _ => 0,
            };
            held[index].fetch_add(change, Ordering::SeqCst);
        }
    });
}

/// Inputs and outputs of the graph on this worker.
struct Graph {
    feed: Feed,
    /// Follows all outputs of the graph.
    probe: ProbeHandle<u64>,
    answer: Rc<RefCell<Answer>>,
}

impl Graph {
    /// Builds the graph. The outer `None` of `learner_handle` says that the session has no learner; the inner `None`
    /// says that another worker holds the learner. With `collects`, the outputs of all processes move to the first workers,
    /// which are those of process 0; `collects` is their number.
    fn new(
        worker: &mut Worker,
        learner_handle: Option<Option<LearnerHandle>>,
        collects: Option<u64>,
    ) -> Graph {
        worker.dataflow_named("Session", |scope| {
            let (feed, inputs) = Feed::new(scope, Placement::Spread);
            let outputs = match learner_handle {
                None => labelling(inputs),
                Some(learner_handle) => learning(inputs, learner_handle, Placement::Spread),
            };
            let outputs = match collects {
                None => outputs,
                Some(workers) => outputs.collected(workers),
            };
            let answer = Rc::new(RefCell::new(Answer::default()));
            let probe = ProbeHandle::new();
            macro_rules! collect {
                ($output:expr, $field:ident, $update:pat => $made:expr) => {
                    let to = answer.clone();
                    $output
                        .inspect_container(move |event| {
                            if let Ok((_, updates)) = event {
                                let made = updates.iter().map(|$update| $made);
                                to.borrow_mut().$field.extend(made);
                            }
                        })
                        .probe_with(&probe);
                };
            }
            collect!(outputs.admitted, outputs, ((video, (modality, admitted)), _, diff) =>
                ((*video, Output::Admitted(*modality, admitted.clone())), *diff));
            collect!(outputs.labels, outputs, (((video, modality), record), _, diff) =>
                ((*video, Output::Labels(*modality, record.clone())), *diff));
            collect!(outputs.rejections, outputs, ((video, rejection), _, diff) =>
                ((*video, Output::Rejection(rejection.clone())), *diff));
            collect!(outputs.changes, changes, change => change.clone());
            Graph { feed, probe, answer }
        })
    }

    /// Feeds the updates at the current time, and then advances the time to `next`.
    fn feed(&mut self, share: Share, next: u64) {
        let feed = &mut self.feed;
        for record in share.previous {
            feed.previous.insert(record);
        }
        for (rows, diff) in [(share.updates.gone, -1), (share.updates.new, 1)] {
            macro_rules! update {
                ($($input:ident)*) => { $(
                    rows.$input.into_iter().for_each(|row| feed.$input.update(row, diff));
                )* };
            }
            update!(weak scored thresholds user_labels predictions denoising);
        }
        feed.advance(next);
    }

    /// Returns the output since the last call.
    fn collected(&mut self) -> Answer {
        let mut answer = self.answer.take();
        consolidate(&mut answer.outputs);
        answer
    }
}
