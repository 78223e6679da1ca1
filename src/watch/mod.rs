//! `vaplan watch`: files dropped into a folder become store versions, with the graph kept in memory.
//!
//! ```text
//! inbox ── delivery ─ what it is, by its name; its hash ─┐        (a hash the store knows: already done)
//!            └─ place ─ features get a place of their own ┴─ batch ── resolve, scope, part ── resident ── commit
//!                                                                       (as `relabel` does)    │
//!                                                              rows that are gone and new ─────┘
//! ```
//!
//! A batch is one store version, and the version names the deliveries it is made of: whether a delivery is done is asked
//! of the store, never of the inbox. So a process may be killed anywhere. What a batch costs is what it touches: the
//! session holds the rest.
//!
//! Own training learns the labels of the latest version, epoch by epoch, in a thread of its own: a delivery waits for the
//! commit of an epoch, never for the epoch. Its predictions go the way of an epoch from outside, through the same session to the same PLD.
//!
//! | module | what |
//! |---|---|
//! | [`delivery`] | what a file or folder in the inbox means, and its hash |
//! | [`inbox`] | what lies there, and where it goes when it is done or has failed |
//! | [`order`] | which deliveries make one batch |
//! | [`place`] | features: inputs of the store, so they get a place in it |
//! | [`events`] | what wakes a watch: the inbox, a signal |
//! | [`batch`] | deliveries to one store version |
//! | [`blame`] | a batch that cannot be made: whose fault that is |
//! | [`training`], `learnt` | a parser that learns beside it, and what becomes of its epochs |
//! | [`status`], [`metrics`] | what others may know of it |

pub mod batch;
pub mod blame;
pub mod delivery;
pub mod events;
pub mod inbox;
#[cfg(feature = "train")]
mod learnt;
pub mod metrics;
pub mod order;
pub mod place;
pub mod status;
#[cfg(feature = "train")]
pub mod training;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use vaplan_schemas::store::Store;

use crate::error::LabelError;
use crate::error::chain;
use batch::{BatchSummary, Batches};
pub use events::StopHandle;
use events::{Events, WatchEvent};
use inbox::Inbox;
use status::Board;

/// What is asked of a watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Store to change; it holds a version.
    pub store: PathBuf,
    /// Folder to watch; made where there is none.
    pub inbox: PathBuf,
    /// Timely workers.
    pub workers: usize,
    /// Ends the watch.
    pub stop: StopHandle,
    /// Where the status is written.
    pub status: Option<PathBuf>,
    /// Where metrics are served; loopback.
    pub metrics: Option<SocketAddr>,
    /// Own training; none: epochs come from outside alone.
    #[cfg(feature = "train")]
    pub training: Option<training::OwnTrainingRequest>,
}

/// What a watch tells while it runs.
#[derive(Debug)]
pub enum WatchProgress<'a> {
    /// The graph is loaded from this version; `others`: because another process made it.
    Loaded {
        /// Store version.
        version: u64,
        /// Videos held.
        videos: usize,
        /// Was another version held before?
        others: bool,
    },
    /// Metrics are served here.
    Metrics(SocketAddr),
    /// Another process writes to the store.
    Waiting(String),
    /// A delivery could not be used; it lies in `failed`, with the reason beside it.
    Failed {
        /// Its name in the inbox.
        name: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A batch is done.
    Batch(&'a BatchSummary),
    /// An epoch of own training is in the store.
    #[cfg(feature = "train")]
    Epoch {
        /// As there.
        row: &'a vaplan_schemas::rows::EpochRow,
        /// It is the best so far of its training.
        better: bool,
    },
    /// Labels are denoised by an epoch of own training.
    #[cfg(feature = "train")]
    Denoised {
        /// Epoch.
        epoch: u64,
        /// Version that it made; none: the labels are as they were.
        version: Option<u64>,
        /// Cells that were set and unset.
        cells: (u64, u64),
    },
    /// An own training is done.
    #[cfg(feature = "train")]
    Trained {
        /// Its best epoch.
        epoch: u64,
    },
    /// Own training is at rest, and why: until what it learns from is another.
    #[cfg(feature = "train")]
    Rests(&'a str),
    /// Own training cannot go on; the next delivery that counts has it tried again.
    #[cfg(feature = "train")]
    TrainingFailed(&'a str),
    /// It ends, as it was asked to.
    Stopped,
}

/// What ends a watch that was not asked to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The store cannot be read or written, or the dataflow stopped.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The inbox, or what is beside it, cannot be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Metrics cannot be served.
    #[error("metrics at {address}: {problem}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why not.
        problem: String,
    },
    /// Own training cannot begin, or its epochs cannot be kept.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] crate::parser::TrainError),
    /// The file that describes own training.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Config(#[from] crate::run::RunError),
}

impl WatchError {
    /// For `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> WatchError {
        let path = path.into();
        move |source| WatchError::Io { action, path, source }
    }
}

impl From<vaplan_schemas::StoreError> for WatchError {
    fn from(error: vaplan_schemas::StoreError) -> WatchError {
        WatchError::Label(error.into())
    }
}

/// As often the inbox is looked at where the system does not say that it changed.
const LOOK_ALONE: Duration = Duration::from_secs(1);
/// As often it is looked at all the same: a network file system tells only of its own machine's changes.
const LOOK_BESIDE: Duration = Duration::from_secs(10);

/// Takes what comes into the inbox, until [`StopHandle::stop`] is called.
///
/// # Errors
/// [`WatchError`]; the store is then at its last version, and what is not done lies in the inbox.
pub fn run(request: &WatchRequest, told: &mut dyn FnMut(WatchProgress<'_>)) -> Result<(), WatchError> {
    let mut board = Board::new(request.status.clone());
    let result = watch(request, &mut board, told);
    match &result {
        Ok(()) => board.state("stopped", None)?,
        // What went wrong is the answer, not that it could not be written down as well.
        Err(error) => drop(board.state("failed", Some(chain(error)))),
    }
    result
}

fn watch(
    request: &WatchRequest,
    board: &mut Board,
    told: &mut dyn FnMut(WatchProgress<'_>),
) -> Result<(), WatchError> {
    let store = Store::open(&request.store)?;
    // Before anything is waited for: a file that cannot be used is to be told at once.
    #[cfg(feature = "train")]
    let asked = request
        .training
        .as_ref()
        .map(|asked| asked.read(&store))
        .transpose()?;
    let inbox = Inbox::open(&request.inbox)?;
    let mut events = Events::start(&request.inbox, &request.stop);
    if let Some(address) = request.metrics {
        let address = metrics::serve(address, board.figures())?;
        board.serves(address);
        told(WatchProgress::Metrics(address));
    }
    board.state("loading", None)?;
    let mut batches = Batches::load(&store, &inbox, request, board, told)?;
    board.state("watching", None)?;
    let look = if events.notified() {
        LOOK_BESIDE
    } else {
        LOOK_ALONE
    };
    #[cfg(feature = "train")]
    let training = asked.map(|asked| training::TrainingThread::start(asked, events.waker()));
    while !events.stopped() {
        #[cfg(feature = "train")]
        if let Some(training) = &training
            && let Some(report) = training.report()
        {
            if !batches.learnt(report, &mut events, board, told)? {
                break;
            }
            training.go_on();
        }
        // What came in while a batch was made makes the next.
        if batches.next(&mut events, board, told)? {
            #[cfg(feature = "train")]
            training.iter().for_each(training::TrainingThread::news);
            continue;
        }
        match events.wait(look) {
            Some(WatchEvent::Stop) => break,
            Some(WatchEvent::Look | WatchEvent::Locked(_)) | None => {}
        }
    }
    #[cfg(feature = "train")]
    drop(training);
    batches.finish()?;
    told(WatchProgress::Stopped);
    Ok(())
}
