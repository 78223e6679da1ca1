//! The thread that saves corrections. It has the only session of the server, and takes the write lock of the store for each
//! save, so that `watch` and other commands can write in between.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::save::{SaveError, SaveRequest, SavedVersion};
use super::{ServeError, ServeRequest};
use crate::engine::Listener;
use crate::engine::session::Session;
use crate::error::LabelError;

/// Saves that can wait for the thread.
const WAITING: usize = 64;

/// A save, the time of its arrival, and where its answer goes.
type Job = (
    SaveRequest,
    Instant,
    oneshot::Sender<Result<SavedVersion, SaveError>>,
);

/// Hands saves to the thread.
#[derive(Debug)]
pub(super) struct ReviewWriter {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl ReviewWriter {
    /// Starts the thread, which loads the graph at once. `saved` is called after each new version.
    pub(super) fn start(
        request: &ServeRequest,
        saved: impl Fn(&SaveRequest, &SavedVersion) + Send + 'static,
    ) -> Result<ReviewWriter, ServeError> {
        let (jobs, waiting) = sync_channel(WAITING);
        let request = request.clone();
        let thread = std::thread::Builder::new()
            .name("save".to_owned())
            .spawn(move || work(&request, &waiting, &saved))
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
        match self.jobs.try_send((request, arrived, answer)) {
            Ok(()) => Some(answered),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
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

fn work(request: &ServeRequest, waiting: &Receiver<Job>, saved: &dyn Fn(&SaveRequest, &SavedVersion)) {
    let mut session = match open(request) {
        Ok(session) => Some(session),
        Err(error) => {
            // The next save tries again, and its answer has the reason.
            tracing::warn!(%error, "the graph of the store cannot be loaded");
            None
        }
    };
    while let Ok((save, arrived, answer)) = waiting.recv() {
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
            saved(&save, done);
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
    let mut undo = Vec::new();
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
        undo,
        milliseconds: arrived.elapsed().as_secs_f64() * 1e3,
    })
}
