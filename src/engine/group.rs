//! The processes that label all videos together, as the process that commits sees them.
//!
//! ```text
//! lock ─ stage_all ─ begin the commit ─ workers ─ label and write all passes ─ gather ─ finish ─ committed
//! ```
//!
//! [`Alone`] is a single process. In a cluster, process 0 calls the same functions of its
//! [`ClusterMember`](super::cluster::member::ClusterMember), which tell the other processes what to do.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::store::{Commit, RowsAhead, Snapshot, Store, WriteLock};

use super::commit::VersionWriter;
use super::flow::{Alone, Wait};
use super::passes::Passes;
use super::plan::Plan;
use super::score::{ReadReport, stage_shards};
use super::share::BucketShare;
use super::stage::Stage;
use super::tracks::TrackChanges;
use super::workers::WorkerGroup;
use super::{Listener, Progress};
use crate::error::LabelError;

/// The shards that this process staged.
pub(crate) struct StagedShare {
    /// Their positions in the plan.
    pub(crate) shards: Vec<usize>,
    /// The report of all processes.
    pub(crate) report: ReadReport,
}

/// A commit that labels tracks of all videos anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TracksOfVersion {
    /// The version before.
    pub(crate) before: u64,
    /// The version that the commit makes.
    pub(crate) version: u64,
    /// The number of buckets.
    pub(crate) buckets: u32,
    /// Hash of what process 0 labels (see [`TracksAnew::hash`](super::tracks::TracksAnew::hash)).
    pub(crate) plan: String,
}

/// The processes that label all videos together, as the process that commits sees them.
pub(crate) trait LabellingGroup: Wait {
    /// Takes the write lock of the store.
    ///
    /// # Errors
    /// Returns an error if the lock file cannot be locked, or a process is lost meanwhile.
    fn lock(&mut self, store: &Store, listener: &Listener) -> Result<WriteLock, LabelError>;

    /// Opens an existing store, takes its write lock and opens its last version. The files of `rows` are read meanwhile if the
    /// store is at a URL.
    ///
    /// # Errors
    /// Returns an error if there is no such store or version, the store cannot be locked, or a process is lost meanwhile.
    fn open_to_write(
        &mut self,
        store: &Path,
        rows: RowsAhead,
        listener: &Listener,
    ) -> Result<(Store, WriteLock, Snapshot), LabelError>;

    /// Tells the other processes that the store already has the labels, in this version.
    fn held(&mut self, version: u64);

    /// Has all shards of the plan read, scored and staged. `before` is the version before.
    ///
    /// # Errors
    /// Returns an error if a shard cannot be staged, or a process is lost.
    fn stage_all(
        &mut self,
        store: &Store,
        before: Option<u64>,
        plan: &Arc<Plan>,
        stage: &Stage,
        workers: usize,
        listener: &Listener,
    ) -> Result<StagedShare, LabelError>;

    /// The buckets that this process labels and writes.
    fn share(&self, workers: usize, buckets: u32) -> BucketShare;

    /// Makes the workers for these passes. The commit of the version has begun.
    ///
    /// # Errors
    /// Returns an error if a process is lost before all are connected.
    fn workers(
        &mut self,
        passes: &Passes,
        buckets: u32,
        version: u64,
        workers: usize,
    ) -> Result<WorkerGroup, LabelError>;

    /// Adds the files, counts and rejected rows of the other processes.
    ///
    /// # Errors
    /// Returns an error if a process is lost, or its files are not in the store.
    fn gather(&mut self, writer: &mut VersionWriter<'_>, report: &mut ReadReport) -> Result<(), LabelError>;

    /// Tells the other processes to label the tracks of their buckets anew. The commit has begun. Returns the buckets of this
    /// process.
    ///
    /// # Errors
    /// Returns an error if the store cannot be marked for the other processes.
    fn begin_tracks(
        &mut self,
        store: &Store,
        tracks: TracksOfVersion,
        workers: usize,
    ) -> Result<BucketShare, LabelError>;

    /// Adds the files and counts of the other processes to a commit of tracks.
    ///
    /// # Errors
    /// Returns an error if a process is lost, or its files are not in the store.
    fn gather_tracks(
        &mut self,
        commit: &mut Commit<'_>,
        changes: &mut TrackChanges,
    ) -> Result<(), LabelError>;

    /// Tells the other processes that the version is committed.
    fn committed(&mut self, version: u64, rejects: u64);
}

impl LabellingGroup for Alone {
    fn lock(&mut self, store: &Store, listener: &Listener) -> Result<WriteLock, LabelError> {
        Ok(store.lock(&mut |holder| listener.tell(Progress::Waiting(holder.to_owned())))?)
    }

    fn open_to_write(
        &mut self,
        store: &Path,
        rows: RowsAhead,
        listener: &Listener,
    ) -> Result<(Store, WriteLock, Snapshot), LabelError> {
        let wait = &mut |holder: &str| listener.tell(Progress::Waiting(holder.to_owned()));
        Ok(Store::open_to_write(store, &rows, wait)?)
    }

    fn held(&mut self, _version: u64) {}

    fn stage_all(
        &mut self,
        _store: &Store,
        _before: Option<u64>,
        plan: &Arc<Plan>,
        stage: &Stage,
        workers: usize,
        listener: &Listener,
    ) -> Result<StagedShare, LabelError> {
        let shards: Vec<usize> = (0..plan.shards.len()).collect();
        let report = stage_shards(plan, stage, &shards, workers, listener)?;
        Ok(StagedShare { shards, report })
    }

    fn share(&self, _workers: usize, _buckets: u32) -> BucketShare {
        BucketShare::ALL
    }

    fn workers(
        &mut self,
        _passes: &Passes,
        _buckets: u32,
        _version: u64,
        workers: usize,
    ) -> Result<WorkerGroup, LabelError> {
        Ok(WorkerGroup::alone(workers))
    }

    fn gather(
        &mut self,
        _writer: &mut VersionWriter<'_>,
        _report: &mut ReadReport,
    ) -> Result<(), LabelError> {
        Ok(())
    }

    fn begin_tracks(
        &mut self,
        _store: &Store,
        _tracks: TracksOfVersion,
        _workers: usize,
    ) -> Result<BucketShare, LabelError> {
        Ok(BucketShare::ALL)
    }

    fn gather_tracks(
        &mut self,
        _commit: &mut Commit<'_>,
        _changes: &mut TrackChanges,
    ) -> Result<(), LabelError> {
        Ok(())
    }

    fn committed(&mut self, _version: u64, _rejects: u64) {}
}
