//! The graph kept in memory: a version's changes in, what they change out.
//!
//! ```text
//! start(world) ─┐  ┌═ worker 0 ═ inputs ─ labelling ─ outputs ═┐
//! apply(changes)┴──┼═ worker 1 ═ inputs ─ labelling ─ outputs ═┼─▶ Outcome of the version
//!  a share each    └═ ...                                     ═┘
//! ```
//!
//! Workers are threads that sleep between versions. A version's time is its number; once all workers have passed it, its
//! updates are handed back, and traces may forget how the inputs came to be what they are.
//!
//! With a [`Learner`], a version is an epoch, too: that of version v begins when v is handed back, and v + 1 is complete
//! only when its predictions are, and what they flip.

mod rows;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use timely::communication::WorkerGuards;
use vaplan_schemas::Modality;

pub use self::rows::{Labelled, Outcome, Rows, Updates};
use self::worker::{Answer, Command, School, Share};
use crate::records::{LabelRecord, VideoId};
use crate::train::{Learner, Status};
use crate::workers::{StopSignal, WorkersError};

/// Why a session cannot go on; what it held is lost, the inputs are the caller's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// No worker at all.
    #[error("workers is 0, expected at least 1")]
    NoWorkers,
    /// Threads could not be started.
    #[error("the dataflow cannot start: {0}")]
    Start(String),
    /// A worker panicked: a bug, not bad input.
    #[error("a dataflow worker stopped: {0}")]
    Worker(String),
    /// Training cannot go on: why.
    #[error("{0}")]
    Learner(String),
    /// An earlier call failed.
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

/// The resident dataflow. Dropping it stops its threads.
pub struct GraphSession {
    commands: Vec<Sender<Command>>,
    answers: Receiver<Answer>,
    guards: Option<WorkerGuards<Option<()>>>,
    stop: StopSignal,
    held: Arc<AtomicI64>,
    learner: Option<Arc<Status>>,
    problem: Arc<OnceLock<String>>,
    version: u64,
}

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
    /// Starts the workers on the world as it is, which is version 0; changes are against `previous`.
    ///
    /// # Errors
    /// [`SessionError`]; no thread is left then.
    pub fn start(
        workers: usize,
        world: Rows,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
    ) -> Result<(GraphSession, Outcome), SessionError> {
        GraphSession::begin(workers, world, previous, None)
    }

    /// As [`GraphSession::start`], with someone who learns the labels: at every version an epoch, until there are no more.
    ///
    /// The first begins with version 0. [`GraphSession::apply`] waits for the epoch before, with or without changes of its own.
    ///
    /// # Errors
    /// [`SessionError`]; no thread is left then.
    pub fn start_learning(
        workers: usize,
        world: Rows,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
        learner: Box<dyn Learner>,
    ) -> Result<(GraphSession, Outcome), SessionError> {
        GraphSession::begin(workers, world, previous, Some(learner))
    }

    fn begin(
        workers: usize,
        world: Rows,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
        learner: Option<Box<dyn Learner>>,
    ) -> Result<(GraphSession, Outcome), SessionError> {
        let (answer_to, answers) = channel();
        let (mut commands, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (sender, receiver) = channel();
            commands.push(sender);
            ends.push(Some((receiver, answer_to.clone())));
        }
        // Else the answers would not end where all workers have.
        drop(answer_to);
        let stop = StopSignal::default();
        let held = Arc::new(AtomicI64::new(0));
        let school = learner.map(School::new);
        let status = school.as_ref().map(|school| school.status.clone());
        let problem = school.as_ref().map(|school| school.problem.clone());
        let guards = worker::spawn(workers, ends, &stop, &held, school)?;
        let mut session = GraphSession {
            commands,
            answers,
            guards: Some(guards),
            stop,
            held,
            learner: status,
            problem: problem.unwrap_or_default(),
            version: 0,
        };
        let updates = Updates {
            gone: Rows::default(),
            new: world,
        };
        let outcome = session.advance(updates, previous)?;
        Ok((session, outcome))
    }

    /// Applies the changes of the next version. Rows that are gone must have been there; equal rows that are gone and
    /// new cancel.
    ///
    /// Work is proportional to what the changes touch.
    ///
    /// # Errors
    /// [`SessionError`]; the session is then at its end.
    pub fn apply(&mut self, updates: Updates) -> Result<Outcome, SessionError> {
        self.version += 1;
        self.advance(updates, Vec::new())
    }

    /// The version that was handed back last, from 0.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Is there an epoch of the version that was handed back last? The next version is what comes of it.
    pub fn learning(&self) -> bool {
        let learner = self.learner.as_ref();
        learner.is_some_and(|learner| learner.learns(self.version))
    }

    /// How many updates the arrangements hold: what memory is proportional to. It depends on what the world holds, not
    /// on the number of versions.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst).max(0) as u64
    }

    /// Stops the workers and waits for their end.
    ///
    /// # Errors
    /// [`SessionError::Worker`] where one panics on the way, [`SessionError::Stopped`] where an earlier call failed.
    pub fn finish(mut self) -> Result<(), SessionError> {
        match self.join() {
            None => Err(SessionError::Stopped),
            Some(panics) => panics.map_or(Ok(()), |message| Err(SessionError::Worker(message))),
        }
    }

    fn advance(
        &mut self,
        updates: Updates,
        previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
    ) -> Result<Outcome, SessionError> {
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
        let mut outcome = Outcome::default();
        for _ in 0..workers {
            match self.answers.recv() {
                Ok(answer) => outcome.take(answer),
                Err(_) => return Err(self.failure()),
            }
        }
        outcome.sort();
        Ok(outcome)
    }

    /// Stops what is left of the workers and says why.
    fn failure(&mut self) -> SessionError {
        self.stop.set();
        let said = self.join().flatten();
        if let Some(problem) = self.problem.get() {
            return SessionError::Learner(problem.clone());
        }
        SessionError::Worker(said.unwrap_or_else(|| "it went without a word".to_owned()))
    }

    /// Waits for the end of all workers; what the first of those that panicked said. None where that was done before.
    fn join(&mut self) -> Option<Option<String>> {
        // Workers end where their commands do.
        self.commands.clear();
        let ends = self.guards.take()?.join();
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
            let (mut session, _) = GraphSession::start(workers, Rows::default(), Vec::new()).unwrap();
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
