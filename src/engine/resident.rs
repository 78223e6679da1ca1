//! The graph of a session, and the store version that the graph holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_dataflows::outcome::Outcome;
use vaplan_dataflows::session::{GraphSession, SessionError};
use vaplan_schemas::rows::VersionRow;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Classes, Labels, Predictions, Scores, Settings, Table, UserLabels, Videos};
use vaplan_schemas::{ClassId, Modality};

use super::cluster::resident::GraphProcesses;
use super::held_rows::HeldRows;
use crate::engine::Listener;
use crate::engine::part::TouchedRows;
use crate::error::LabelError;
use crate::world::changes::Changes;
use crate::world::resolve::Resolved;
use crate::world::scope::Touched;

/// Tables whose rows are loaded into the graph. Table `predictions` is also loaded if an epoch counts;
/// [`Resident::is_of`] compares this table separately.
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
    held_rows: HeldRows,
    /// Store version that the graph holds.
    version: VersionRow,
    /// Epochs whose predictions count.
    active: BTreeSet<u64>,
    /// Deliveries that the store version has recorded.
    pub delivered: Vec<Arc<str>>,
}

impl Resident {
    /// Loads the tables of a version into a new graph, which has workers in these processes. Feature files are not read.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read, the labels do not follow from the other tables, or the
    /// dataflow does not start.
    pub fn load(
        store: &Store,
        snapshot: &Snapshot,
        processes: &GraphProcesses,
        listener: &Listener,
    ) -> Result<Resident, LabelError> {
        let part = whole(store, snapshot, processes.workers(), listener)?;
        let delivered = part.world().delivered.clone();
        let active = active(&part);
        let mut held_rows = HeldRows::default();
        let rows = part.rows();
        let whole: Vec<VideoId> = rows.weak.iter().map(|(video, _)| *video).collect();
        let rows = held_rows.take(rows, whole, &[]).new;
        let previous = part.previous();
        drop(part);
        let workers = processes.graph(false)?;
        let session = GraphSession::start(workers, rows, previous).map_err(stopped)?;
        let changes = &session.outcome().changes;
        // The stored labels must follow from the other tables. Otherwise later rows of `label_changes` would not add up
        // to table `labels`.
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
            held_rows,
            version: snapshot.version().clone(),
            active,
            delivered,
        })
    }

    /// Applies the changes of a part to the graph, and returns the new output of the graph.
    ///
    /// # Errors
    /// Returns [`LabelError::Stopped`] if a worker failed. The session has ended in that case.
    pub fn apply(&mut self, part: &TouchedRows) -> Result<&Outcome, LabelError> {
        self.delivered.clone_from(&part.world().delivered);
        self.active = active(part);
        let updates = self.held_rows.take(part.rows(), part.whole(), &part.rescaled());
        self.session.apply(updates).map_err(stopped)?;
        Ok(self.session.outcome())
    }

    /// Ends the graph, before another one is loaded: two graphs would need twice the memory, and the other processes of a
    /// cluster run one graph at a time.
    pub fn close(&mut self) {
        self.session.close();
    }

    /// The store version that the graph holds.
    pub fn version(&self) -> u64 {
        self.version.version
    }

    /// Returns whether the graph also equals version `snapshot`, so that the graph need not be loaded again.
    ///
    /// This holds if none of the tables of the graph changed since, and if every version since that changed table
    /// `predictions` only added an epoch that does not count.
    ///
    /// # Errors
    /// Returns [`LabelError`] if the list of versions cannot be read.
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

    /// Records that the graph now holds this version.
    pub fn moved(&mut self, to: VersionRow) {
        self.version = to;
    }

    /// The number of videos that the graph has rows of.
    pub fn videos(&self) -> usize {
        self.held_rows.videos()
    }

    /// The number of updates in the arrangements of the graph.
    pub fn held(&self) -> Vec<u64> {
        self.session.held_by_worker()
    }

    /// Ends the session.
    ///
    /// # Errors
    /// Returns [`LabelError::Stopped`] if the session had ended before, or a worker panics while it stops.
    pub fn finish(self) -> Result<(), LabelError> {
        self.session.finish().map(drop).map_err(stopped)
    }
}

/// Loads all rows of a version as one part.
///
/// # Errors
/// Returns [`LabelError`] if a table cannot be read.
pub fn whole(
    store: &Store,
    snapshot: &Snapshot,
    workers: usize,
    listener: &Listener,
) -> Result<TouchedRows, LabelError> {
    let resolved = Resolved::new(store, snapshot, &Changes::default())?;
    let classes = 0..resolved.after.classes.len() as u32;
    let tracks = classes.flat_map(|class| Modality::ALL.map(|modality| (modality, ClassId(class))));
    let all = Touched {
        tracks: tracks.collect(),
        ..Touched::default()
    };
    TouchedRows::load(snapshot, resolved, all, workers, listener)
}

fn active(part: &TouchedRows) -> BTreeSet<u64> {
    let active = part.world().active.iter();
    active.flat_map(|active| active.epochs.iter().copied()).collect()
}

/// The Delta version of a table in a store version; `None` if the store version does not have the table.
pub(crate) fn delta(version: &VersionRow, table: &str) -> Option<u64> {
    let mut tables = version.tables.iter();
    tables.find_map(|(name, delta)| (name == table).then_some(*delta))
}

fn stopped(error: SessionError) -> LabelError {
    LabelError::Stopped(error.to_string())
}
