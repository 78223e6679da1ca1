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

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vaplan_dataflows::DenoisingRule;
use vaplan_schemas::rows::{LabelChangeRow, RejectRow, Severity, VersionRow};
use vaplan_schemas::store::{PartWriter, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{Labels, Scores, Table};
use vaplan_schemas::{ClassId, Modality};

use super::cluster::follow::{self, Followed, FollowedPlan};
use super::cluster::member::ClusterMember;
use super::flow::Alone;
use super::group::LabellingGroup;
use super::part::TouchedRows;
use super::rebase::{self, RebaseRequest};
use super::share::BucketShare;
use super::tracks::{TrackChanges, TrackCounts, TrackOutput, TracksAnew};
use super::{lost, patch, whole};
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::ingest::IngestError;
use crate::world::Both;
use crate::world::changes::Changes;
use crate::world::flips::FlipCounts;
use crate::world::resolve::Resolved;
use crate::world::scope::{PredictionScope, RelabelledTrack, Scope, Touched};

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
    /// Remarks for the user: new thresholds that set all labels of a modality, or none. They were also logged.
    pub remarks: Vec<String>,
}

/// Makes the change and commits it as one store version. If no row changes, nothing is committed.
///
/// # Errors
/// Returns [`LabelError`] if the store has no version, the change cannot be made, or an input cannot be used at all.
/// Single bad rows of an input are not errors: [`RelabelSummary::rejected`] and table `rejects` list them.
pub fn run(request: &RelabelRequest, listener: &Listener) -> Result<RelabelSummary, LabelError> {
    run_in(request, &mut Alone, listener)
}

/// Like [`run`], for one process or process 0 of several.
pub(crate) fn run_in(
    request: &RelabelRequest,
    group: &mut impl LabellingGroup,
    listener: &Listener,
) -> Result<RelabelSummary, LabelError> {
    if request.dry_run {
        let store = Store::open(&request.store)?;
        let snapshot = store.at_version(None)?;
        return apply(&store, None, &snapshot, request, group, listener);
    }
    let (store, lock, snapshot) = group.open_to_write(
        &request.store,
        request.changes.rows_ahead(&request.store),
        listener,
    )?;
    let summary = locked(&store, &lock, &snapshot, request, group, listener)?;
    match &summary.version {
        Some(version) => {
            let rejected = summary.rejected.iter();
            let rejects = rejected.filter(|row| row.severity == Severity::Reject).count();
            group.committed(version.version, rejects as u64);
        }
        None => group.held(store.at_version(None)?.version().version),
    }
    Ok(summary)
}

fn locked(
    store: &Store,
    lock: &WriteLock,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    group: &mut impl LabellingGroup,
    listener: &Listener,
) -> Result<RelabelSummary, LabelError> {
    let error = match apply(store, Some(lock), snapshot, request, group, listener) {
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
    match rebase::commit(store, lock, snapshot, &moved, listener) {
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
    apply(
        store,
        Some(lock),
        &store.at_version(None)?,
        request,
        group,
        listener,
    )
}

/// Makes the change together with process 0. A change of a part of the store is the work of process 0; a change that
/// touches every score is the work of all processes.
///
/// # Errors
/// Returns the errors of [`run`], and [`LabelError::Cluster`] if a process is lost or fails.
pub(crate) fn follow(
    request: &RelabelRequest,
    member: &mut ClusterMember,
    listener: &Listener,
) -> Result<Followed, LabelError> {
    let plan = |store: &Store, before: Option<Snapshot>| -> Result<FollowedPlan, LabelError> {
        let snapshot = before.expect("process 0 names the version that it changes");
        let mut resolved = Resolved::by_track(store, &snapshot, &request.changes)?;
        match Scope::of(&snapshot, &mut resolved, PredictionScope::Flipped)? {
            Scope::Everything => whole::followed(store, snapshot, request, resolved),
            Scope::Part(_) => Err(member_plans_otherwise()),
        }
    };
    let tracks = |snapshot: &Snapshot, hash: &str, share: BucketShare, writer: &mut PartWriter| {
        let resolved = Resolved::by_track(&Store::open(&request.store)?, snapshot, &request.changes)?;
        follow_tracks(request, snapshot, resolved, (hash, share), writer, listener)
    };
    follow::follow(member, &request.store, request.workers, listener, plan, tracks)
}

/// Labels the tracks of the buckets of this process. The part of the change that touches whole videos is labelled by every
/// process, because its rows are in the buckets, too; process 0 writes its other tables.
fn follow_tracks(
    request: &RelabelRequest,
    snapshot: &Snapshot,
    mut resolved: Resolved,
    (hash, share): (&str, BucketShare),
    writer: &mut PartWriter,
    listener: &Listener,
) -> Result<Option<TrackCounts>, LabelError> {
    let Scope::Part(touched) = Scope::of(snapshot, &mut resolved, PredictionScope::Flipped)? else {
        return Ok(None);
    };
    let (part, tracks) = load(snapshot, resolved, touched, request, listener)?;
    let outcome = part.label(request.workers)?;
    if tracks.is_empty() {
        return Ok(None);
    }
    let tracks = TracksAnew::new(snapshot, &part.resolved, &tracks, &part.touched.videos)?;
    if tracks.hash() != hash {
        return Ok(None);
    }
    let others = patch::other_tracks(snapshot, (&part, &outcome), &tracks)?;
    let done = tracks.label(TrackOutput::Buckets, share, &others, Some(writer), listener)?;
    Ok(done.map(TrackCounts::from))
}

/// The tracks of all videos that a change labels anew.
type Tracks = BTreeSet<(Modality, ClassId)>;

/// Loads the whole videos that a change touches, and separates the tracks of all videos from them.
fn load(
    snapshot: &Snapshot,
    resolved: Resolved,
    mut touched: Touched,
    request: &RelabelRequest,
    listener: &Listener,
) -> Result<(TouchedRows, Tracks), LabelError> {
    let tracks = std::mem::take(&mut touched.tracks);
    let covered = |own: &RelabelledTrack| {
        let class = resolved.after.class_id(&own.new.class);
        class.is_some_and(|class| tracks.contains(&(own.new.modality, class)))
    };
    touched.relabelled.retain(|own| !covered(own));
    let part = TouchedRows::load(snapshot, resolved, touched, request.workers, listener)?;
    Ok((part, tracks))
}

/// The error of a process for which the change touches a part of the store, and for process 0 everything.
fn member_plans_otherwise() -> LabelError {
    LabelError::Change(
        "the change touches a part of the store here, and every score for process 0: expected one program version and \
         one store"
            .to_owned(),
    )
}

fn apply(
    store: &Store,
    lock: Option<&WriteLock>,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    group: &mut impl LabellingGroup,
    listener: &Listener,
) -> Result<RelabelSummary, LabelError> {
    let mut resolved = Resolved::by_track(store, snapshot, &request.changes)?;
    match Scope::of(snapshot, &mut resolved, PredictionScope::Flipped)? {
        Scope::Everything => whole::run(store, lock, snapshot, request, resolved, group, listener),
        Scope::Part(touched) => {
            let (part, tracks) = load(snapshot, resolved, touched, request, listener)?;
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
            patch::commit_with_tracks(
                store,
                lock,
                snapshot,
                request,
                own,
                tracks.as_ref(),
                group,
                listener,
            )
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
