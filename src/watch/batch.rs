//! Deliveries to one store version.

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
use crate::engine::part::Part;
use crate::engine::resident::Resident;
use crate::engine::{patch, whole};
use crate::error::LabelError;
use crate::error::chain;
use crate::relabel::{RelabelRequest, RelabelSummary};
use crate::world::changes::Changes;
use crate::world::resolve::Resolved;
use crate::world::scope::{PredictionScope, Scope};

/// What a batch did.
#[derive(Clone, Debug, Default)]
pub struct BatchSummary {
    /// The version it made; none: all of it was done before.
    pub version: Option<u64>,
    /// Names of the deliveries that are in it.
    pub names: Vec<String>,
    /// Deliveries that an earlier version holds.
    pub again: usize,
    /// Cells that were set and unset.
    pub cells: (u64, u64),
    /// Rows that were left out, and notes.
    pub rejected: Vec<RejectRow>,
}

/// Makes batches of what lies in the inbox.
#[derive(Debug)]
pub struct Batches<'a> {
    pub(super) store: &'a Store,
    inbox: &'a Inbox,
    pub(super) workers: usize,
    pub(super) command: String,
    pub(super) resident: Resident,
}

/// How a batch ended.
pub(super) enum End {
    /// Through the session, or past it, where it was a change of everything.
    Made(Box<RelabelSummary>, Way),
    /// The store cannot be changed so; nothing is changed.
    Refused(LabelError),
    /// There was a signal to stop, or a delivery lost its name to another while it was read; nothing is changed.
    Dropped,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Through,
    Past,
}

impl<'a> Batches<'a> {
    /// Loads the latest version.
    ///
    /// # Errors
    /// [`WatchError::Label`].
    pub fn load(
        store: &'a Store,
        inbox: &'a Inbox,
        request: &WatchRequest,
        board: &mut Board,
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<Batches<'a>, WatchError> {
        let snapshot = store.at_version(None)?;
        let resident = Resident::load(store, &snapshot, request.workers, &quiet())?;
        let (store_path, inbox_path) = (request.store.display(), request.inbox.display());
        let batches = Batches {
            store,
            inbox,
            workers: request.workers,
            command: format!("vaplan watch --store {store_path} --inbox {inbox_path}"),
            resident,
        };
        batches.loaded(false, board, told);
        Ok(batches)
    }

    /// Makes the next batch; false: there is nothing to do now, or there was a signal to stop.
    ///
    /// # Errors
    /// [`WatchError`]; what is not done still lies in the inbox.
    pub fn next(
        &mut self,
        events: &mut Events,
        board: &mut Board,
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<bool, WatchError> {
        let began = Instant::now();
        let (mut deliveries, failed) = self.read(board, told)?;
        if deliveries.is_empty() {
            if failed {
                board.state("watching", None)?;
            }
            return Ok(failed);
        }
        board.state("working", None)?;
        let hashed = began.elapsed();
        let Some(lock) = events.lock(self.store, told)? else {
            return Ok(false);
        };
        let latest = self.latest(board, told)?;
        // Meanwhile others may have come by their names: they are read when the inbox is listed next.
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
            told(WatchProgress::Batch(&BatchSummary {
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
            told,
        )?;
        drop(lock);
        board.state("watching", None)?;
        Ok(did)
    }

    /// The latest version, which the graph is then of.
    pub(super) fn latest(
        &mut self,
        board: &mut Board,
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<Snapshot, WatchError> {
        let latest = self.store.at_version(None)?;
        match self.resident.is_of(&latest)? {
            // Whatever another process wrote, an epoch of a training say, is in no table of the graph.
            true => self.resident.moved(latest.version().clone()),
            false => self.reload(&latest, true, board, told)?,
        }
        Ok(latest)
    }

    /// What lies in the inbox, so far as it makes one batch; and whether any of it has failed.
    fn read(
        &self,
        board: &mut Board,
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(Vec<Delivery>, bool), WatchError> {
        let (mut deliveries, mut failed) = (Vec::new(), false);
        let mut order = Order::default();
        for entry in self.inbox.list()? {
            let kind = match entry.kind() {
                // Before it is hashed, or the last of many would be hashed as often as there are batches before it.
                Ok(Some(kind)) if !order.takes(kind) => break,
                Ok(Some(kind)) => Ok(kind),
                Ok(None) => continue,
                Err(reason) => Err(reason),
            };
            match kind.and_then(|kind| Delivery::read(entry.clone(), kind)) {
                Ok(delivery) => deliveries.extend(delivery),
                Err(reason) => {
                    self.fail(&entry, &reason, board, told)?;
                    failed = true;
                }
            }
        }
        Ok((deliveries, failed))
    }

    /// Ends the session.
    ///
    /// # Errors
    /// [`WatchError::Label`].
    pub fn finish(self) -> Result<(), WatchError> {
        Ok(self.resident.finish()?)
    }

    /// Makes one version of these, without those that cannot be used.
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
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        let mut usable = Vec::new();
        for delivery in batch {
            match delivery.check() {
                Ok(()) => {
                    if place::put(self.store, &delivery)? {
                        usable.push(delivery);
                    }
                }
                Err(reason) => self.fail(&delivery.entry, &reason, board, told)?,
            }
        }
        let mut alone = false;
        while !usable.is_empty() && !events.stopped() {
            let error = match self.commit(&usable, snapshot, lock, &mut times, events)? {
                End::Made(summary, way) => {
                    return self.acknowledge(usable, again, *summary, way, times, board, told);
                }
                End::Dropped => return Ok(()),
                End::Refused(error) => error,
            };
            let Some(among) = blamed(&error, &usable, self.store) else {
                return Err(error.into());
            };
            if among.len() == 1 {
                let delivery = usable.remove(among.start);
                self.fail(&delivery.entry, &chain(&error), board, told)?;
                continue;
            }
            if !std::mem::replace(&mut alone, true) {
                let (all, reasons) = (usable.len(), self.refused(&usable, snapshot)?);
                for (delivery, reason) in std::mem::take(&mut usable).into_iter().zip(reasons) {
                    match reason {
                        Some(reason) => self.fail(&delivery.entry, &reason, board, told)?,
                        None => usable.push(delivery),
                    }
                }
                if usable.len() < all {
                    continue;
                }
            }
            // Each could be made alone. The others are in a later batch: they still lie in the inbox.
            usable.truncate(usable.len().div_ceil(2));
        }
        Ok(())
    }

    /// Why each is refused alone; none: it is not.
    fn refused(&self, batch: &[Delivery], snapshot: &Snapshot) -> Result<Vec<Option<String>>, WatchError> {
        let reason = |delivery: &Delivery| {
            let own = std::slice::from_ref(delivery);
            let changes = self.changes(own, snapshot);
            match changes.and_then(|changes| Resolved::new(self.store, snapshot, &changes)) {
                Ok(_) => Ok(None),
                Err(error) if blamed(&error, own, self.store).is_some() => Ok(Some(chain(&error))),
                Err(error) => Err(error.into()),
            }
        };
        batch.iter().map(reason).collect()
    }

    fn changes(&self, batch: &[Delivery], snapshot: &Snapshot) -> Result<Changes, LabelError> {
        let mut changes = Changes::default();
        let features = |delivery: &&Delivery| matches!(delivery.kind, DeliveryKind::Features(_));
        let inputs = match batch.iter().any(|delivery| features(&delivery)) {
            true => crate::world::World::read(snapshot)?.features,
            false => Default::default(),
        };
        for delivery in batch {
            delivery.ask(&place::of(self.store, delivery), &mut changes)?;
            if let DeliveryKind::Features(modality) = delivery.kind {
                let replaced = place::replaced(self.store, delivery, &inputs);
                changes.removed[crate::world::at(modality)].extend(replaced);
            }
        }
        Ok(changes)
    }

    fn commit(
        &mut self,
        batch: &[Delivery],
        snapshot: &Snapshot,
        lock: &WriteLock,
        times: &mut Times,
        events: &Events,
    ) -> Result<End, WatchError> {
        let began = Instant::now();
        let request = RelabelRequest {
            store: self.store.root().to_owned(),
            changes: match self.changes(batch, snapshot) {
                Ok(changes) => changes,
                Err(error) => return Ok(End::Refused(error)),
            },
            workers: self.workers,
            dry_run: false,
            command: command(&self.command, batch),
        };
        times.prepare = began.elapsed();
        // What was read by their names may be of others that came since.
        let dropped = || events.stopped() || !batch.iter().all(|delivery| delivery.entry.lies());
        self.version(&request, snapshot, lock, times, &dropped)
    }

    /// Makes a version through the session; `dropped`: unless it is of no use any more once all is read.
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
        let prepared = Resolved::new(self.store, snapshot, &request.changes).and_then(|mut resolved| {
            let part = match Scope::of(snapshot, &mut resolved, PredictionScope::All)? {
                Scope::Everything => return Ok(Err(resolved)),
                Scope::Part(touched) => Part::load(snapshot, resolved, touched, self.workers, &listener)?,
            };
            Ok(Ok(part))
        });
        times.prepare += began.elapsed();
        if dropped() {
            return Ok(End::Dropped);
        }
        let (made, way) = match prepared {
            Ok(Ok(part)) => {
                let began = Instant::now();
                let changes = self.resident.apply(&part)?;
                times.graph = began.elapsed();
                let began = Instant::now();
                let answers = &self.resident.answers;
                let made = patch::commit(self.store, Some(lock), snapshot, request, &part, answers, changes)?;
                times.commit = began.elapsed();
                (Ok(made), Way::Through)
            }
            Ok(Err(resolved)) => {
                let began = Instant::now();
                let made = whole::run(self.store, Some(lock), snapshot, request, resolved, &listener);
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

    /// The version is there: moves what it is made of out of the inbox.
    #[expect(clippy::too_many_arguments, reason = "one call, from one place")]
    fn acknowledge(
        &mut self,
        batch: Vec<Delivery>,
        again: usize,
        summary: RelabelSummary,
        way: Way,
        mut times: Times,
        board: &mut Board,
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        let committed = SystemTime::now();
        let began = Instant::now();
        self.inbox.done(batch.iter().map(|delivery| &delivery.entry))?;
        times.acknowledge = began.elapsed();
        if let Some(version) = &summary.version {
            if way == Way::Past {
                let latest = self.store.at_version(None)?;
                self.reload(&latest, false, board, told)?;
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
        told(WatchProgress::Batch(&done));
        Ok(())
    }

    /// Loads the graph anew.
    fn reload(
        &mut self,
        snapshot: &Snapshot,
        others: bool,
        board: &mut Board,
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        self.resident = Resident::load(self.store, snapshot, self.workers, &quiet())?;
        self.loaded(others, board, told);
        Ok(())
    }

    fn loaded(&self, others: bool, board: &mut Board, told: &mut dyn FnMut(WatchProgress<'_>)) {
        let (version, videos) = (self.resident.version(), self.resident.videos());
        board.loaded();
        board.holds(version, videos, self.resident.held());
        told(WatchProgress::Loaded {
            version,
            videos,
            others,
        });
    }

    fn fail(
        &self,
        entry: &InboxEntry,
        reason: &str,
        board: &mut Board,
        told: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<(), WatchError> {
        if self.inbox.fail(entry, reason)? {
            board.failed();
            board.state("working", None)?;
            let name = &entry.name;
            told(WatchProgress::Failed { name, reason });
        }
        Ok(())
    }
}

/// As many names are in the command that a version is told to come from.
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
