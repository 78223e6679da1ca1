//! The graph kept in memory: input changes of a version in, output changes out.
//!
//! ```text
//! start(world) ─┐  ┌═ worker 0 ═ inputs ─ labelling ─ outputs ═┐
//! apply(changes)┴──┼═ worker 1 ═ inputs ─ labelling ─ outputs ═┼─▶ Outcome
//!  one share each  └═ ...                                     ═┘
//! ```
//!
//! Workers are threads that sleep between versions. The time of a version in the dataflow is its number, counted from 0
//! in each session. When all workers have passed a version, [`GraphSession::apply`] returns its output. The traces may
//! then be compacted: they keep the current rows, not the history of versions.
//!
//! With a [`Learner`], each version also has an epoch. The epoch of version v starts when the labels of v are complete.
//! Version v + 1 completes only when the epoch of v has ended, because the predictions of that epoch can flip labels of
//! v + 1.

mod peers;
mod rows;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};

use timely::communication::WorkerGuards;
use vaplan_schemas::Modality;

pub use self::peers::{SessionPeers, SessionWorkers, host};
pub use self::rows::{Rows, Updates};
use self::worker::{Answer, Command, LearnerSlot, Share};
use crate::outcome::{Outcome, Output};
use crate::records::{LabelRecord, VideoId};
use crate::train::{Learner, LearnerStatus};
use crate::workers::{StopSignal, WorkersError};

/// Why a session cannot go on. The state of the session is lost; the caller must start a new one from its own inputs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The caller asked for no worker.
    #[error("workers is 0, expected at least 1")]
    NoWorkers,
    /// Timely could not start the threads.
    #[error("the dataflow cannot start: {0}")]
    Start(String),
    /// A worker panicked, which is a bug, not bad input.
    #[error("a dataflow worker stopped: {0}")]
    Worker(String),
    /// The learner returned this error.
    #[error("{0}")]
    Learner(String),
    /// A process that has workers of the session is lost.
    #[error("{0}")]
    Lost(String),
    /// An earlier call failed, so the session has ended.
    #[error("the dataflow has stopped before")]
    Stopped,
}

impl From<WorkersError> for SessionError {
    fn from(error: WorkersError) -> SessionError {
        match error {
            WorkersError::NoWorkers => SessionError::NoWorkers,
            WorkersError::Start(error) => SessionError::Start(error),
            WorkersError::Panicked { message, .. } => SessionError::Worker(message),
            WorkersError::Stopped => SessionError::Stopped,
        }
    }
}

/// The resident dataflow. Dropping the session stops its threads.
pub struct GraphSession {
    commands: Vec<Sender<Command>>,
    answers: Receiver<Answer>,
    guards: Option<WorkerGuards<Option<()>>>,
    /// The other processes that have workers of this session.
    peers: Option<Box<dyn SessionPeers>>,
    stop: StopSignal,
    /// By worker of this process.
    held: Arc<[AtomicI64]>,
    learner: Option<Arc<LearnerStatus>>,
    problem: Arc<OnceLock<String>>,
    version: u64,
    outcome: Outcome,
    touched: BTreeSet<VideoId>,
    labels_before: LabelsBefore,
}

/// Label records of the version before, by video and modality; `None` where there was none.
pub type LabelsBefore = BTreeMap<(VideoId, Modality), Option<Arc<LabelRecord>>>;

impl fmt::Debug for GraphSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("workers", &self.commands.len())
            .field("version", &self.version)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl GraphSession {
    /// Starts the workers on the rows of `world`, which become version 0. The label changes of version 0 are the
    /// differences from `previous`.
    ///
    /// # Errors
    /// Returns [`SessionError`] if the workers do not start or one of them panics. No thread is left in that case.
    pub fn start(
        workers: impl Into<SessionWorkers>,
        world: Rows,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
    ) -> Result<GraphSession, SessionError> {
        GraphSession::begin(workers.into(), world, previous, None)
    }

    /// Starts as [`GraphSession::start`] does, with a learner that trains one epoch on the labels of each version.
    ///
    /// The first epoch trains on the labels of version 0. [`GraphSession::apply`] waits until the epoch of the version
    /// before has ended.
    ///
    /// # Errors
    /// Returns [`SessionError`] as [`GraphSession::start`] does.
    pub fn start_learning(
        workers: impl Into<SessionWorkers>,
        world: Rows,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
        learner: Box<dyn Learner>,
    ) -> Result<GraphSession, SessionError> {
        GraphSession::begin(workers.into(), world, previous, Some(learner))
    }

    fn begin(
        workers: SessionWorkers,
        world: Rows,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
        learner: Option<Box<dyn Learner>>,
    ) -> Result<GraphSession, SessionError> {
        let (threads, workers, peers) = match workers {
            SessionWorkers::Alone(workers) => (None, workers, None),
            connected @ SessionWorkers::Connected(..) => {
                let count = connected.count();
                let SessionWorkers::Connected(threads, peers) = connected else {
                    unreachable!("the arm has this variant")
                };
                (Some(threads), count, Some(peers))
            }
        };
        let (answer_to, answers) = channel();
        let (mut commands, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (sender, receiver) = channel();
            commands.push(sender);
            ends.push(Some((receiver, answer_to.clone())));
        }
        // Drop the last sender that no worker holds. Otherwise `answers` would stay open after all workers have ended,
        // and `recv` would wait for ever.
        drop(answer_to);
        let stop = StopSignal::default();
        let held: Arc<[AtomicI64]> = (0..workers).map(|_| AtomicI64::new(0)).collect();
        let slot = learner.map(LearnerSlot::new);
        let status = slot.as_ref().map(|slot| slot.status.clone());
        let problem = slot.as_ref().map(|slot| slot.problem.clone());
        let guards = worker::spawn(threads, ends, &stop, &held, slot)?;
        let mut session = GraphSession {
            commands,
            answers,
            guards: Some(guards),
            peers,
            stop,
            held,
            learner: status,
            problem: problem.unwrap_or_default(),
            version: 0,
            outcome: Outcome::default(),
            touched: BTreeSet::new(),
            labels_before: LabelsBefore::new(),
        };
        let updates = Updates {
            gone: Rows::default(),
            new: world,
        };
        session.advance(updates, previous)?;
        Ok(session)
    }

    /// Applies the changes of the next version. Each removed row must have been added before. A row that is both
    /// removed and added is not a change.
    ///
    /// Work is proportional to the rows that the changes touch.
    ///
    /// # Errors
    /// Returns [`SessionError`] if a worker or the learner failed. The session has ended in that case.
    pub fn apply(&mut self, updates: Updates) -> Result<(), SessionError> {
        self.version += 1;
        self.advance(updates, Vec::new())
    }

    /// The output of the graph at the last version.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Videos whose output differs between the last version and the version before.
    pub fn touched(&self) -> &BTreeSet<VideoId> {
        &self.touched
    }

    /// The label records of the version before that the last version replaced, removed or, as `None`, added. Empty in version 0,
    /// which adds them all.
    pub fn labels_before(&self) -> &LabelsBefore {
        &self.labels_before
    }

    /// The version of the last output, counted from 0.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns whether the learner trains an epoch on the labels of [`GraphSession::version`]. If so, the next version
    /// includes the predictions of that epoch.
    pub fn learning(&self) -> bool {
        let learner = self.learner.as_ref();
        learner.is_some_and(|learner| learner.learns(self.version))
    }

    /// The number of updates that the arrangements hold; memory is proportional to this number. The number depends on
    /// the current rows, not on the number of versions, because traces are compacted.
    pub fn held(&self) -> u64 {
        self.held_by_worker().iter().sum()
    }

    /// The number of [`GraphSession::held`] for each worker.
    pub fn held_by_worker(&self) -> Vec<u64> {
        let held = self.held.iter();
        held.map(|held| held.load(Ordering::SeqCst).max(0) as u64)
            .collect()
    }

    /// Stops the workers, waits for their end, and returns the output at the last version.
    ///
    /// # Errors
    /// Returns [`SessionError::Worker`] if a worker panics while it stops, and [`SessionError::Stopped`] if an earlier
    /// call failed.
    pub fn finish(mut self) -> Result<Outcome, SessionError> {
        match self.join() {
            None => Err(SessionError::Stopped),
            Some(None) => Ok(std::mem::take(&mut self.outcome)),
            Some(Some(message)) => Err(SessionError::Worker(message)),
        }
    }

    /// Stops the workers and waits for their end. The output stays, and no other version can be applied.
    pub fn close(&mut self) {
        self.join();
    }

    fn advance(
        &mut self,
        updates: Updates,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
    ) -> Result<(), SessionError> {
        if self.guards.is_none() {
            return Err(SessionError::Stopped);
        }
        let workers = self.commands.len();
        let shares = rows::shares(updates.gone, workers)
            .into_iter()
            .zip(rows::shares(updates.new, workers))
            .zip(rows::share(previous, workers));
        for (command, ((gone, new), previous)) in self.commands.iter().zip(shares) {
            let share = Box::new(Share {
                updates: Updates { gone, new },
                previous,
            });
            if command.send(Command::Version(share)).is_err() {
                return Err(self.failure());
            }
        }
        self.touched.clear();
        self.labels_before.clear();
        self.outcome.changes.clear();
        for _ in 0..workers {
            let Some(answer) = self.next_answer()? else {
                return Err(self.failure());
            };
            // A record belongs to one worker, so a worker's removals can be applied before its additions.
            let (removed, added): (Vec<_>, Vec<_>) =
                answer.outputs.into_iter().partition(|(_, diff)| *diff < 0);
            for ((video, output), diff) in removed.into_iter().chain(added) {
                debug_assert_eq!(
                    self.outcome.holds(video, &output),
                    diff < 0,
                    "{video:?}, {output:?}"
                );
                self.touched.insert(video);
                if let Output::Labels(modality, _) = &output
                    && self.version > 0
                {
                    // Removals come first, so the first record of a video and modality is that of the version before.
                    let before = || self.outcome.video(video).labels[modality.index()].clone();
                    self.labels_before
                        .entry((video, *modality))
                        .or_insert_with(before);
                }
                self.outcome.update(video, output, diff);
            }
            self.outcome.changes.extend(answer.changes);
        }
        // Sort the changes, so that their order does not depend on the number of workers.
        self.outcome.changes.sort_unstable();
        Ok(())
    }

    /// Waits for the answer of a worker. Returns `None` if the workers have ended.
    fn next_answer(&mut self) -> Result<Option<Answer>, SessionError> {
        let Some(peers) = &mut self.peers else {
            return Ok(self.answers.recv().ok());
        };
        loop {
            match self.answers.recv_timeout(peers::LOOK) {
                Ok(answer) => return Ok(Some(answer)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(problem) = peers.problem() {
                // The workers wait for the lost process for ever, so leave them behind.
                std::mem::forget(self.guards.take());
                return Err(SessionError::Lost(problem));
            }
        }
    }

    /// Returns why a process that has workers of this session is lost; `None` while all processes are there.
    pub fn lost(&mut self) -> Option<String> {
        self.peers.as_mut().and_then(|peers| peers.problem())
    }

    /// Stops the workers that still run, and returns why the session failed.
    fn failure(&mut self) -> SessionError {
        self.stop.set();
        let said = self.join().flatten();
        if let Some(problem) = self.problem.get() {
            return SessionError::Learner(problem.clone());
        }
        SessionError::Worker(said.unwrap_or_else(|| "a worker thread exited unexpectedly".to_owned()))
    }

    /// Waits for the end of all workers. Returns the message of the first worker that panicked, if one did. The outer
    /// `None` says that the workers had been joined before.
    fn join(&mut self) -> Option<Option<String>> {
        // Close the channels of commands, because a worker ends when its channel is closed.
        self.commands.clear();
        let guards = self.guards.take()?;
        let ends = match &mut self.peers {
            None => guards.join(),
            Some(peers) => {
                peers.end();
                match peers::unless_lost(&mut **peers, move || guards.join()) {
                    Some(ends) => ends,
                    None => return Some(self.stop.panic().map(|(_worker, message)| message)),
                }
            }
        };
        let died = ends.into_iter().find_map(Result::err);
        Some(self.stop.panic().map(|(_worker, message)| message).or(died))
    }
}

impl Drop for GraphSession {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_worker_is_an_error_that_says_what_it_said_and_no_hang() {
        for (workers, broken) in [(1, 0), (2, 0), (2, 1), (3, 1)] {
            let mut session = GraphSession::start(workers, Rows::default(), Vec::new()).unwrap();
            session.commands[broken].send(Command::Panic).unwrap();
            let error = session.apply(Updates::default()).unwrap_err();
            assert_eq!(error.to_string(), "a dataflow worker stopped: told to");
            let again = session.apply(Updates::default()).unwrap_err();
            assert_eq!(again, SessionError::Stopped);
            assert_eq!(session.finish(), Err(SessionError::Stopped));
        }
    }

    #[test]
    fn a_session_of_no_workers_is_refused() {
        let refused = GraphSession::start(0, Rows::default(), Vec::new()).unwrap_err();
        assert_eq!(refused.to_string(), "workers is 0, expected at least 1");
    }
}
