//! `vaplan watch`: makes store versions of the files that appear in a folder, and keeps the graph in memory.
//!
//! ```text
//! inbox ── delivery ─ kind, by its name; its hash ───────┐        (a delivery that the store records: already done)
//!            └─ place ─ copies features into the store ──┴─ batch ── resolve, scope, part ── resident ── commit
//!                                                                       (as `relabel` does)    │
//!                                                              rows that are gone and new ─────┘
//! ```
//!
//! A batch is one store version, and the version records its deliveries. The store, and not the inbox, decides whether
//! a delivery is done, so the process may be killed at any moment. The cost of a batch depends on what the batch
//! touches, because the session holds all other rows in memory.
//!
//! With `--train`, a training thread learns the labels of the latest version, epoch by epoch. A delivery waits for the
//! commit of an epoch, but not for the epoch itself. The predictions of such an epoch pass the same session and the
//! same PLD as those of a delivered epoch.
//!
//! | module | purpose |
//! |---|---|
//! | [`delivery`] | finds the kind and the hash of a file or folder in the inbox |
//! | [`inbox`] | lists the inbox, and moves deliveries to `done` and `failed` |
//! | [`order`] | decides which deliveries make one batch |
//! | `media` | encodes delivered media into features |
//! | [`place`] | copies delivered features into the store, because they stay inputs of the store |
//! | [`events`] | wakes the watch after a change of the inbox, a report of the training, or a signal |
//! | [`batch`] | makes one store version of a batch |
//! | [`blame`] | finds the deliveries that may have caused an error of a batch |
//! | [`training`], `learnt` | train a parser beside the watch, and commit its epochs |
//! | [`status`], [`metrics`] | write the status file, and serve numbers to Prometheus |

pub mod batch;
pub mod blame;
pub mod delivery;
pub mod events;
pub(crate) mod http;
pub mod inbox;
#[cfg(feature = "train")]
mod learnt;
#[cfg(feature = "encode")]
mod media;
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

use crate::engine::cluster::frame::Frame;
use crate::engine::cluster::meeting::RequestValues;
use crate::engine::cluster::member::ClusterMember;
use crate::engine::cluster::resident::GraphProcesses;
use crate::engine::cluster::settings::ClusterSettings;
use crate::error::LabelError;
use crate::error::chain;
use batch::{BatchSummary, Batches};
pub use events::StopHandle;
use events::{Events, WatchEvent};
use inbox::Inbox;
use status::Board;

/// A watch, as a caller requests it.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Store to change. It must have a version.
    pub store: PathBuf,
    /// Folder to watch. The watch creates it if it does not exist.
    pub inbox: PathBuf,
    /// Number of timely workers.
    pub workers: usize,
    /// How this process takes part in a cluster. `None`: this process works alone.
    pub cluster: Option<ClusterSettings>,
    /// Handle that ends the watch.
    pub stop: StopHandle,
    /// File to write the status to. `None`: no status is written.
    pub status: Option<PathBuf>,
    /// Address to serve metrics on, which must be a loopback address. `None`: no metrics are served.
    pub metrics: Option<SocketAddr>,
    /// The encoders of delivered media. `None`: media are refused.
    #[cfg(feature = "encode")]
    pub media: Option<crate::encode::EncodeRequest>,
    /// Training beside the watch. `None`: epochs come only from deliveries.
    #[cfg(feature = "train")]
    pub training: Option<std::sync::Arc<dyn BesideTraining>>,
}

/// Progress of a watch.
#[derive(Debug)]
pub enum WatchProgress<'a> {
    /// The graph was loaded from a store version.
    Loaded {
        /// Store version.
        version: u64,
        /// Number of videos in memory.
        videos: usize,
        /// Whether the graph was loaded again because another process made this version.
        others: bool,
    },
    /// Metrics are served on this address.
    Metrics(SocketAddr),
    /// Another process writes to the store, and the watch waits for it. The text names that process.
    Waiting(String),
    /// A delivery could not be used. It was moved to `failed`, and the reason was written beside it.
    Failed {
        /// Name of the delivery in the inbox.
        name: &'a str,
        /// Reason why it could not be used.
        reason: &'a str,
    },
    /// A batch was committed, or all of its deliveries were done before.
    Batch(&'a BatchSummary),
    /// An epoch of the training was committed.
    #[cfg(feature = "train")]
    Epoch {
        /// The row of the epoch in table `epochs`.
        row: &'a vaplan_schemas::rows::EpochRow,
        /// Whether the epoch is the best one so far of its training.
        better: bool,
    },
    /// The labels were denoised by an epoch of the training.
    #[cfg(feature = "train")]
    Denoised {
        /// Number of the epoch in the store.
        epoch: u64,
        /// Version that was committed. `None`: no label changed.
        version: Option<u64>,
        /// Numbers of labels that were set and unset.
        cells: (u64, u64),
    },
    /// A training is complete.
    #[cfg(feature = "train")]
    Trained {
        /// Number of its best epoch in the store.
        epoch: u64,
    },
    /// The training rests, for this reason, until its data set changes.
    #[cfg(feature = "train")]
    Rests(&'a str),
    /// The training failed, or its epoch could not denoise the labels, for this reason. A failed training is tried
    /// again after the next change.
    #[cfg(feature = "train")]
    TrainingFailed(&'a str),
    /// The watch ends, because [`StopHandle::stop`] was called.
    Stopped,
}

/// Error that ends a watch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The store cannot be read or written, or the dataflow stopped.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A file of the inbox, or a file that the watch writes, cannot be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// Action that failed.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: std::io::Error,
    },
    /// Metrics cannot be served.
    #[error("metrics at {address}: {problem}")]
    Metrics {
        /// Address that was requested.
        address: SocketAddr,
        /// What is wrong, and what is expected instead.
        problem: String,
    },
    /// Delivered media cannot be encoded, because an encoder cannot be used.
    #[cfg(feature = "encode")]
    #[error(transparent)]
    Encode(#[from] crate::encode::EncodeError),
    /// The training cannot begin, or its epochs cannot be committed.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] crate::parser::TrainError),
    /// The file that describes the training cannot be used.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Config(#[from] crate::run::RunError),
}

impl WatchError {
    /// Returns a function that makes [`WatchError::Io`] of an error of the system, for `map_err`.
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

/// Time between two looks at the inbox if the system does not report its changes.
const LOOK_ALONE: Duration = Duration::from_secs(1);
/// Time between two looks at the inbox if the system reports its changes. A network file system reports only the
/// changes of its own machine, so the watch must look in any case.
const LOOK_BESIDE: Duration = Duration::from_secs(10);

/// Commits the deliveries of the inbox, until [`StopHandle::stop`] is called.
///
/// # Errors
/// Returns [`WatchError`] if the watch cannot continue. The store keeps its last version, and deliveries that were not
/// committed stay in the inbox.
pub fn run(request: &WatchRequest, on_progress: &mut dyn FnMut(WatchProgress<'_>)) -> Result<(), WatchError> {
    let mut board = Board::new(request.status.clone());
    let asked = asked(request);
    let result = GraphProcesses::join(request.cluster.as_ref(), request.workers, asked)
        .map_err(WatchError::from)
        .and_then(|processes| {
            let done = watch(request, &processes, &mut board, on_progress);
            let told = done
                .as_ref()
                .map(|version| *version)
                .map_err(|error| chain(error));
            processes.end(told);
            done.map(drop)
        });
    match &result {
        Ok(()) => board.state("stopped", None)?,
        // Return the error that ended the watch, even if the status cannot be written either.
        Err(error) => drop(board.state("failed", Some(chain(error)))),
    }
    result
}

/// A training that a watch runs beside its batches. The watch knows it by this trait only, so that a program that never
/// makes one is not linked to libtorch.
#[cfg(feature = "train")]
pub trait BesideTraining: std::fmt::Debug + Send + Sync {
    /// Reads the inputs of the training, and takes the lock of its checkpoints.
    ///
    /// # Errors
    /// Returns [`WatchError`] if the inputs cannot be used.
    fn prepare(&self, store: &Store) -> Result<StartTraining, WatchError>;
}

/// Starts the training thread. The thread calls the function that is given when it has a report.
#[cfg(feature = "train")]
pub type StartTraining = Box<dyn FnOnce(Box<dyn Fn() + Send>) -> training::TrainingThread>;

/// The values that must be the same in all processes, each with its name.
fn asked(request: &WatchRequest) -> RequestValues {
    let store = request.store.display().to_string();
    RequestValues::from(
        [
            ("command", "watch".to_owned()),
            ("workers", request.workers.to_string()),
            ("store", store),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// Runs the workers of the graph in a process other than process 0, until process 0 stops. Returns the latest version.
///
/// This process reads neither the inbox nor the store.
///
/// # Errors
/// Returns [`LabelError::Cluster`] if the processes do not meet in time, or one of them fails or is lost.
pub fn follow(request: &WatchRequest, settings: &ClusterSettings) -> Result<u64, LabelError> {
    let mut member = ClusterMember::join(settings, asked(request))?;
    member.control.lasts();
    let followed = hosted(&mut member, request.workers);
    member.end(followed)
}

fn hosted(member: &mut ClusterMember, workers: usize) -> Result<u64, LabelError> {
    loop {
        match member.control.next()? {
            (
                _,
                Frame::Graph {
                    learning,
                    workers: of,
                },
            ) => member.host((learning, of), workers)?,
            (_, Frame::Finished(version)) => return Ok(version),
            (process, frame) => return Err(member.unexpected(process, &frame)),
        }
    }
}

/// Watches until it has to stop, and returns the latest version.
fn watch(
    request: &WatchRequest,
    processes: &GraphProcesses,
    board: &mut Board,
    on_progress: &mut dyn FnMut(WatchProgress<'_>),
) -> Result<u64, WatchError> {
    let store = Store::open(&request.store)?;
    // Read the file of the training first, so that an invalid file is reported before the watch waits for anything.
    #[cfg(feature = "train")]
    let start = request
        .training
        .as_ref()
        .map(|training| training.prepare(&store))
        .transpose()?;
    let inbox = Inbox::open(&request.inbox)?;
    let mut events = Events::start(&request.inbox, &request.stop);
    if let Some(address) = request.metrics {
        let address = metrics::serve(address, board.figures())?;
        board.serves(address);
        on_progress(WatchProgress::Metrics(address));
    }
    board.state("loading", None)?;
    let mut batches = Batches::load(&store, &inbox, request, processes, board, on_progress)?;
    board.state("watching", None)?;
    // A lost process is noticed at every look.
    let look = if events.notified() && processes.processes() == 1 {
        LOOK_BESIDE
    } else {
        LOOK_ALONE
    };
    #[cfg(feature = "train")]
    let training = start.map(|start| start(Box::new(events.waker())));
    while !events.stopped() {
        processes.check()?;
        #[cfg(feature = "train")]
        if let Some(training) = &training
            && !training.commit_report(&mut batches, &mut events, board, on_progress)?
        {
            break;
        }
        // Make the next batch immediately, because deliveries may have come while the last batch was made.
        if batches.next(&mut events, board, on_progress)? {
            #[cfg(feature = "train")]
            training.iter().for_each(|training| training.news());
            continue;
        }
        match events.wait(look) {
            Some(WatchEvent::Stop) => break,
            Some(WatchEvent::Look | WatchEvent::Locked(_)) | None => {}
        }
    }
    #[cfg(feature = "train")]
    drop(training);
    let version = batches.resident.version();
    batches.finish()?;
    on_progress(WatchProgress::Stopped);
    Ok(version)
}
