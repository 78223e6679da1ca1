//! The same changes by a session that stays, as `vaplan watch` makes them: it is told only what each touches.

use std::path::Path;

use vaplan::engine::cluster::resident::GraphProcesses;
use vaplan::engine::part::TouchedRows;
use vaplan::engine::patch;
use vaplan::engine::resident::Resident;
use vaplan::error::LabelError;
use vaplan::relabel::RelabelSummary;
use vaplan::world::changes::Changes;
use vaplan::world::resolve::Resolved;
use vaplan::world::scope::{PredictionScope, Scope};
use vaplan_schemas::store::Store;

use super::{quiet, relabel, request};

/// Workers of the session.
const WORKERS: usize = 2;

pub(crate) struct Stayed {
    store: Store,
    resident: Resident,
    /// How many changes it was told, rather than loaded anew for.
    pub(crate) told: usize,
}

impl Stayed {
    pub(crate) fn load(store: &Path) -> Result<Stayed, LabelError> {
        let store = Store::open(store)?;
        let resident = Resident::load(
            &store,
            &store.at_version(None)?,
            &GraphProcesses::alone(WORKERS),
            &quiet(),
        )?;
        Ok(Stayed {
            store,
            resident,
            told: 0,
        })
    }

    pub(crate) fn change(&mut self, changes: &Changes, workers: usize) -> Result<RelabelSummary, LabelError> {
        let root = self.store.root();
        let lock = self.store.lock(&mut |_| ())?;
        let snapshot = self.store.at_version(None)?;
        let mut resolved = Resolved::new(&self.store, &snapshot, changes)?;
        let Scope::Part(touched) = Scope::of(&snapshot, &mut resolved, PredictionScope::Session)? else {
            drop(lock);
            let summary = relabel(root, changes, workers, false)?;
            self.resident = Resident::load(
                &self.store,
                &self.store.at_version(None)?,
                &GraphProcesses::alone(WORKERS),
                &quiet(),
            )?;
            return Ok(summary);
        };
        self.told += 1;
        let part = TouchedRows::load(&snapshot, resolved, touched, workers, &quiet())?;
        let outcome = self.resident.apply(&part)?;
        patch::commit(
            &self.store,
            Some(&lock),
            &snapshot,
            &request(root, changes, workers, false),
            &part,
            outcome,
        )
    }

    pub(crate) fn finish(self) -> Result<(), LabelError> {
        self.resident.finish()
    }
}
