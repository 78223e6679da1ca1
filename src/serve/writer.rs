//! The thread that saves corrections and verdicts. It has the only session of the server, and takes the write lock of the store for each
//! save, so that `watch` and other commands can write in between.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::audit::{SavedVerdicts, VerdictError, VerdictRequest};
use super::save::{SaveError, SaveRequest, SavedVersion, UndoEdits};
use super::{ServeError, ServeRequest};
use crate::engine::Listener;
use crate::engine::session::Session;
use crate::error::LabelError;
use vaplan_schemas::store::Store;

/// Saves that can wait for the thread.
const WAITING: usize = 64;

/// A request, the time of its arrival, and where its answer goes.
#[derive(Debug)]
enum ReviewJob {
    Save(
        SaveRequest,
        Instant,
        oneshot::Sender<Result<SavedVersion, SaveError>>,
    ),
    Verdicts(
        VerdictRequest,
        Instant,
        oneshot::Sender<Result<SavedVerdicts, VerdictError>>,
    ),
}

/// What the thread tells the server after each request that succeeded.
pub(super) trait WriterListener: Send + 'static {
    /// A correction was saved, or changed nothing.
    fn saved(&self, request: &SaveRequest, saved: &SavedVersion);
    /// Verdicts were saved. No label changed.
    fn judged(&self, saved: &SavedVerdicts);
}

/// Hands saves to the thread.
#[derive(Debug)]
pub(super) struct ReviewWriter {
    jobs: SyncSender<ReviewJob>,
    thread: JoinHandle<()>,
}

impl ReviewWriter {
    /// Starts the thread, which loads the graph at once.
    pub(super) fn start(
        request: &ServeRequest,
        store: Store,
        listener: impl WriterListener,
    ) -> Result<ReviewWriter, ServeError> {
        let (jobs, waiting) = sync_channel(WAITING);
        let request = request.clone();
        let thread = std::thread::Builder::new()
            .name("save".to_owned())
            .spawn(move || work(&request, &store, &waiting, &listener))
            .map_err(|error| ServeError::Start(error.to_string()))?;
        Ok(ReviewWriter { jobs, thread })
    }

    /// Hands in a save. Returns `None` if too many saves wait.
    pub(super) fn save(
        &self,
        request: SaveRequest,
        arrived: Instant,
    ) -> Option<oneshot::Receiver<Result<SavedVersion, SaveError>>> {
        let (answer, answered) = oneshot::channel();
        self.hand_in(ReviewJob::Save(request, arrived, answer))
            .then_some(answered)
    }

    /// Hands in verdicts. Returns `None` if too many requests wait.
    pub(super) fn judge(
        &self,
        request: VerdictRequest,
        arrived: Instant,
    ) -> Option<oneshot::Receiver<Result<SavedVerdicts, VerdictError>>> {
        let (answer, answered) = oneshot::channel();
        self.hand_in(ReviewJob::Verdicts(request, arrived, answer))
            .then_some(answered)
    }

    fn hand_in(&self, job: ReviewJob) -> bool {
        match self.jobs.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Completes the saves that wait, and ends the thread.
    pub(super) fn end(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the thread that saves corrections ended by a panic");
        }
    }
}

fn work(request: &ServeRequest, store: &Store, waiting: &Receiver<ReviewJob>, listener: &dyn WriterListener) {
    let mut session = match open(request) {
        Ok(session) => Some(session),
        Err(error) => {
            // The next save tries again, and its answer has the reason.
            tracing::warn!(%error, "the graph of the store cannot be loaded");
            None
        }
    };
    while let Ok(job) = waiting.recv() {
        let (save, arrived, answer) = match job {
            ReviewJob::Save(save, arrived, answer) => (save, arrived, answer),
            ReviewJob::Verdicts(verdicts, arrived, answer) => {
                let done = verdicts.save(store, request.author.as_ref(), &request.command, arrived);
                if let Ok(done) = &done {
                    listener.judged(done);
                }
                let _ = answer.send(done);
                continue;
            }
        };
        let done = match session.take().map_or_else(|| open(request), Ok) {
            Ok(open) => {
                let done = commit(session.insert(open), request, &save, arrived);
                // After an error of the store, begin with a new session.
                if matches!(done, Err(SaveError::Label(_))) {
                    session = None;
                }
                done
            }
            Err(error) => Err(error.into()),
        };
        if let Ok(done) = &done {
            listener.saved(&save, done);
        }
        // A client that has gone has no use for the answer. The save is done all the same.
        let _ = answer.send(done);
    }
    if let Some(Err(error)) = session.map(Session::close) {
        tracing::warn!(%error, "the session did not end as expected");
    }
}

fn open(request: &ServeRequest) -> Result<Session, LabelError> {
    Session::open(&request.store, request.workers, Listener::silent())
}

fn commit(
    session: &mut Session,
    request: &ServeRequest,
    save: &SaveRequest,
    arrived: Instant,
) -> Result<SavedVersion, SaveError> {
    let mut undo = UndoEdits::default();
    let author: Option<&Arc<str>> = request.author.as_ref();
    let summary = session.apply_if(save.changes(author), &request.command, |latest| {
        undo = save.check_against(latest)?;
        Ok::<_, SaveError>(())
    })?;
    Ok(SavedVersion {
        version: session.version(),
        saved: summary.version.is_some(),
        set: summary.set,
        unset: summary.unset,
        undo: undo.edits,
        undo_weak: undo.weak,
        milliseconds: arrived.elapsed().as_secs_f64() * 1e3,
    })
}
