//! `vaplan serve`: the review page, a local web application that shows a store and takes corrections of its labels.
//!
//! ```text
//! browser ── listen ── access ─ token, Host, Origin ── routes ─┬─ page      HTML, CSS, JavaScript, built in
//!                                                              ├─ index     what lists need of every video, in memory
//!                                                              ├─ video     one video, read from the tables
//!                                                              ├─ overview  counts, scores and plots of a version
//!                                                              ├─ media     files of a folder, found by video name
//!                                                              ├─ audit     a sample to judge, and the estimates so far
//!                                                              └─ writer    a resident session: one version per save
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `listen` | the address, and connections with limits of number, header size and time |
//! | `access` | refuses requests without the token, and requests that another site caused |
//! | `routes`, `answer` | the paths of the server, and their answers |
//! | `page` | the files of the page |
//! | [`index`] | a compact entry for every video; filters, queues and pages of the list |
//! | [`video`], [`history`] | one video with its scores, labels, truth, predictions, and the versions that changed it |
//! | [`overview`] | the numbers and plots of a whole version |
//! | [`save`], `writer` | a correction: checked against the version that the person saw, then committed |
//! | [`audit`] | a sample of segments, verdicts of a person, precision and recall so far |
//! | `media`, `file` | the media file of a video, and its bytes in ranges |
//! | `state`, `figures` | what the handlers share, and the numbers for Prometheus |
//!
//! A response is of one store version, and names it. Names of videos, classes and authors are data: the server never puts
//! them into HTML, and never uses them as parts of a path.

mod access;
mod answer;
pub mod audit;
mod figures;
mod file;
pub mod history;
pub mod index;
mod listen;
mod media;
pub mod overview;
mod page;
mod routes;
pub mod save;
mod state;
pub mod video;
mod writer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use vaplan_schemas::StoreError;
use vaplan_schemas::store::Store;

use crate::error::LabelError;

/// Request to serve the review page of a store.
#[derive(Clone, Debug)]
pub struct ServeRequest {
    /// Store to show and correct.
    pub store: PathBuf,
    /// Folder with the media of the videos. `None`: the page shows timelines only.
    pub media: Option<PathBuf>,
    /// Port on the loopback address; 0 takes a free port.
    pub port: u16,
    /// If true, corrections are refused.
    pub read_only: bool,
    /// The author of corrections, unless the page names another author.
    pub author: Option<Arc<str>>,
    /// Number of dataflow workers of the session.
    pub workers: usize,
    /// The command line, for column `command` of table `versions`.
    pub command: String,
    /// Ends the server.
    pub stop: ServeStop,
}

/// Ends a server. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct ServeStop(Arc<tokio::sync::Notify>);

impl ServeStop {
    /// Asks the server to end. A save that has begun is completed.
    pub fn stop(&self) {
        self.0.notify_one();
    }

    async fn stopped(&self) {
        self.0.notified().await;
    }
}

/// What a server reports.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServeProgress {
    /// The server answers at this URL. The URL contains the token, so only the user may see it.
    Listening {
        /// The URL that opens the page.
        url: String,
    },
    /// The server has ended.
    Stopped,
}

/// The reason why the page cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table contradicts another table.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The address cannot be bound.
    #[error("address {address}: {problem}; free the port, or let the system choose one with --port 0")]
    Address {
        /// Address that was asked for.
        address: SocketAddr,
        /// The error of the system.
        problem: String,
    },
    /// The media folder cannot be listed.
    #[error("media folder `{path}`: {problem}, expected a folder that can be listed")]
    Media {
        /// Folder that was asked for.
        path: PathBuf,
        /// The error of the system.
        problem: String,
    },
    /// The author cannot be shown.
    #[error("{0}: name another one with --author")]
    Author(String),
    /// A thread, or the random number generator of the system, is not available.
    #[error("cannot start the server: {0}")]
    Start(String),
}

/// Serves the review page until [`ServeRequest::stop`] is used.
///
/// # Errors
/// Returns [`ServeError`] if the author cannot be shown, the store has no version, the media folder cannot be listed, or the address cannot be bound.
/// An error of a single request is an answer to that request, and does not end the server.
pub fn run(request: &ServeRequest, report: &mut dyn FnMut(ServeProgress)) -> Result<(), ServeError> {
    save::check_author(request.author.as_ref()).map_err(ServeError::Author)?;
    let store = Store::open(&request.store)?;
    let latest = store.at_version(None)?.version().version;
    let listener = listen::bind(request.port)?;
    let address = listener
        .local_addr()
        .map_err(|error| ServeError::Start(error.to_string()))?;
    let token = access::Token::random()?;
    let media = request
        .media
        .as_deref()
        .map(media::MediaIndex::read)
        .transpose()?;
    let state = state::ReviewState::start(request, store, latest, media)?;
    let app = routes::router(
        state.clone(),
        access::AccessGate::new(token.clone(), address.port()),
    );
    report(ServeProgress::Listening {
        url: format!("http://{address}/?token={}", token.as_str()),
    });
    listen::serve(listener, app, &request.stop)?;
    state.end();
    report(ServeProgress::Stopped);
    Ok(())
}
