//! What a caller hears of a run, and how it stops one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::LabelError;

/// A step of a run that a caller may show.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Another process holds the store's write lock; the run waits for it. Holds the name of that process.
    Waiting(String),
    /// All inputs are opened. In a cluster, both counts are of this process alone.
    Planned {
        /// Feature shards of both modalities.
        shards: usize,
        /// Shards whose scores an earlier, interrupted run has staged; they are not read again.
        staged: usize,
    },
    /// A shard is scored and staged.
    Shard {
        /// Segments that the shard held.
        segments: u64,
    },
    /// All labels are computed; the tables are being written.
    Committing,
}

/// Asks a run to stop. Clones share one state, so that any thread can cancel.
///
/// A cancelled run ends with [`LabelError::Cancelled`] before its commit begins; a commit that has begun is completed.
///
/// ```
/// use vaplan::CancelToken;
/// let token = CancelToken::default();
/// let of_the_run = token.clone();
/// token.cancel();
/// assert!(of_the_run.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks every run that holds a clone of this token to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Was [`CancelToken::cancel`] called?
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Receives the [`Progress`] of a run, from any thread, and carries the token that stops it.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use vaplan::{Listener, Progress};
///
/// let heard = Arc::new(Mutex::new(Vec::new()));
/// let to = heard.clone();
/// let listener = Listener::new(move |progress| to.lock().unwrap().push(progress));
/// listener.tell(Progress::Committing);
/// assert_eq!(*heard.lock().unwrap(), [Progress::Committing]);
/// ```
#[derive(Clone)]
pub struct Listener {
    hear: Arc<dyn Fn(Progress) + Send + Sync>,
    cancel: CancelToken,
}

impl Listener {
    /// A listener that calls `hear` at every step.
    pub fn new(hear: impl Fn(Progress) + Send + Sync + 'static) -> Listener {
        Listener {
            hear: Arc::new(hear),
            cancel: CancelToken::default(),
        }
    }

    /// A listener that ignores progress.
    pub fn silent() -> Listener {
        Listener::new(|_| ())
    }

    /// The same listener, with a token that the caller keeps a clone of.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Listener {
        self.cancel = cancel;
        self
    }

    /// Reports a step.
    pub fn tell(&self, progress: Progress) {
        (self.hear)(progress);
    }

    /// Was the run asked to stop?
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// # Errors
    /// [`LabelError::Cancelled`] if the run was asked to stop.
    pub(crate) fn check(&self) -> Result<(), LabelError> {
        match self.is_cancelled() {
            true => Err(LabelError::Cancelled),
            false => Ok(()),
        }
    }
}

impl Default for Listener {
    fn default() -> Listener {
        Listener::silent()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}
