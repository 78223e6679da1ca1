//! One worker of a session: its thread, from the first command to the last.

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

use super::rows::{Outcome, Updates};
use crate::feed::Feed;
use crate::graph::{labelling, learning};
use crate::records::{LabelRecord, VideoId};
use crate::train::{Learner, Seat, Status};
use crate::workers::{self, StopSignal, WorkersError};

/// What a worker is told.
pub(super) enum Command {
    /// Its share of the next version.
    Version(Box<Share>),
    /// To break, as a bug would.
    #[cfg(test)]
    Panic,
}

/// A worker's share of a version.
pub(super) struct Share {
    pub(super) updates: Updates,
    pub(super) previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
}

/// A worker's part of a version: records whose difference is 0 are left out.
pub(super) type Answer = Outcome;

/// The ends of a worker's two channels.
pub(super) type Ends = (Receiver<Command>, Sender<Answer>);

/// Who learns, until the worker that it sits at has taken it.
pub(super) struct School {
    learner: Mutex<Option<Box<dyn Learner>>>,
    pub(super) status: Arc<Status>,
    /// Why training cannot go on.
    pub(super) problem: Arc<OnceLock<String>>,
}

impl School {
    pub(super) fn new(learner: Box<dyn Learner>) -> School {
        School {
            learner: Mutex::new(Some(learner)),
            status: Arc::default(),
            problem: Arc::default(),
        }
    }

    /// For the first worker.
    fn seat(&self, worker: usize, stop: &StopSignal) -> Option<Seat> {
        let mut learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner);
        let learner = learner.take_if(|_| worker == 0)?;
        let (stop, own) = (stop.clone(), self.problem.clone());
        Some(Seat {
            learner,
            status: self.status.clone(),
            fail: Box::new(move |problem| {
                own.get_or_init(|| problem);
                stop.set();
            }),
        })
    }
}

/// Starts the threads; `held` counts the updates in their arrangements.
pub(super) fn spawn(
    workers: usize,
    ends: Vec<Option<Ends>>,
    stop: &StopSignal,
    held: &Arc<AtomicI64>,
    school: Option<School>,
) -> Result<WorkerGuards<Option<()>>, WorkersError> {
    let ends = Mutex::new(ends);
    let held = held.clone();
    workers::start(workers, stop, move |worker, stop| {
        let mut all = ends.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all[worker.index()].take().expect("a worker starts once");
        drop(all);
        live(worker, own, stop, &held, school.as_ref());
    })
}

/// Runs a worker from the first command until there are no more, or the signal is set.
fn live(
    worker: &mut Worker,
    (commands, answers): Ends,
    stop: &StopSignal,
    held: &Arc<AtomicI64>,
    school: Option<&School>,
) {
    count_held(worker, held.clone());
    let mut graph = Graph::new(worker, school.map(|school| school.seat(worker.index(), stop)));
    // The first worker steps until the learner has the labels, so that it learns while the caller is busy with them.
    let learner = school.filter(|_| worker.index() == 0);
    let told = |version: u64| learner.is_none_or(|school| school.status.knows(version));
    let mut version = 0;
    // The end of commands is the end of the session.
    while let Ok(command) = commands.recv() {
        match command {
            Command::Version(share) => {
                graph.feed(*share, version + 1);
                let probe = graph.probe.clone();
                let waits = || probe.less_than(&(version + 1)) || !told(version);
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
    // The dataflow is not run to its end. Nobody needs its output, and with a learner it may have no end.
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}

/// Counts the updates in all arrangements of the worker as they come, merge and go.
fn count_held(worker: &Worker, held: Arc<AtomicI64>) {
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
            held.fetch_add(change, Ordering::SeqCst);
        }
    });
}

/// Inputs and outputs of the graph on this worker.
struct Graph {
    feed: Feed,
    /// Behind every output.
    probe: ProbeHandle<u64>,
    outcome: Rc<RefCell<Outcome>>,
}

impl Graph {
    /// `seat`: none where no one learns; within, none where it is at another worker.
    fn new(worker: &mut Worker, seat: Option<Option<Seat>>) -> Graph {
        worker.dataflow_named("Session", |scope| {
            let (feed, inputs) = Feed::new(scope);
            let outputs = match seat {
                None => labelling(inputs),
                Some(seat) => learning(inputs, seat),
            };
            let outcome = Rc::new(RefCell::new(Outcome::default()));
            let probe = ProbeHandle::new();
            macro_rules! collect {
                ($output:expr, $field:ident, $update:pat => $made:expr) => {
                    let to = outcome.clone();
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
            collect!(outputs.admitted, admitted,
                ((video, (modality, admitted)), _, diff) => ((*video, *modality, admitted.clone()), *diff));
            collect!(outputs.labels, labels,
                (((video, modality), record), _, diff) => ((*video, *modality, record.clone()), *diff));
            collect!(outputs.audio_visual, audio_visual, (record, _, diff) => (record.clone(), *diff));
            collect!(outputs.faults, faults, (fault, _, diff) => (fault.clone(), *diff));
            collect!(outputs.changes, changes, change => change.clone());
            Graph { feed, probe, outcome }
        })
    }

    /// Hands in updates at the time of now, which then is `next`.
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
            update!(weak scored cutoffs marks predictions denoising);
        }
        feed.advance(next);
    }

    /// What has come out since it was last asked.
    fn collected(&mut self) -> Answer {
        let mut outcome = self.outcome.take();
        consolidate(&mut outcome.admitted);
        consolidate(&mut outcome.labels);
        consolidate(&mut outcome.audio_visual);
        consolidate(&mut outcome.faults);
        outcome.changes.sort_unstable();
        outcome
    }
}
