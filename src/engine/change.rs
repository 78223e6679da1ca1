//! Turns one change into one store version. The cost depends on the rows that the change touches.
//!
//! ```text
//! changes ── resolve ─ the world after the change, and the changes of single videos
//!               └─ scope ─ some whole videos and some tracks of all videos; or everything
//!                    ├─ part ─ load the rows of these videos, read features if needed, label, patch the tables
//!                    ├─ tracks ─ label these tracks bucket by bucket, without features and without the graph
//!                    └─ whole ─ label all videos again, as `vaplan label` does
//! ```
//!
//! All ways give the same tables, row for row, because all use the functions of [`decide`](mod@vaplan_dataflows::decide). The
//! first two are faster, because they do not read rows that the change cannot touch.

use std::path::{Path, PathBuf};

use vaplan_dataflows::DenoisingRule;
use vaplan_schemas::rows::{LabelChangeRow, RejectRow, VersionRow};
use vaplan_schemas::store::{Snapshot, Store, WriteLock};

use vaplan_schemas::tables::{Labels, Scores, Table};

use super::rebase::{self, RebaseRequest};
use super::tracks::{TrackChanges, TracksAnew};
use super::{lost, part, patch, whole};
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::ingest::IngestError;
use crate::world::Both;
use crate::world::changes::Changes;
use crate::world::flips::{FlipCounts, Reflipped};
use crate::world::resolve::Resolved;
use crate::world::scope::{PredictionScope, Scope};

/// A change of a store, as one command asks for it.
#[derive(Clone, Debug)]
pub struct RelabelRequest {
    /// Store to change.
    pub store: PathBuf,
    /// Changes to make.
    pub changes: Changes,
    /// Number of timely workers.
    pub workers: usize,
    /// If true, report what would change, and commit nothing.
    pub dry_run: bool,
    /// The command line, for column `command` of table `versions`.
    pub command: String,
}

/// What a change did, or what a dry run would do.
#[derive(Clone, Debug, Default)]
pub struct RelabelSummary {
    /// The new version; `None` if no row changed, or after a dry run.
    pub version: Option<VersionRow>,
    /// Number of labels that the change set.
    pub set: u64,
    /// Number of labels that the change unset.
    pub unset: u64,
    /// After a dry run: the rows that table `label_changes` would get, sorted by key.
    pub changes: Vec<LabelChangeRow>,
    /// Number of videos that were labelled as a whole, and number of videos of which only single tracks were labelled.
    pub videos: (u64, u64),
    /// For each changed table: its name, the number of rows that were removed, and the number that were added. Empty
    /// after a dry run, or if the change labelled all videos again.
    pub rows: Vec<(&'static str, u64, u64)>,
    /// The numbers of all labels that PLD flips after the change; `None` unless the change names an epoch of the store.
    pub flips: Option<FlipCounts>,
    /// The denoising rules of audio and visual after the change; `None` for a modality that is not denoised.
    pub denoising: Both<Option<DenoisingRule>>,
    /// Rejected rows and notes of the inputs that this run read.
    pub rejected: Vec<RejectRow>,
}

/// Makes the change and commits it as one store version. If no row changes, nothing is committed.
///
/// # Errors
/// Returns [`LabelError`] if the store has no version, the change cannot be made, or an input cannot be used at all.
/// Single bad rows of an input are not errors: [`RelabelSummary::rejected`] and table `rejects` list them.
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
    // An older program recorded relative paths. If the working directory holds these inputs, first commit a version
    // with absolute paths, and then make the change.
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
        Scope::Part(mut touched) => {
            let tracks = std::mem::take(&mut touched.tracks);
            let covered = |own: &Reflipped| {
                let class = resolved.after.class_id(&own.new.class);
                class.is_some_and(|class| tracks.contains(&(own.new.modality, class)))
            };
            touched.flipped.retain(|own| !covered(own));
            let part = part::TouchedRows::load(snapshot, resolved, touched, request.workers, listener)?;
            let outcome = part.label(request.workers)?;
            lost::check_part(&part, &outcome, &request.changes)?;
            listener.check()?;
            listener.tell(Progress::Committing);
            let elsewhere = &part.touched.videos;
            let tracks = match tracks.is_empty() {
                true => None,
                false => Some(TracksAnew::new(snapshot, &part.resolved, &tracks, elsewhere)?),
            };
            let own = (&part, &outcome);
            patch::commit_with_tracks(store, lock, snapshot, request, own, tracks.as_ref(), listener)
        }
    }
}

impl RelabelSummary {
    /// Adds what labelling tracks of all videos changed, and with `flips` the flips of all labels.
    pub(super) fn add_tracks(&mut self, done: &TrackChanges, flips: bool) {
        self.set += done.set;
        self.unset += done.unset;
        self.videos.1 += done.videos;
        if flips {
            self.flips = Some(done.flips.clone());
        }
        let tables = [Labels::NAME, Scores::NAME];
        let changed = tables.into_iter().zip(done.rows).filter(|(_, rows)| *rows > 0);
        self.rows.extend(changed.map(|(table, rows)| (table, rows, rows)));
    }
}
