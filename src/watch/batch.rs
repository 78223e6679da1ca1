//! Makes one store version of the deliveries of a batch.

use std::time::{Instant, SystemTime};

use vaplan_schemas::rows::{RejectRow, Severity};
use vaplan_schemas::store::{Snapshot, Store, WriteLock};

use super::blame::blamed;
use super::delivery::{Delivery, DeliveryKind};
use super::events::Events;
use super::inbox::{Inbox, InboxEntry};
use super::order::Order;
use super::status::{Board, Times};
use super::{WatchError, WatchProgress, WatchRequest, place};
use crate::engine::Listener;
use crate::engine::cluster::resident::GraphProcesses;
use crate::engine::flow::Alone;
use crate::engine::resident::Resident;
use crate::engine::session::{PreparedChange, prepare};
use crate::engine::{lost, patch, whole};
use crate::error::LabelError;
use crate::error::chain;
use crate::relabel::{RelabelRequest, RelabelSummary};
use crate::world::World;
use crate::world::changes::Changes;
use crate::world::resolve::Resolved;

/// Result of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchSummary {
    /// Version that the batch committed. `None`: no change, because all its deliveries were done before.
    pub version: Option<u64>,
    /// Names of the deliveries in the batch.
    pub names: Vec<String>,
    /// Number of deliveries that an earlier version records.
    pub again: usize,
    /// Numbers of labels that were set and unset.
    pub cells: (u64, u64),
    /// Rejected rows and notes.
    pub rejected: Vec<RejectRow>,
}

/// Makes batches of the deliveries in the inbox.
#[derive(Debug)]
pub struct Batches<'a> {
    pub(super) store: &'a Store,
    inbox: &'a Inbox,
    pub(super) workers: usize,
    /// The processes that have workers of the graph.
    processes: &'a GraphProcesses,
    pub(super) command: String,
    pub(super) resident: Resident,
    #[cfg(feature = "encode")]
    pub(super) encoder: Option<super::media::MediaEncoder>,
}

/// Result of an attempt to make a version.
pub(super) enum End {
    /// The version was committed, in this way.
    Made(Box<RelabelSummary>, Way),
    /// The change was refused, and the store did not change.
    Refused(LabelError),
    /// The watch has to stop, or a delivery was replaced by another file while it was read. The store did not change.
    Dropped,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Through,
    Past,
}

impl<'a> Batches<'a> {
    /// Loads the latest version of the store.
    ///
    /// # Errors
    /// Returns [`WatchError::Label`] if the version cannot be read.
    pub fn load(
        store: &'a Store,
        inbox: &'a Inbox,
        request: &WatchRequest,
        processes: &'a GraphProcesses,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<Batches<'a>, WatchError> {
        #[cfg(feature = "encode")]
        let encoder = request.media.as_ref();
        #[cfg(feature = "encode")]
        let encoder = encoder
            .map(|media| super::media::MediaEncoder::open(store, media))
            .transpose()?;
        let snapshot = store.at_version(None)?;
        let resident = Resident::load(store, &snapshot, processes, &quiet())?;
        let (store_path, inbox_path) = (request.store.display(), request.inbox.display());
        let batches = Batches {
            store,
            inbox,
            workers: request.workers,
            processes,
            command: format!("vaplan watch --store {store_path} --inbox {inbox_path}"),
            resident,
            #[cfg(feature = "encode")]
            encoder,
        };
        batches.loaded(false, board, on_progress);
        Ok(batches)
    }

    /// Makes the next batch. Returns false if there is nothing to do now, or if the watch has to stop.
    ///
    /// # Errors
    /// Returns [`WatchError`] if the watch cannot continue. Deliveries that were not committed stay in the inbox.
    pub fn next(
        &mut self,
        events: &mut Events,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<bool, WatchError> {
        let began = Instant::now();
        let (mut deliveries, failed) = self.read(board, on_progress)?;
        #[cfg(feature = "encode")]
        let failed = self.encode(&mut deliveries, board, on_progress)? || failed;
        if deliveries.is_empty() {
            if failed {
                board.state("watching", None)?;
            }
            return Ok(failed);
        }
        board.state("working", None)?;
        let hashed = began.elapsed();
        let Some(lock) = events.lock(self.store, on_progress)? else {
            return Ok(false);
        };
        let latest = self.latest(board, on_progress)?;
        // While the watch waited for the lock, other files may have taken the names of these deliveries. Leave such
        // names out; the next listing of the inbox has the new files.
        deliveries.retain(|delivery| delivery.entry.lies());
        let again: Vec<Delivery> = deliveries
            .extract_if(.., |delivery| self.resident.delivered.contains(&delivery.id))
            .collect();
        if !again.is_empty() {
            self.inbox.done(again.iter().map(|delivery| &delivery.entry))?;
            board.again(again.len());
            board.state("working", None)?;
        }
        if deliveries.is_empty() && !again.is_empty() {
            let again = again.len();
            on_progress(WatchProgress::Batch(&BatchSummary {
                again,
                ..BatchSummary::default()
            }));
        }
        let did = failed || !(deliveries.is_empty() && again.is_empty());
        let times = Times {
            hash: hashed,
            wait: began.elapsed() - hashed,
            ..Times::default()
        };
        self.make(
            deliveries,
            again.len(),
            &latest,
            &lock,
            times,
            events,
            board,
            on_progress,
        )?;
        drop(lock);
        board.state("watching", None)?;
        Ok(did)
    }

    /// Returns the latest version, after the graph was brought to it.
    pub(super) fn latest(
        &mut self,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<Snapshot, WatchError> {
        let latest = self.store.at_version(None)?;
        match self.resident.is_of(&latest)? {
            // Another process changed no table that the graph is made from. For example, it committed an epoch of a
            // training.
            true => self.resident.moved(latest.version().clone()),
            false => self.reload(&latest, true, board, on_progress)?,
        }
        Ok(latest)
    }

    /// Reads the deliveries of the inbox that make one batch. Also returns whether any delivery failed.
    fn read(
        &self,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(Vec<Delivery>, bool), WatchError> {
        let (mut deliveries, mut failed) = (Vec::new(), false);
        let mut order = Order::default();
        for entry in self.inbox.list()? {
            let kind = match entry.kind() {
                // Check the order before hashing. Otherwise the last delivery of a long inbox would be hashed once for
                // each batch before it.
                Ok(Some(kind)) if !order.takes(kind) => break,
                Ok(Some(kind)) => Ok(kind),
                Ok(None) => continue,
                Err(reason) => Err(reason),
            };
            match kind.and_then(|kind| Delivery::read(entry.clone(), kind)) {
                Ok(delivery) => deliveries.extend(delivery),
                Err(reason) => {
                    self.fail(&entry, &reason, board, on_progress)?;
                    failed = true;
                }
            }
        }
        Ok((deliveries, failed))
    }

    /// Ends the session.
    ///
    /// # Errors
    /// Returns [`WatchError::Label`] if the dataflow ended with an error.
    pub fn finish(self) -> Result<(), WatchError> {
        Ok(self.resident.finish()?)
    }

    /// Makes one version of a batch, without the deliveries that cannot be used.
    #[expect(clippy::too_many_arguments, reason = "one call, from one place")]
    fn make(
        &mut self,
        batch: Vec<Delivery>,
        again: usize,
        snapshot: &Snapshot,
        lock: &WriteLock,
        mut times: Times,
        events: &Events,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        let mut usable = Vec::new();
        // Only features need to know the inputs of the store and the names of their columns.
        let world = match batch.iter().any(Delivery::has_features) {
            true => Some(World::read(snapshot)?),
            false => None,
        };
        for delivery in batch {
            match delivery.check(world.as_ref()) {
                Ok(()) => {
                    // `vacuum` may have removed features that no version named yet: the next batch encodes the media again.
                    #[cfg(feature = "encode")]
                    if delivery.kind == DeliveryKind::Media && !place::rejects(self.store, &delivery).exists()
                    {
                        continue;
                    }
                    if place::put(self.store, &delivery)? {
                        usable.push(delivery);
                    }
                }
                Err(reason) => self.fail(&delivery.entry, &reason, board, on_progress)?,
            }
        }
        let mut alone = false;
        while !usable.is_empty() && !events.stopped() {
            let error = match self.commit(&usable, world.as_ref(), snapshot, lock, &mut times, events)? {
                End::Made(summary, way) => {
                    return self.acknowledge(usable, again, *summary, way, times, board, on_progress);
                }
                End::Dropped => return Ok(()),
                End::Refused(error) => error,
            };
            if matches!(error, LabelError::Lost { .. }) {
                // The graph has the change already, and the tables do not.
                self.reload(snapshot, false, board, on_progress)?;
            }
            let Some(among) = blamed(&error, &usable, self.store) else {
                return Err(error.into());
            };
            if among.len() == 1 {
                let delivery = usable.remove(among.start);
                self.fail(&delivery.entry, &chain(&error), board, on_progress)?;
                continue;
            }
            if !std::mem::replace(&mut alone, true) {
                let (all, reasons) = (usable.len(), self.refused(&usable, world.as_ref(), snapshot)?);
                for (delivery, reason) in std::mem::take(&mut usable).into_iter().zip(reasons) {
                    match reason {
                        Some(reason) => self.fail(&delivery.entry, &reason, board, on_progress)?,
                        None => usable.push(delivery),
                    }
                }
                if usable.len() < all {
                    continue;
                }
            }
            // Each delivery is accepted alone, but not all of them together. Try the first half. The other deliveries
            // are still in the inbox, and a later batch takes them.
            usable.truncate(usable.len().div_ceil(2));
        }
        Ok(())
    }

    /// Returns for each delivery the reason why it is refused alone. `None` if it is accepted.
    fn refused(
        &self,
        batch: &[Delivery],
        world: Option<&World>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Option<String>>, WatchError> {
        let reason = |delivery: &Delivery| {
            let own = std::slice::from_ref(delivery);
            let changes = self.changes(own, world);
            match changes.and_then(|changes| Resolved::new(self.store, snapshot, &changes)) {
                Ok(_) => Ok(None),
                Err(error) if blamed(&error, own, self.store).is_some() => Ok(Some(chain(&error))),
                Err(error) => Err(error.into()),
            }
        };
        batch.iter().map(reason).collect()
    }

    /// The changes that a batch asks for. `world` is that of the latest version if the batch has features.
    fn changes(&self, batch: &[Delivery], world: Option<&World>) -> Result<Changes, LabelError> {
        let mut changes = Changes::default();
        for delivery in batch {
            delivery.ask(&place::of(self.store, delivery), &mut changes)?;
            if let (DeliveryKind::Features(modality), Some(world)) = (delivery.kind, world) {
                let replaced = place::replaced(self.store, delivery, &world.features);
                changes.removed[modality.index()].extend(replaced);
            }
            #[cfg(feature = "encode")]
            if let (DeliveryKind::Media, Some(world)) = (delivery.kind, world) {
                self.encoded(delivery, world, &mut changes)?;
            }
        }
        Ok(changes)
    }

    fn commit(
        &mut self,
        batch: &[Delivery],
        world: Option<&World>,
        snapshot: &Snapshot,
        lock: &WriteLock,
        times: &mut Times,
        events: &Events,
    ) -> Result<End, WatchError> {
        let began = Instant::now();
        let request = RelabelRequest {
            store: self.store.root().to_owned(),
            changes: match self.changes(batch, world) {
                Ok(changes) => changes,
                Err(error) => return Ok(End::Refused(error)),
            },
            workers: self.workers,
            dry_run: false,
            command: command(&self.command, batch),
        };
        times.prepare = began.elapsed();
        // A delivery may have been replaced by another file after its hash was computed. Then the rows that were read
        // may be those of the other file, so the batch is dropped.
        let dropped = || events.stopped() || !batch.iter().all(|delivery| delivery.entry.lies());
        self.version(&request, snapshot, lock, times, &dropped)
    }

    /// Makes a version through the session. After everything is read, `dropped` is asked whether the version is still
    /// wanted.
    pub(super) fn version(
        &mut self,
        request: &RelabelRequest,
        snapshot: &Snapshot,
        lock: &WriteLock,
        times: &mut Times,
        dropped: &dyn Fn() -> bool,
    ) -> Result<End, WatchError> {
        let began = Instant::now();
        let listener = quiet();
        let prepared = prepare(self.store, snapshot, request, &listener);
        times.prepare += began.elapsed();
        if dropped() {
            return Ok(End::Dropped);
        }
        let (made, way) = match prepared {
            Ok(PreparedChange::Part(part)) => {
                let began = Instant::now();
                let outcome = self.resident.apply(&part)?;
                times.graph = began.elapsed();
                if let Err(error) = lost::check_part(&part, outcome, &request.changes) {
                    return Ok(End::Refused(error));
                }
                let began = Instant::now();
                let made = patch::commit(self.store, Some(lock), snapshot, request, &part, outcome)?;
                times.commit = began.elapsed();
                (Ok(made), Way::Through)
            }
            Ok(PreparedChange::Everything(resolved)) => {
                let began = Instant::now();
                let made = whole::run(
                    self.store,
                    Some(lock),
                    snapshot,
                    request,
                    *resolved,
                    &mut Alone,
                    &listener,
                );
                times.commit = began.elapsed();
                (made, Way::Past)
            }
            Err(error) => return Ok(End::Refused(error)),
        };
        Ok(match made {
            Ok(summary) => End::Made(Box::new(summary), way),
            Err(error) => End::Refused(error),
        })
    }

    /// Moves the deliveries of a committed version out of the inbox.
    #[expect(clippy::too_many_arguments, reason = "one call, from one place")]
    fn acknowledge(
        &mut self,
        batch: Vec<Delivery>,
        again: usize,
        summary: RelabelSummary,
        way: Way,
        mut times: Times,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        let committed = SystemTime::now();
        let began = Instant::now();
        self.inbox.done(batch.iter().map(|delivery| &delivery.entry))?;
        times.acknowledge = began.elapsed();
        if let Some(version) = &summary.version {
            if way == Way::Past {
                let latest = self.store.at_version(None)?;
                self.reload(&latest, false, board, on_progress)?;
            }
            self.resident.moved(version.clone());
        }
        let done = BatchSummary {
            version: summary.version.map(|version| version.version),
            names: batch.iter().map(|delivery| delivery.entry.name.clone()).collect(),
            again,
            cells: (summary.set, summary.unset),
            rejected: summary.rejected,
        };
        let waited = batch
            .iter()
            .map(|delivery| committed.duration_since(delivery.renamed).unwrap_or_default());
        let rejected = done
            .rejected
            .iter()
            .filter(|row| row.severity == Severity::Reject);
        board.batch(&times, waited, rejected.count(), done.cells);
        board.holds(
            self.resident.version(),
            self.resident.videos(),
            self.resident.held(),
        );
        board.state("working", None)?;
        on_progress(WatchProgress::Batch(&done));
        Ok(())
    }

    /// Loads the graph again from the tables.
    fn reload(
        &mut self,
        snapshot: &Snapshot,
        others: bool,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        self.resident.close();
        self.resident = Resident::load(self.store, snapshot, self.processes, &quiet())?;
        self.loaded(others, board, on_progress);
        Ok(())
    }

    fn loaded(&self, others: bool, board: &mut Board, on_progress: &mut dyn FnMut(WatchProgress<'_>)) {
        let (version, videos) = (self.resident.version(), self.resident.videos());
        board.loaded();
        board.holds(version, videos, self.resident.held());
        on_progress(WatchProgress::Loaded {
            version,
            videos,
            others,
        });
    }

    pub(super) fn fail(
        &self,
        entry: &InboxEntry,
        reason: &str,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        if self.inbox.fail(entry, reason)? {
            board.failed();
            board.state("working", None)?;
            let name = &entry.name;
            on_progress(WatchProgress::Failed { name, reason });
        }
        Ok(())
    }
}

/// Largest number of deliveries that the command line of a version names.
const NAMED: usize = 8;

fn command(watch: &str, batch: &[Delivery]) -> String {
    let mut names: Vec<&str> = batch
        .iter()
        .take(NAMED)
        .map(|delivery| &*delivery.entry.name)
        .collect();
    let others = format!("and {} others", batch.len().saturating_sub(NAMED));
    if batch.len() > NAMED {
        names.push(&others);
    }
    format!("{watch} # {}", names.join(" "))
}

fn quiet() -> Listener {
    Listener::silent()
}
