//! Operator: label changes of a version to a learner, and the predictions of the learner's epoch back.
//!
//! ```text
//! labels ── to one worker ── train ── predictions ─▶ at version v; the loop makes them an input from v + 1 on
//!                            │   ▲
//!                  bounded   ▼   │   channels
//!                     training thread
//! ```
//!
//! The time of the dataflow is a version number, called `step` in this module, and each version has at most one epoch.
//! The operator holds the capability of the version whose epoch is running until the predictions of the epoch are sent.
//! No later version can complete before that, so a version never misses the predictions of the epoch before. The worker
//! itself never waits for the training thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use differential_dataflow::consolidation::{consolidate, consolidate_updates};
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::scheduling::SyncActivator;
use vaplan_schemas::Modality;
use vaplan_schemas::contain::contain;

use crate::prediction::Prediction;
use crate::records::{LabelRecord, VideoId};

/// The label record of a video and modality.
type KeyedRecord = ((VideoId, Modality), Arc<LabelRecord>);

/// Label records that were added (+1) and removed (-1), sorted, each record once.
pub type RecordChanges = Vec<(KeyedRecord, isize)>;

/// The prediction of a video and modality.
pub type Predicted = (VideoId, (Modality, Arc<Prediction>));

/// A model in training. It runs in its own thread, so that no worker waits for it.
pub trait Learner: Send {
    /// Trains the epoch of version `step`. `labels` has the label records that changed since the version before; at the
    /// first version, `labels` has all label records.
    ///
    /// # Errors
    /// Returns a message if the training cannot go on. [`LearnerHandle::fail`] gets the message, and the dataflow
    /// cannot complete another version.
    fn epoch(&mut self, step: u64, labels: RecordChanges) -> Result<Learnt, String>;
}

/// The result of an epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learnt {
    /// Predictions that PLD uses from the next version on. They replace all predictions that the learner returned
    /// before; `None` keeps the earlier predictions. At most one prediction per video and modality.
    pub predictions: Option<Vec<Predicted>>,
    /// Whether the learner trains another epoch.
    pub more: bool,
}

/// A learner and its connections to the dataflow. Worker 0 holds it.
pub struct LearnerHandle {
    /// The model in training.
    pub learner: Box<dyn Learner>,
    /// Progress of the learner.
    pub status: Arc<LearnerStatus>,
    /// Called with the reason why no further epoch will end. It must stop the workers, because otherwise a worker that
    /// waits for the next version would wait for ever.
    pub fail: Box<dyn Fn(String)>,
}

/// Progress of a learner, shared between the operator and the code that waits for it.
#[derive(Debug)]
pub struct LearnerStatus {
    /// Number of versions whose labels the learner has.
    received: AtomicU64,
    /// Number of versions that have an epoch; `u64::MAX` until the learner says that there are no more epochs.
    steps: AtomicU64,
}

impl Default for LearnerStatus {
    fn default() -> LearnerStatus {
        LearnerStatus {
            received: AtomicU64::new(0),
            steps: AtomicU64::new(u64::MAX),
        }
    }
}

impl LearnerStatus {
    /// Returns whether version `step` has an epoch. This is known when the epoch of the version before has ended. Until
    /// then, the function returns true.
    pub fn learns(&self, step: u64) -> bool {
        step < self.steps.load(Ordering::SeqCst)
    }

    /// Returns whether the learner has the labels of version `step`, or does not need them.
    pub fn knows(&self, step: u64) -> bool {
        self.received.load(Ordering::SeqCst) > step || !self.learns(step)
    }
}

/// Sends the label changes of each version to the learner when the version is complete, and emits the learner's
/// predictions at that version.
///
/// `handle` is `Some` on worker 0 only. `labels` holds at most one record per video and modality. Besides the work of
/// the learner, work is proportional to the records that changed and to the predictions that the learner returns.
pub fn train<'scope>(
    labels: VecCollection<'scope, u64, KeyedRecord>,
    handle: Option<LearnerHandle>,
) -> VecCollection<'scope, u64, Predicted> {
    let scope = labels.scope();
    let to_one = Exchange::new(|_: &(KeyedRecord, u64, isize)| 0);
    let predictions = labels
        .inner
        .unary_frontier(to_one, "Train", move |capability, info| {
            // Workers without the learner drop their capability here, so that they do not hold the frontier.
            let mut thread = handle.map(|handle| {
                let wake = scope.worker().sync_activator_for(info.address.to_vec());
                LearnerThread::begin(handle, capability, wake)
            });
            let mut waiting: BTreeMap<u64, RecordChanges> = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each_time(|_time, updates| {
                    for (record, at, diff) in updates.flat_map(|updates| updates.drain(..)) {
                        if thread.is_some() {
                            waiting.entry(at).or_default().push((record, diff));
                        }
                    }
                });
                let Some(own) = &mut thread else { return };
                if let Some(updates) = own.answer() {
                    output.session(&own.capability).give_iterator(updates.into_iter());
                    if !own.go_on() {
                        thread = None;
                        waiting.clear();
                        return;
                    }
                }
                let step = *own.capability.time();
                if !own.learning && !frontier.less_equal(&step) {
                    let later = waiting.split_off(&(step + 1));
                    let mut labels: RecordChanges = waiting.values_mut().flat_map(std::mem::take).collect();
                    waiting = later;
                    consolidate(&mut labels);
                    own.tell(step, labels);
                }
            }
        });
    predictions.as_collection()
}

/// A version and its label changes.
type EpochInput = (u64, RecordChanges);
type EpochResult = Result<Learnt, String>;

/// The training thread, as worker 0 sees it.
struct LearnerThread {
    status: Arc<LearnerStatus>,
    fail: Box<dyn Fn(String)>,
    /// Capability of the version whose epoch is running or comes next.
    capability: Capability<u64>,
    learning: bool,
    more: bool,
    given: Vec<Predicted>,
    epochs: Option<Sender<EpochInput>>,
    answers: Receiver<EpochResult>,
    thread: Option<JoinHandle<()>>,
}

impl LearnerThread {
    fn begin(handle: LearnerHandle, capability: Capability<u64>, wake: SyncActivator) -> LearnerThread {
        let LearnerHandle {
            mut learner,
            status,
            fail,
        } = handle;
        // Each channel needs room for one message only, because there is at most one epoch at a time.
        let (epochs, received) = bounded::<EpochInput>(1);
        let (answer, answers) = bounded::<EpochResult>(1);
        let thread = std::thread::spawn(move || {
            for (step, labels) in received {
                let learnt = contain(|| learner.epoch(step, labels));
                let learnt = learnt.unwrap_or_else(|panic| Err(format!("training panicked: {panic}")));
                // Both calls fail only if the worker has ended. No one waits for the answer then.
                let _ = answer.send(learnt);
                let _ = wake.activate();
            }
        });
        LearnerThread {
            status,
            fail,
            capability,
            learning: false,
            more: true,
            given: Vec::new(),
            epochs: Some(epochs),
            answers,
            thread: Some(thread),
        }
    }

    fn tell(&mut self, step: u64, labels: RecordChanges) {
        self.learning = true;
        let epochs = self.epochs.as_ref().expect("it is there until the end");
        // This fails only if the thread ended early. `answer` then finds the channel of answers closed and reports it.
        let _ = epochs.send((step, labels));
        self.status.received.store(step + 1, Ordering::SeqCst);
    }

    /// Returns the updates of the predictions if an epoch has ended; `None` if the epoch is still running, has failed,
    /// or was not started.
    fn answer(&mut self) -> Option<Vec<(Predicted, u64, isize)>> {
        if !self.learning {
            return None;
        }
        let learnt = match self.answers.try_recv() {
            Ok(learnt) => learnt,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("the training thread exited unexpectedly".to_owned()),
        };
        let learnt = match learnt {
            Ok(learnt) => learnt,
            Err(problem) => {
                // Keep the capability, so that a version whose epoch failed never completes.
                (self.fail)(problem);
                return None;
            }
        };
        self.more = learnt.more;
        let step = *self.capability.time();
        let mut updates = Vec::new();
        if let Some(predictions) = learnt.predictions {
            let gone = std::mem::replace(&mut self.given, predictions);
            updates.extend(gone.into_iter().map(|own| (own, step, -1)));
            updates.extend(self.given.iter().map(|own| (own.clone(), step, 1)));
            consolidate_updates(&mut updates);
        }
        Some(updates)
    }

    /// Moves the capability to the next version after an epoch. Returns whether the next version has an epoch.
    fn go_on(&mut self) -> bool {
        self.learning = false;
        let next = self.capability.time() + 1;
        if self.more {
            self.capability.downgrade(&next);
        } else {
            self.status.steps.store(next, Ordering::SeqCst);
        }
        self.more
    }
}

impl Drop for LearnerThread {
    fn drop(&mut self) {
        // Close the channel of epochs. The thread ends after the epoch that is running.
        self.epochs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
