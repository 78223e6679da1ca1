//! Training: the label changes of a step in, the predictions of its epoch out.
//!
//! ```text
//! labels ── to one worker ── train ── predictions ─▶ of step e; fed back, they are there from step e + 1 on
//!                            │   ▲
//!                  bounded   ▼   │   channels
//!                     thread of the learner
//! ```
//!
//! An epoch is a step of the timestamp. The operator holds the capability of the step that is being learnt until its
//! predictions are out, so that no one passes the next step before; the worker itself never waits.

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
use vaplan_schemas::parquet_file::contain;

use crate::prediction::Prediction;
use crate::records::{LabelRecord, VideoId};

/// Labels of a video and modality.
type Labels = ((VideoId, Modality), Arc<LabelRecord>);

/// Label records that came (+1) and went (-1), sorted, each once.
pub type LabelChanges = Vec<(Labels, isize)>;

/// Segment probabilities of a video and modality.
pub type Predicted = (VideoId, (Modality, Arc<Prediction>));

/// A model in training, which no worker waits for.
pub trait Learner: Send {
    /// Learns the epoch of a step; `labels` is what they changed since the step before, and at the first step all.
    ///
    /// # Errors
    /// What keeps the training from going on; the dataflow ends with it.
    fn epoch(&mut self, step: u64, labels: LabelChanges) -> Result<Learnt, String>;
}

/// What an epoch gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learnt {
    /// What PLD goes by from the next step on, in place of all that was given before; none: as before. At most one per
    /// video and modality.
    pub predictions: Option<Vec<Predicted>>,
    /// Is there another epoch?
    pub more: bool,
}

/// A learner's place in a dataflow: on its first worker.
pub struct Seat {
    /// Who learns.
    pub learner: Box<dyn Learner>,
    /// How far it is.
    pub status: Arc<Status>,
    /// Told, once, why there are no more epochs to come: what waits for them would wait for ever.
    pub fail: Box<dyn Fn(String)>,
}

/// How far a learner is.
#[derive(Debug)]
pub struct Status {
    /// Steps whose labels it has.
    told: AtomicU64,
    /// Steps with an epoch; the largest number as long as that is not known.
    steps: AtomicU64,
}

impl Default for Status {
    fn default() -> Status {
        Status {
            told: AtomicU64::new(0),
            steps: AtomicU64::new(u64::MAX),
        }
    }
}

impl Status {
    /// Has this step an epoch? Known once the epoch of the step before is learnt; until then, it is taken to have one.
    pub fn learns(&self, step: u64) -> bool {
        step < self.steps.load(Ordering::SeqCst)
    }

    /// Has it the labels of a step, or no need of them?
    pub fn knows(&self, step: u64) -> bool {
        self.told.load(Ordering::SeqCst) > step || !self.learns(step)
    }
}

/// Hands the label changes of each step to the learner once they are complete, and gives its predictions at that step;
/// `seat` is there on worker 0 only.
///
/// `labels` holds at most one record per video and modality. Work beside the learner's is proportional to the records
/// that changed and, where there are predictions, to those.
pub fn train<'scope>(
    labels: VecCollection<'scope, u64, Labels>,
    seat: Option<Seat>,
) -> VecCollection<'scope, u64, Predicted> {
    let scope = labels.scope();
    let to_one = Exchange::new(|_: &(Labels, u64, isize)| 0);
    let predictions = labels
        .inner
        .unary_frontier(to_one, "Train", move |capability, info| {
            // Everywhere else the capability goes here, at once.
            let mut class = seat.map(|seat| {
                let wake = scope.worker().sync_activator_for(info.address.to_vec());
                Class::begin(seat, capability, wake)
            });
            let mut untold: BTreeMap<u64, LabelChanges> = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each_time(|_time, updates| {
                    for (record, at, diff) in updates.flat_map(|updates| updates.drain(..)) {
                        if class.is_some() {
                            untold.entry(at).or_default().push((record, diff));
                        }
                    }
                });
                let Some(own) = &mut class else { return };
                if let Some(updates) = own.answer() {
                    output.session(&own.capability).give_iterator(updates.into_iter());
                    if !own.go_on() {
                        class = None;
                        untold.clear();
                        return;
                    }
                }
                let step = *own.capability.time();
                if !own.learning && !frontier.less_equal(&step) {
                    let later = untold.split_off(&(step + 1));
                    let mut labels: LabelChanges = untold.values_mut().flat_map(std::mem::take).collect();
                    untold = later;
                    consolidate(&mut labels);
                    own.tell(step, labels);
                }
            }
        });
    predictions.as_collection()
}

/// A step and what it changed.
type Lesson = (u64, LabelChanges);
type Answer = Result<Learnt, String>;

/// A learner at work.
struct Class {
    status: Arc<Status>,
    fail: Box<dyn Fn(String)>,
    /// Of the step that is learnt, or is to be.
    capability: Capability<u64>,
    learning: bool,
    more: bool,
    given: Vec<Predicted>,
    lessons: Option<Sender<Lesson>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl Class {
    fn begin(seat: Seat, capability: Capability<u64>, wake: SyncActivator) -> Class {
        let Seat {
            mut learner,
            status,
            fail,
        } = seat;
        // One of each is on the way at most.
        let (lessons, heard) = bounded::<Lesson>(1);
        let (answer, answers) = bounded::<Answer>(1);
        let thread = std::thread::spawn(move || {
            for (step, labels) in heard {
                let learnt = contain(|| learner.epoch(step, labels));
                let learnt = learnt.unwrap_or_else(|panic| Err(format!("training panicked: {panic}")));
                // Both fail only where the worker is gone: then nobody waits.
                let _ = answer.send(learnt);
                let _ = wake.activate();
            }
        });
        Class {
            status,
            fail,
            capability,
            learning: false,
            more: true,
            given: Vec::new(),
            lessons: Some(lessons),
            answers,
            thread: Some(thread),
        }
    }

    fn tell(&mut self, step: u64, labels: LabelChanges) {
        self.learning = true;
        let lessons = self.lessons.as_ref().expect("it is there until the end");
        // The thread ends with this channel; one that panicked on the way is missed where its answer is.
        let _ = lessons.send((step, labels));
        self.status.told.store(step + 1, Ordering::SeqCst);
    }

    /// What an epoch that is over changes in the predictions; none: there is none.
    fn answer(&mut self) -> Option<Vec<(Predicted, u64, isize)>> {
        if !self.learning {
            return None;
        }
        let learnt = match self.answers.try_recv() {
            Ok(learnt) => learnt,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("training went without a word".to_owned()),
        };
        let learnt = match learnt {
            Ok(learnt) => learnt,
            Err(problem) => {
                // The capability stays: a step without its epoch never passes.
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

    /// After an epoch: is there another?
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

impl Drop for Class {
    fn drop(&mut self) {
        // The thread ends where its lessons do, after the epoch it is at.
        self.lessons = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
