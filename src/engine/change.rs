//! One change to one store version, at the cost of what the change touches.
//!
//! ```text
//! changes ── resolve ─ the world after, and what is of single videos
//!               └─ scope ─ which videos as a whole, which tracks of all videos; or everything
//!                    ├─ part ─ loads these from the tables, reads the features it must, labels, patches the tables
//!                    └─ whole ─ labels all videos again, as `vaplan label` does
//! ```
//!
//! Both ways give the same tables, row for row: the label logic is one graph
//! ([`labelling`](vaplan_dataflows::graph::labelling)), and rows that a change cannot touch are not read.

use std::path::{Path, PathBuf};

use vaplan_dataflows::Pld;
use vaplan_schemas::rows::{LabelChangeRow, RejectRow, VersionRow};
use vaplan_schemas::store::{Snapshot, Store, WriteLock};

use super::rebase::{self, RebaseRequest};
use super::{part, patch, whole};
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::ingest::IngestError;
use crate::world::Both;
use crate::world::changes::Changes;
use crate::world::flips::Flips;
use crate::world::resolve::Resolved;
use crate::world::scope::{PredictionScope, Scope};

/// What is asked of a relabelling run.
#[derive(Clone, Debug)]
pub struct RelabelRequest {
    /// Store to change.
    pub store: PathBuf,
    /// What to change.
    pub changes: Changes,
    /// Timely workers.
    pub workers: usize,
    /// Say what would change, and commit nothing.
    pub dry_run: bool,
    /// What was asked, as a command line, for the `versions` table.
    pub command: String,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default)]
pub struct RelabelSummary {
    /// The new version; none: nothing changed, or a dry run.
    pub version: Option<VersionRow>,
    /// Cells that were set.
    pub set: u64,
    /// Cells that were unset.
    pub unset: u64,
    /// Of a dry run: the rows that `label_changes` would get, by key.
    pub changes: Vec<LabelChangeRow>,
    /// Videos looked at as a whole, and videos of which single tracks were.
    pub videos: (u64, u64),
    /// Rows or tracks that the run took away from, and added to, tables; not told of a change of everything.
    pub rows: Vec<(&'static str, u64, u64)>,
    /// All labels that PLD flips after it, where it named an epoch of the store.
    pub flips: Option<Flips>,
    /// K, α and guard after it, of audio and visual; none: not denoised.
    pub denoising: Both<Option<Pld>>,
    /// Rows that were rejected or noted in what this run read.
    pub rejected: Vec<RejectRow>,
}

/// Makes the change and commits it as one store version; one that changes nothing commits nothing.
///
/// # Errors
/// [`LabelError`]: a store without a version, a change that cannot be made, an input that cannot be used at all. Bad
/// rows beside good ones are in [`RelabelSummary::rejected`] and in table `rejects`.
pub fn run(request: &RelabelRequest, listener: &Listener) -> Result<RelabelSummary, LabelError> {
    let store = Store::open(&request.store)?;
    if request.dry_run {
        let snapshot = store.at_version(None)?;
        return apply(&store, None, &snapshot, request, listener);
    }
    let lock = store.lock(&mut |holder| listener.tell(Progress::Waiting(holder.to_owned())))?;
    let snapshot = store.at_version(None)?;
    let error = match apply(&store, Some(&lock), &snapshot, request, listener) {
        Err(error @ LabelError::RelativeInputs { .. }) => error,
        done => return done,
    };
    // A store of an older program: if the working directory holds its inputs, the store records that first.
    let moved = RebaseRequest {
        store: request.store.clone(),
        from: PathBuf::from("."),
        to: std::env::current_dir().map_err(IngestError::io("resolve", Path::new(".")))?,
        workers: request.workers,
        command: request.command.clone(),
    };
    match rebase::commit(&store, &lock, &snapshot, &moved, listener) {
        Ok(done) => tracing::warn!(
            store = %store.root().display(),
            folder = %moved.to.display(),
            version = done.version.version,
            "the store recorded relative paths: a version now records them below the working directory"
        ),
        Err(problem) => {
            tracing::warn!(problem = %problem, "the working directory does not hold the inputs of the store");
            return Err(error);
        }
    }
    apply(&store, Some(&lock), &store.at_version(None)?, request, listener)
}

fn apply(
    store: &Store,
    lock: Option<&WriteLock>,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    listener: &Listener,
) -> Result<RelabelSummary, LabelError> {
    let mut resolved = Resolved::new(store, snapshot, &request.changes)?;
    match Scope::of(snapshot, &mut resolved, PredictionScope::Flipped)? {
        Scope::Everything => whole::run(store, lock, snapshot, request, resolved, listener),
        Scope::Part(touched) => {
            let part = part::Part::load(snapshot, resolved, touched, request.workers, listener)?;
            let mut answers = patch::Answers::default();
            let changes = answers.take(part.label(request.workers)?);
            listener.check()?;
            listener.tell(Progress::Committing);
            patch::commit(store, lock, snapshot, request, &part, &answers, changes)
        }
    }
}
