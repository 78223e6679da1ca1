//! A store version that stays in memory and is changed from one version to the next.

use std::path::Path;

use vaplan_schemas::store::{Snapshot, Store, WriteLock};

use super::change::{RelabelRequest, RelabelSummary};
use super::cluster::resident::GraphProcesses;
use super::flow::Alone;
use super::part::TouchedRows;
use super::resident::Resident;
use super::{Listener, Progress, patch, whole};
use crate::error::LabelError;
use crate::world::changes::Changes;
use crate::world::resolve::Resolved;
use crate::world::scope::{PredictionScope, Scope};

/// A store whose latest version stays in memory, so that the cost of a change depends only on the rows that it touches.
///
/// [`Session::apply`] commits every change as one store version before it returns. Other processes may change the store
/// between two calls. The session then loads their version before it applies its own change. A session holds about 1 kB
/// for each video, and one thread for each worker.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use vaplan::{Changes, Listener, Session};
///
/// let folder = tempfile::tempdir()?;
/// let request = vaplan::sample(folder.path())?;
/// vaplan::label(&request, &Listener::silent())?;
/// let mut session = Session::open(&request.store, 1, Listener::silent())?;
/// let before = session.version();
/// let mut changes = Changes::default();
/// changes.settings.visual_threshold = Some(1000.0);
/// let summary = session.apply(changes, "raise the visual threshold")?;
/// assert_eq!(session.version(), before + 1);
/// assert!(summary.unset > 0 && summary.set == 0);
/// session.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session {
    store: Store,
    workers: usize,
    listener: Listener,
    /// The graph; `None` if the last change failed after the graph had applied it, so that the graph must be loaded
    /// again.
    resident: Option<Resident>,
    version: u64,
}

impl Session {
    /// Loads the latest version of the store at `path`. `workers` is the number of threads of the graph.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if the store does not exist, has no version, or has a table that cannot be read.
    /// Returns [`LabelError::World`] if the tables contradict each other, and [`LabelError::Stopped`] if the graph does
    /// not start.
    pub fn open(path: &Path, workers: usize, listener: Listener) -> Result<Session, LabelError> {
        let store = Store::open(path)?;
        let snapshot = store.at_version(None)?;
        let resident = Resident::load(&store, &snapshot, &GraphProcesses::alone(workers), &listener)?;
        Ok(Session {
            version: resident.version(),
            resident: Some(resident),
            store,
            workers,
            listener,
        })
    }

    /// The store version that the session holds.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Makes the changes and commits them as one store version. Column `command` of table `versions` gets `command`.
    ///
    /// If no row changes, nothing is committed, and the summary has no version. The call waits while another process
    /// holds the write lock of the store.
    ///
    /// # Errors
    /// Returns [`LabelError::Change`] if one of the changes cannot be made; none of them is made then. Returns
    /// [`LabelError::Cancelled`] if the token of the listener was cancelled, and the errors of [`Session::open`].
    ///
    /// After an error, the version before is still the latest version. There is one exception: if the change labels all
    /// videos again and is committed, and the new version then cannot be loaded, the version exists. In all cases the
    /// session can be used again.
    pub fn apply(&mut self, changes: Changes, command: &str) -> Result<RelabelSummary, LabelError> {
        self.apply_if(changes, command, |_| Ok(()))
    }

    /// Like [`Session::apply`], but first calls `check` with the latest version, while this session holds the write lock of
    /// the store. No other process can then change the store between the check and the commit. If `check` returns an
    /// error, nothing is committed.
    ///
    /// # Errors
    /// Returns the error of `check`, and the errors of [`Session::apply`].
    pub(crate) fn apply_if<E: From<LabelError>>(
        &mut self,
        changes: Changes,
        command: &str,
        check: impl FnOnce(&Snapshot) -> Result<(), E>,
    ) -> Result<RelabelSummary, E> {
        let request = RelabelRequest {
            store: self.store.root().to_owned(),
            changes,
            workers: self.workers,
            dry_run: false,
            command: command.to_owned(),
        };
        let listener = self.listener.clone();
        let lock = self
            .store
            .lock(&mut |holder| listener.tell(Progress::Waiting(holder.to_owned())))
            .map_err(LabelError::from)?;
        let snapshot = self.store.at_version(None).map_err(LabelError::from)?;
        check(&snapshot)?;
        let mut resident = match self.resident.take() {
            Some(mut resident) if resident.is_of(&snapshot)? => {
                resident.moved(snapshot.version().clone());
                resident
            }
            _ => Resident::load(&self.store, &snapshot, &self.processes(), &listener)?,
        };
        self.version = resident.version();
        let prepared = match prepare(&self.store, &snapshot, &request, &listener) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The graph is unchanged, so keep it.
                self.resident = Some(resident);
                return Err(error.into());
            }
        };
        let summary = match prepared {
            PreparedChange::Part(part) => {
                let made = resident.commit(&self.store, &lock, &snapshot, &request, &part)?;
                self.resident = Some(resident);
                made
            }
            PreparedChange::Everything(resolved) => {
                let made = whole::run(
                    &self.store,
                    Some(&lock),
                    &snapshot,
                    &request,
                    *resolved,
                    &mut Alone,
                    &listener,
                )?;
                let latest = self.store.at_version(None).map_err(LabelError::from)?;
                self.resident = Some(Resident::load(
                    &self.store,
                    &latest,
                    &self.processes(),
                    &listener,
                )?);
                made
            }
        };
        if let Some(version) = &summary.version {
            self.version = version.version;
            self.resident
                .iter_mut()
                .for_each(|resident| resident.moved(version.clone()));
        }
        Ok(summary)
    }

    fn processes(&self) -> GraphProcesses {
        GraphProcesses::alone(self.workers)
    }

    /// Ends the session and its threads.
    ///
    /// # Errors
    /// Returns [`LabelError::Stopped`] if a worker of the graph had failed.
    pub fn close(self) -> Result<(), LabelError> {
        self.resident.map_or(Ok(()), Resident::finish)
    }
}

/// A change that is resolved against a version and whose inputs are read, but that the graph has not applied yet.
pub(crate) enum PreparedChange {
    /// The rows that the change can touch.
    Part(Box<TouchedRows>),
    /// The change touches every score, so that all videos must be labelled again.
    Everything(Box<Resolved>),
}

/// Resolves a change and reads the rows that it can touch, for a graph that holds the version `snapshot`.
///
/// # Errors
/// Returns [`LabelError`] if the change cannot be made, or an input cannot be read.
pub(crate) fn prepare(
    store: &Store,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    listener: &Listener,
) -> Result<PreparedChange, LabelError> {
    listener.check()?;
    let mut resolved = Resolved::new(store, snapshot, &request.changes)?;
    let prepared = match Scope::of(snapshot, &mut resolved, PredictionScope::Session)? {
        Scope::Everything => PreparedChange::Everything(Box::new(resolved)),
        Scope::Part(touched) => {
            let part = TouchedRows::load(snapshot, resolved, touched, request.workers, listener)?;
            PreparedChange::Part(Box::new(part))
        }
    };
    listener.check()?;
    Ok(prepared)
}

impl Resident {
    /// Applies a part to the graph, and commits the rows that change.
    ///
    /// # Errors
    /// Returns [`LabelError`]. The graph may then have a change that the store does not have, so the caller must load
    /// the graph again.
    pub(crate) fn commit(
        &mut self,
        store: &Store,
        lock: &WriteLock,
        snapshot: &Snapshot,
        request: &RelabelRequest,
        part: &TouchedRows,
    ) -> Result<RelabelSummary, LabelError> {
        let outcome = self.apply(part)?;
        patch::commit(store, Some(lock), snapshot, request, part, outcome)
    }
}
