//! The session that stays, and what it holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::session::{GraphSession, SessionError};
use vaplan_schemas::rows::VersionRow;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Classes, Labels, Predictions, Scores, Settings, Table, UserLabels, Videos};
use vaplan_schemas::{ClassId, Modality};

use super::mirror::Mirror;
use crate::engine::Listener;
use crate::engine::part::Part;
use crate::engine::patch::Answers;
use crate::error::LabelError;
use crate::world::changes::Changes;
use crate::world::resolve::Resolved;
use crate::world::scope::Touched;

/// Tables that the graph is made of; so is `predictions`, where an epoch counts.
const MADE_OF: [&str; 6] = [
    Classes::NAME,
    Labels::NAME,
    Scores::NAME,
    Settings::NAME,
    UserLabels::NAME,
    Videos::NAME,
];

/// A store version in memory.
#[derive(Debug)]
pub struct Resident {
    session: GraphSession,
    mirror: Mirror,
    /// What the graph says now.
    pub answers: Answers,
    /// Store version it is of.
    version: VersionRow,
    /// Epochs whose predictions count.
    active: BTreeSet<u64>,
    /// Deliveries that the version remembers.
    pub delivered: Vec<Arc<str>>,
}

impl Resident {
    /// Loads the tables of a version; no features are read.
    ///
    /// # Errors
    /// [`LabelError`] where a table does not read back, or the dataflow does not start.
    pub fn load(
        store: &Store,
        snapshot: &Snapshot,
        workers: usize,
        listener: &Listener,
    ) -> Result<Resident, LabelError> {
        let part = whole(store, snapshot, workers, listener)?;
        let delivered = part.world().delivered.clone();
        let active = active(&part);
        let mut mirror = Mirror::default();
        let rows = part.rows();
        let whole: Vec<VideoId> = rows.weak.iter().map(|(video, _)| *video).collect();
        let rows = mirror.take(rows, whole, &[]).new;
        let previous = part.previous();
        drop(part);
        let (session, outcome) = GraphSession::start(workers, rows, previous).map_err(stopped)?;
        let mut answers = Answers::default();
        let changes = answers.take(outcome);
        // On top of labels that nothing leads to, `label_changes` would not add up.
        if !changes.is_empty() {
            return Err(LabelError::World {
                version: snapshot.version().version,
                problem: format!(
                    "{} labels are not what the tables lead to, expected none: run `vaplan check`",
                    changes.len()
                ),
            });
        }
        Ok(Resident {
            session,
            mirror,
            answers,
            version: snapshot.version().clone(),
            active,
            delivered,
        })
    }

    /// Tells the session what a part changes; gives the cells that changed.
    ///
    /// # Errors
    /// [`LabelError::Stopped`]; the session is then at its end.
    pub fn apply(&mut self, part: &Part) -> Result<Vec<Change>, LabelError> {
        self.delivered.clone_from(&part.world().delivered);
        self.active = active(part);
        let updates = self.mirror.take(part.rows(), part.whole(), &part.rescaled());
        let outcome = self.session.apply(updates).map_err(stopped)?;
        Ok(self.answers.take(outcome))
    }

    /// Store version it is of.
    pub fn version(&self) -> u64 {
        self.version.version
    }

    /// Is it of this version too? It is where no table is another that the graph is made of, and predictions came of no
    /// epoch but ones that do not count.
    ///
    /// # Errors
    /// Where the versions do not read back.
    pub fn is_of(&self, snapshot: &Snapshot) -> Result<bool, LabelError> {
        let same = |table: &&str| delta(&self.version, table) == delta(snapshot.version(), table);
        if !MADE_OF.iter().all(same) {
            return Ok(false);
        }
        if self.active.is_empty() || same(&Predictions::NAME) {
            return Ok(true);
        }
        let versions = snapshot.store().versions()?;
        let since = self.version.version + 1..=snapshot.version().version;
        let since: Vec<&VersionRow> = versions
            .iter()
            .filter(|row| since.contains(&row.version))
            .collect();
        let all = since.len() as u64 == snapshot.version().version.saturating_sub(self.version.version);
        let mut before = delta(&self.version, Predictions::NAME);
        Ok(all
            && since.into_iter().all(|row| {
                let own = delta(row, Predictions::NAME);
                let moved = std::mem::replace(&mut before, own) != own;
                !moved || row.epoch.is_some_and(|epoch| !self.active.contains(&epoch))
            }))
    }

    /// It is of this version now.
    pub fn moved(&mut self, to: VersionRow) {
        self.version = to;
    }

    /// Videos it holds rows of.
    pub fn videos(&self) -> usize {
        self.mirror.videos()
    }

    /// Updates it holds.
    pub fn held(&self) -> u64 {
        self.session.held()
    }

    /// Ends the session.
    ///
    /// # Errors
    /// [`LabelError::Stopped`] where it had ended before.
    pub fn finish(self) -> Result<(), LabelError> {
        self.session.finish().map_err(stopped)
    }
}

/// All that a version says, from its tables.
///
/// # Errors
/// [`LabelError`] where a table does not read back.
pub fn whole(
    store: &Store,
    snapshot: &Snapshot,
    workers: usize,
    listener: &Listener,
) -> Result<Part, LabelError> {
    let resolved = Resolved::new(store, snapshot, &Changes::default())?;
    let classes = 0..resolved.after.classes.len() as u32;
    let tracks = classes.flat_map(|class| Modality::ALL.map(|modality| (modality, ClassId(class))));
    let all = Touched {
        tracks: tracks.collect(),
        ..Touched::default()
    };
    Part::load(snapshot, resolved, all, workers, listener)
}

fn active(part: &Part) -> BTreeSet<u64> {
    let active = part.world().active.iter();
    active.flat_map(|active| active.epochs.iter().copied()).collect()
}

/// Delta version of a table.
pub(crate) fn delta(version: &VersionRow, table: &str) -> Option<u64> {
    let mut tables = version.tables.iter();
    tables.find_map(|(name, delta)| (name == table).then_some(*delta))
}

fn stopped(error: SessionError) -> LabelError {
    LabelError::Stopped(error.to_string())
}
