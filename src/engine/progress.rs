//! Progress reports of a run, and the token that cancels a run.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::LabelError;

/// A progress report, which a caller may show to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The run waits, because another process holds the write lock of the store. The text names that process.
    Waiting(String),
    /// All inputs are open. In a cluster, both numbers are those of this process only.
    Planned {
        /// Number of feature shards of both modalities.
        shards: usize,
        /// Number of shards whose scores an earlier, interrupted run has staged. The run does not read them again.
        staged: usize,
    },
    /// A shard is scored, and staged if the run keeps a stage.
    Shard {
        /// Number of segments in the shard.
        segments: u64,
    },
    /// All features that the run needs are scored. The run labels the videos and writes the tables.
    Committing,
}

/// Asks a run to stop. Clones share one state, so that any thread can cancel.
///
/// A cancelled run ends with [`LabelError::Cancelled`] before its commit begins. A commit that has begun is completed.
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

    /// Returns whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Receives the [`Progress`] of a run, from any thread, and carries the token that cancels the run.
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
    /// Makes a listener that calls `hear` with every report.
    pub fn new(hear: impl Fn(Progress) + Send + Sync + 'static) -> Listener {
        Listener {
            hear: Arc::new(hear),
            cancel: CancelToken::default(),
        }
    }

    /// Makes a listener that ignores progress.
    pub fn silent() -> Listener {
        Listener::new(|_| ())
    }

    /// Returns the same listener with this token. The caller keeps a clone of the token to cancel the run.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Listener {
        self.cancel = cancel;
        self
    }

    /// Reports progress.
    pub fn tell(&self, progress: Progress) {
        (self.hear)(progress);
    }

    /// Returns whether the run was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Returns an error if the run was asked to stop, so that a caller can leave with `?`.
    ///
    /// # Errors
    /// Returns [`LabelError::Cancelled`] if the run was asked to stop.
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
