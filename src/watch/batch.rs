//! Deliveries to one store version.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use vaplan_schemas::rows::{RejectRow, Severity};
use vaplan_schemas::store::{Snapshot, Store, WriteLock};

use super::delivery::{Delivery, Kind, is_of_input};
use super::events::Events;
use super::inbox::Inbox;
use super::resident::Resident;
use super::status::{Board, Times};
use super::{Request, Told, WatchError, chain, place};
use crate::label::{LabelError, Listener};
use crate::relabel::change::Changes;
use crate::relabel::part::Part;
use crate::relabel::resolve::Resolved;
use crate::relabel::scope::{Predicted, Scope};
use crate::relabel::{self, Summary, patch, whole};

/// What a batch did.
#[derive(Clone, Debug, Default)]
pub struct Done {
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
    store: &'a Store,
    inbox: &'a Inbox,
    workers: usize,
    command: String,
    resident: Resident,
}

/// How a batch ended.
enum End {
    Made(Box<Summary>),
    /// The store cannot be changed so; nothing is changed.
    Refused(LabelError),
    /// There was a signal to stop; nothing is changed on disk.
    Dropped,
}

impl<'a> Batches<'a> {
    /// Loads the latest version.
    ///
    /// # Errors
    /// [`WatchError::Label`].
    pub fn load(
        store: &'a Store,
        inbox: &'a Inbox,
        request: &Request,
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
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

    /// Makes the next batch; false: nothing lies there, or there was a signal to stop.
    ///
    /// # Errors
    /// [`WatchError`]; what is not done still lies in the inbox.
    pub fn next(
        &mut self,
        events: &mut Events,
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<bool, WatchError> {
        let mut deliveries = Vec::new();
        let entries = self.inbox.list()?;
        if entries.is_empty() {
            return Ok(false);
        }
        let began = Instant::now();
        for entry in entries {
            let read = match entry.path.to_str() {
                Some(_) => Delivery::read(&entry.name, &entry.path),
                None => Err("its name is not UTF-8, expected one that tables can hold".to_owned()),
            };
            match read {
                Ok(delivery) => deliveries.extend(delivery),
                Err(reason) => self.fail(&entry.name, &entry.path, &reason, board, told)?,
            }
        }
        board.state("working", None)?;
        let hashed = began.elapsed();
        let Some(lock) = events.lock(self.store, told)? else {
            return Ok(false);
        };
        let latest = self.store.at_version(None)?;
        if latest.version().version != self.resident.version {
            self.reload(&latest, true, board, told)?;
        }
        let again: Vec<Delivery> = deliveries
            .extract_if(.., |delivery| self.resident.delivered.contains(&delivery.hash))
            .collect();
        if !again.is_empty() {
            self.inbox.done(again.iter().map(|delivery| &*delivery.path))?;
            board.again(again.len());
            board.state("working", None)?;
        }
        let batch = first(deliveries);
        if batch.is_empty() && !again.is_empty() {
            let again = again.len();
            told(Told::Batch(&Done {
                again,
                ..Done::default()
            }));
        }
        let times = Times {
            hash: hashed,
            wait: began.elapsed() - hashed,
            ..Times::default()
        };
        self.make(batch, again.len(), &latest, &lock, times, events, board, told)?;
        drop(lock);
        board.state("watching", None)?;
        Ok(true)
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
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), WatchError> {
        let mut usable = Vec::new();
        for delivery in batch {
            match delivery.check() {
                Ok(()) => {
                    place::put(self.store, &delivery)?;
                    usable.push(delivery);
                }
                Err(reason) => self.fail(&delivery.name, &delivery.path, &reason, board, told)?,
            }
        }
        while !usable.is_empty() && !events.stopped() {
            let error = match self.commit(&usable, snapshot, lock, &mut times, events)? {
                End::Made(summary) => return self.acknowledge(usable, again, *summary, times, board, told),
                End::Dropped => return Ok(()),
                End::Refused(error) => error,
            };
            let bad = self.culprits(&usable, snapshot)?;
            if bad.is_empty() {
                // Each could be made alone, or the one there is cannot: the last is what is one too many.
                let Some(last) = usable.pop() else { return Ok(()) };
                if usable.is_empty() {
                    self.fail(&last.name, &last.path, &chain(&error), board, told)?;
                }
                // It is in the next batch: it still lies in the inbox.
                continue;
            }
            for (name, reason) in &bad {
                let position = usable.iter().position(|delivery| delivery.name == *name);
                let delivery = usable.remove(position.expect("culprits are of the batch"));
                self.fail(&delivery.name, &delivery.path, reason, board, told)?;
            }
        }
        Ok(())
    }

    /// Those that are refused alone, and why.
    fn culprits(&self, batch: &[Delivery], snapshot: &Snapshot) -> Result<Vec<(String, String)>, WatchError> {
        let mut bad = Vec::new();
        for delivery in batch {
            match Resolved::new(
                self.store,
                snapshot,
                &self.changes(std::slice::from_ref(delivery), snapshot)?,
            ) {
                Ok(_) => {}
                Err(error) if is_of_input(&error) => bad.push((delivery.name.clone(), chain(&error))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bad)
    }

    fn changes(&self, batch: &[Delivery], snapshot: &Snapshot) -> Result<Changes, LabelError> {
        let mut changes = Changes::default();
        let features = |delivery: &&Delivery| matches!(delivery.kind, Kind::Features(_));
        let inputs = match batch.iter().any(|delivery| features(&delivery)) {
            true => crate::label::world::World::read(snapshot)?.features,
            false => Default::default(),
        };
        for delivery in batch {
            delivery.ask(&place::of(self.store, delivery), &mut changes);
            if let Kind::Features(modality) = delivery.kind {
                let replaced = place::replaced(self.store, delivery, &inputs);
                changes.removed[crate::label::world::at(modality)].extend(replaced);
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
        let request = relabel::Request {
            store: self.store.root().to_owned(),
            changes: self.changes(batch, snapshot)?,
            workers: self.workers,
            dry_run: false,
            command: command(&self.command, batch),
        };
        let listener = quiet();
        let prepared = Resolved::new(self.store, snapshot, &request.changes).and_then(|mut resolved| {
            let part = match Scope::of(snapshot, &mut resolved, Predicted::All)? {
                Scope::Everything => return Ok(Err(resolved)),
                Scope::Part(touched) => Part::load(snapshot, resolved, touched, self.workers, &listener)?,
            };
            Ok(Ok(part))
        });
        times.prepare = began.elapsed();
        if events.stopped() {
            return Ok(End::Dropped);
        }
        let made = match prepared {
            Ok(Ok(part)) => {
                let began = Instant::now();
                let changes = self.resident.apply(&part)?;
                times.graph = began.elapsed();
                let began = Instant::now();
                let answers = &self.resident.answers;
                let made = patch::commit(
                    self.store,
                    Some(lock),
                    snapshot,
                    &request,
                    &part,
                    answers,
                    changes,
                )?;
                times.commit = began.elapsed();
                Ok(made)
            }
            Ok(Err(resolved)) => {
                let began = Instant::now();
                let made = whole::run(self.store, Some(lock), snapshot, &request, resolved, &listener);
                times.commit = began.elapsed();
                made
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(summary) => Ok(End::Made(Box::new(summary))),
            Err(error) if is_of_input(&error) => Ok(End::Refused(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// The version is there: moves what it is made of out of the inbox.
    fn acknowledge(
        &mut self,
        batch: Vec<Delivery>,
        again: usize,
        summary: Summary,
        mut times: Times,
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), WatchError> {
        let committed = SystemTime::now();
        let began = Instant::now();
        self.inbox.done(batch.iter().map(|delivery| &*delivery.path))?;
        times.acknowledge = began.elapsed();
        if let Some(version) = &summary.version {
            // A change of everything went past the session.
            if times.graph.is_zero() {
                let latest = self.store.at_version(None)?;
                self.reload(&latest, false, board, told)?;
            }
            self.resident.version = version.version;
        }
        let done = Done {
            version: summary.version.map(|version| version.version),
            names: batch.iter().map(|delivery| delivery.name.clone()).collect(),
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
            self.resident.version,
            self.resident.videos(),
            self.resident.held(),
        );
        board.state("working", None)?;
        told(Told::Batch(&done));
        Ok(())
    }

    /// Loads the graph anew.
    fn reload(
        &mut self,
        snapshot: &Snapshot,
        others: bool,
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), WatchError> {
        self.resident = Resident::load(self.store, snapshot, self.workers, &quiet())?;
        self.loaded(others, board, told);
        Ok(())
    }

    fn loaded(&self, others: bool, board: &mut Board, told: &mut dyn FnMut(Told<'_>)) {
        let (version, videos) = (self.resident.version, self.resident.videos());
        board.loaded();
        board.holds(version, videos, self.resident.held());
        told(Told::Loaded {
            version,
            videos,
            others,
        });
    }

    fn fail(
        &self,
        name: &str,
        path: &Path,
        reason: &str,
        board: &mut Board,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), WatchError> {
        self.inbox.fail(path, reason)?;
        board.failed();
        board.state("working", None)?;
        told(Told::Failed { name, reason });
        Ok(())
    }
}

/// The deliveries of one batch: all, up to a second epoch or a second file of thresholds, of which a change takes one.
fn first(deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let mut seen = BTreeSet::new();
    let fits = |delivery: &Delivery| match delivery.kind {
        Kind::Thresholds => seen.insert("thresholds"),
        Kind::Epoch(_) => seen.insert("epoch"),
        Kind::Weak(_) | Kind::User | Kind::Features(_) => true,
    };
    deliveries.into_iter().take_while(fits).collect()
}

/// As many names are in the command that a version is told to come from.
const NAMED: usize = 8;

fn command(watch: &str, batch: &[Delivery]) -> String {
    let mut names: Vec<&str> = batch.iter().take(NAMED).map(|delivery| &*delivery.name).collect();
    let others = format!("and {} others", batch.len().saturating_sub(NAMED));
    if batch.len() > NAMED {
        names.push(&others);
    }
    format!("{watch} # {}", names.join(" "))
}

fn quiet() -> Listener {
    Arc::new(|_| ())
}
