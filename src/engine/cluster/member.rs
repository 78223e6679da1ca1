//! This process in a cluster whose processes have met.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;
use vaplan_schemas::StoreError;
use vaplan_schemas::storage::is_url;
use vaplan_schemas::store::{Commit, RowsAhead, Snapshot, Store, WriteLock};

use super::control::Control;
use super::frame::{Frame, Go, PassesOfVersion, WrittenPart};
use super::hosts::Hosts;
use super::link::{Link, LinkTraffic};
use super::meeting::{ClusterConnections, RequestValues, meet};
use super::peak;
use super::settings::ClusterSettings;
use crate::engine::commit::VersionWriter;
use crate::engine::flow::Wait;
use crate::engine::group::{LabellingGroup, StagedShare, TracksOfVersion};
use crate::engine::passes::Passes;
use crate::engine::plan::Plan;
use crate::engine::score::{ReadReport, stage_shards};
use crate::engine::share::BucketShare;
use crate::engine::stage::Stage;
use crate::engine::tracks::TrackChanges;
use crate::engine::workers::WorkerGroup;
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::error::cluster::ClusterError;

/// The longest silence after which a process does not yet count as lost. Each process sends a message every second.
const SILENCE: Duration = Duration::from_secs(15);

/// This process in a cluster whose processes have met.
pub(crate) struct ClusterMember {
    hosts: Hosts,
    /// The links for frames.
    pub(crate) control: Control,
    /// Makes the links of the next dataflow.
    meeting: Arc<ClusterConnections>,
    /// The links of the first dataflow, until they are taken. They are made at once, so that a process that cannot be reached
    /// is found before any work.
    links: Vec<Option<TcpStream>>,
    /// The number of dataflows until now.
    dataflows: u64,
    session: u64,
    traffic: Arc<LinkTraffic>,
    /// The store that holds the mark by which the other processes recognise it, once the mark is written.
    sealed: Option<Store>,
}

impl ClusterMember {
    /// Waits for all processes, and connects the links of the dataflow.
    ///
    /// # Errors
    /// Returns [`ClusterError`] if a process does not come, has another secret or another request, or is lost.
    pub(crate) fn join(
        settings: &ClusterSettings,
        asked: RequestValues,
    ) -> Result<ClusterMember, ClusterError> {
        let hosts = settings.hosts.clone();
        let mut asked = asked;
        asked.insert("program version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        asked.insert("hosts".to_owned(), hosts.addresses().join(","));
        let mut meeting = meet(settings, asked)?;
        let streams = std::mem::take(&mut meeting.control);
        let session = meeting.session;
        let control = Control::new(&hosts, streams, SILENCE.min(settings.timeout));
        let mut control = control.map_err(|source| ClusterError::Listen {
            bind: None,
            here: hosts.here(),
            source,
        })?;
        let meeting = Arc::new(meeting);
        let connecting = meeting.clone();
        let links = control
            .during(move || connecting.data_links(0))
            .and_then(|links| links);
        let links = match links {
            Ok(links) => links,
            Err(error) => {
                control.say_all(&Frame::Failed(reason(
                    &hosts,
                    &error.to_string(),
                    is_named(&error),
                )));
                control.farewell();
                return Err(error);
            }
        };
        Ok(ClusterMember {
            hosts,
            control,
            meeting,
            links,
            dataflows: 0,
            session,
            traffic: Arc::default(),
            sealed: None,
        })
    }

    /// The hosts of the cluster.
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Returns whether this process commits.
    pub(crate) fn leads(&self) -> bool {
        self.hosts.process() == 0
    }

    /// Tells the other processes why this process ends, if it ends with an error, and closes the links.
    pub(crate) fn end<T>(self, outcome: Result<T, LabelError>) -> Result<T, LabelError> {
        if let Err(error) = &outcome {
            let named = matches!(error, LabelError::Cluster(error) if is_named(error));
            self.fail(&crate::error::chain(error), named);
        }
        self.leave();
        outcome
    }

    /// Tells the other processes why this process ends. `named` says whether the text names the process that failed.
    pub(crate) fn fail(&self, error: &str, named: bool) {
        self.control
            .say_all(&Frame::Failed(reason(&self.hosts, error, named)));
    }

    /// Closes the links.
    pub(crate) fn leave(self) {
        self.control.farewell();
    }

    /// The number of this run, as text.
    pub(crate) fn session(&self) -> String {
        self.session.to_string()
    }

    /// Makes the group of the workers of all processes, for the next dataflow or the next passes. All processes make their
    /// groups in the same order.
    ///
    /// # Errors
    /// Returns [`ClusterError`] if a process is lost before all are connected.
    pub(crate) fn workers(&mut self, workers: usize) -> Result<WorkerGroup, ClusterError> {
        let dataflow = self.dataflows;
        self.dataflows += 1;
        if self.links.is_empty() {
            let meeting = self.meeting.clone();
            self.links = self.control.during(move || meeting.data_links(dataflow))??;
        }
        let sender = self.control.sender();
        let links = std::mem::take(&mut self.links).into_iter().enumerate();
        let links = links
            .map(|(peer, stream)| {
                stream.map(|stream| Link::new(stream, peer, sender.clone(), self.traffic.clone()))
            })
            .collect();
        Ok(WorkerGroup::of_cluster(
            workers,
            self.hosts.process(),
            links,
            sender,
        ))
    }

    /// The buckets of this process.
    pub(crate) fn share(&self, workers: usize, buckets: u32) -> BucketShare {
        BucketShare::of(self.hosts.process(), self.hosts.processes(), workers, buckets)
    }

    /// A name of this process that no other process of any run has.
    pub(crate) fn part_name(&self) -> String {
        format!("{:016x}-{}", self.session, self.hosts.process())
    }

    /// Logs the number of bytes that this process sent on the links of the dataflow, and its largest memory.
    pub(crate) fn log_traffic(&self) {
        let sent = self.traffic.sent();
        let process = self.hosts.process();
        tracing::info!(
            process,
            "sent {sent} bytes of rows and progress to other processes"
        );
        if let Some(peak) = peak::kibibytes() {
            tracing::info!(process, "had at most {peak} KiB of memory");
        }
    }

    /// Reads, scores and stages the shards of this process.
    pub(crate) fn stage(
        &mut self,
        plan: &Arc<Plan>,
        stage: &Stage,
        shards: Vec<usize>,
        workers: usize,
        listener: &Listener,
    ) -> Result<ReadReport, LabelError> {
        let (plan, stage, listener) = (plan.clone(), stage.clone(), listener.clone());
        self.control
            .during(move || stage_shards(&plan, &stage, &shards, workers, &listener))?
    }

    /// Marks the store of process 0, so that the other processes recognise it.
    fn seal(&mut self, store: &Store) -> Result<(), LabelError> {
        store.put_mark(SEAL, &self.session())?;
        self.sealed = Some(store.clone());
        Ok(())
    }

    /// Checks that this process sees the store that process 0 sealed.
    ///
    /// # Errors
    /// Returns [`ClusterError::Store`] if the store is another one, and [`LabelError::Store`] if this process cannot read the
    /// store, for example without credentials.
    pub(crate) fn check_seal(&self, store: &Store) -> Result<(), LabelError> {
        match store.mark_of(SEAL)? {
            Some(sealed) if sealed == self.session() => Ok(()),
            _ => Err(self.elsewhere(store.root().to_owned()).into()),
        }
    }

    /// Opens the store of process 0. A store at a URL need not have a version yet.
    ///
    /// # Errors
    /// Returns [`ClusterError::Store`] if there is no such store, or if it is another one, and [`LabelError::Store`] if this
    /// process cannot read it.
    pub(crate) fn open_sealed(&self, store: &Path) -> Result<Store, LabelError> {
        let opened = match is_url(store) {
            true => Store::create(store),
            false => Store::open(store),
        };
        let opened = opened.map_err(|error| match error {
            StoreError::NoStore { path } => self.elsewhere(path).into(),
            error => LabelError::Store(error),
        })?;
        self.check_seal(&opened)?;
        Ok(opened)
    }

    /// Tells the user and all processes which process holds the write lock.
    fn waiting(&self, listener: &Listener) -> impl FnMut(&str) + Send + use<> {
        let (listener, say_all) = (listener.clone(), self.control.broadcaster());
        move |holder| {
            listener.tell(Progress::Waiting(holder.to_owned()));
            say_all(&Frame::Waiting(holder.to_owned()));
        }
    }

    /// The error of a process that does not see the store of process 0.
    pub(crate) fn elsewhere(&self, store: PathBuf) -> ClusterError {
        ClusterError::Store {
            store,
            leader: self.hosts.peer(0),
        }
    }

    /// The error of a process that sent a frame that was not expected.
    pub(crate) fn unexpected(&self, process: usize, frame: &Frame) -> LabelError {
        let mut said = format!("{frame:?}");
        said.truncate(said.find('(').unwrap_or(said.len()));
        LabelError::Cluster(ClusterError::Lost {
            peer: self.hosts.peer(process),
            why: format!("it said {said} out of turn"),
        })
    }
}

/// Process 0 labels with all others.
impl LabellingGroup for ClusterMember {
    fn lock(&mut self, store: &Store, listener: &Listener) -> Result<WriteLock, LabelError> {
        let (store, mut wait) = (store.clone(), self.waiting(listener));
        let locked = self.control.during(move || store.lock(&mut wait))?;
        Ok(locked?)
    }

    fn open_to_write(
        &mut self,
        store: &Path,
        rows: RowsAhead,
        listener: &Listener,
    ) -> Result<(Store, WriteLock, Snapshot), LabelError> {
        let (store, mut wait) = (store.to_owned(), self.waiting(listener));
        let opened = self
            .control
            .during(move || Store::open_to_write(&store, &rows, &mut wait))?;
        Ok(opened?)
    }

    fn held(&mut self, version: u64) {
        self.control.say_all(&Frame::Held(version));
    }

    fn stage_all(
        &mut self,
        store: &Store,
        before: Option<u64>,
        plan: &Arc<Plan>,
        stage: &Stage,
        workers: usize,
        listener: &Listener,
    ) -> Result<StagedShare, LabelError> {
        self.seal(store)?;
        let staged = |shard: usize| stage.has(&plan.shards[shard].key);
        let mut shares = deal(plan.shards.len(), self.hosts.processes(), staged);
        let hash = plan.hash();
        for (process, share) in shares.iter().enumerate().skip(1) {
            let go = Go {
                before,
                plan: hash.clone(),
                shards: share.clone(),
                denoised: (plan.world.denoising, plan.world.active.clone()),
            };
            self.control.say(process, &Frame::Go(go));
        }
        let shards = positions(std::mem::take(&mut shares[0]));
        let mut report = self.stage(plan, stage, shards.clone(), workers, listener)?;
        let mut missing = self.others();
        while !missing.is_empty() {
            match self.control.next()? {
                (process, Frame::Staged) => drop(missing.remove(&process)),
                (_, Frame::Report(part)) => report.add(part),
                (process, frame) => return Err(self.unexpected(process, &frame)),
            }
        }
        Ok(StagedShare { shards, report })
    }

    fn share(&self, workers: usize, buckets: u32) -> BucketShare {
        ClusterMember::share(self, workers, buckets)
    }

    fn workers(
        &mut self,
        passes: &Passes,
        buckets: u32,
        version: u64,
        workers: usize,
    ) -> Result<WorkerGroup, LabelError> {
        self.control.say_all(&Frame::Passes(PassesOfVersion {
            passes: passes.clone(),
            buckets,
            version,
        }));
        Ok(ClusterMember::workers(self, workers)?)
    }

    fn gather(&mut self, writer: &mut VersionWriter<'_>, report: &mut ReadReport) -> Result<(), LabelError> {
        let mut missing = self.others();
        let mut files = 0;
        while !missing.is_empty() {
            match self.control.next()? {
                (process, Frame::Wrote(part)) if missing.remove(&process).is_some() => {
                    let WrittenPart { totals, files: own } = *part;
                    files += own.len();
                    writer.adopt(totals, own)?;
                }
                (_, Frame::Report(part)) => report.add(part),
                (process, frame) => return Err(self.unexpected(process, &frame)),
            }
        }
        tracing::debug!(files, "files of other processes");
        self.log_traffic();
        Ok(())
    }

    fn begin_tracks(
        &mut self,
        store: &Store,
        tracks: TracksOfVersion,
        workers: usize,
    ) -> Result<BucketShare, LabelError> {
        self.seal(store)?;
        let buckets = tracks.buckets;
        self.control.say_all(&Frame::Tracks(tracks));
        Ok(ClusterMember::share(self, workers, buckets))
    }

    fn gather_tracks(
        &mut self,
        commit: &mut Commit<'_>,
        changes: &mut TrackChanges,
    ) -> Result<(), LabelError> {
        let mut missing = self.others();
        while !missing.is_empty() {
            match self.control.next()? {
                (process, Frame::WroteTracks(part)) if missing.remove(&process).is_some() => {
                    let (counts, files) = *part;
                    commit.adopt(files)?;
                    changes.add_counts(counts);
                }
                (process, frame) => return Err(self.unexpected(process, &frame)),
            }
        }
        Ok(())
    }

    fn committed(&mut self, version: u64, rejects: u64) {
        self.control.say_all(&Frame::Committed(version, rejects));
        if let Some(store) = self.sealed.take() {
            // If the mark stays, it takes a few bytes, and the next cluster replaces it.
            let _ = store.remove_mark(SEAL);
        }
    }
}

impl ClusterMember {
    fn others(&self) -> BTreeMap<usize, ()> {
        (1..self.hosts.processes()).map(|process| (process, ())).collect()
    }
}

impl Wait for ClusterMember {
    fn next<T>(&mut self, from: &Receiver<T>) -> Result<Option<T>, LabelError> {
        Ok(self.control.wait(from)?)
    }

    fn ends_after_error(&self) -> bool {
        // The threads of timely wait for the other processes, and end with this process.
        false
    }
}

/// The positions of shards in a plan.
pub(crate) fn positions(share: Vec<u32>) -> Vec<usize> {
    share.into_iter().map(|shard| shard as usize).collect()
}

/// The mark by which processes recognise that they see the same store: it holds the number of the session.
const SEAL: &str = "session";

/// Distributes the positions of the shards over the processes. Staged shards and other shards are distributed
/// separately, because reading a staged shard is much less work.
fn deal(shards: usize, processes: usize, staged: impl Fn(usize) -> bool) -> Vec<Vec<u32>> {
    let mut shares = vec![Vec::new(); processes];
    let mut dealt = [0, 0];
    for shard in 0..shards {
        let next = &mut dealt[usize::from(staged(shard))];
        shares[*next % processes].push(shard as u32);
        *next += 1;
    }
    shares
}

/// Returns whether the text of the error names the process that failed.
fn is_named(error: &ClusterError) -> bool {
    matches!(
        error,
        ClusterError::Lost { .. } | ClusterError::Failed { .. } | ClusterError::Absent { .. }
    )
}

/// The text of an error for the other processes. Process 0 adds which process failed, if the error does not say it.
fn reason(hosts: &Hosts, error: &str, named: bool) -> String {
    match hosts.process() == 0 && !named {
        true => format!("{} failed: {error}", hosts.here()),
        false => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_dealt_once_and_both_kinds_evenly() {
        let staged = |shard: usize| shard.is_multiple_of(2) && shard < 12;
        for processes in 1..5 {
            let shares = deal(20, processes, staged);
            let mut all: Vec<u32> = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..20).collect::<Vec<_>>(), "{processes} processes");
            for kind in [true, false] {
                let sizes = shares.iter().map(|share| {
                    let of_kind = share.iter().filter(|&&shard| staged(shard as usize) == kind);
                    of_kind.count()
                });
                let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
                assert!(most - least <= 1, "{processes} processes: {least} to {most}");
            }
        }
    }
}
