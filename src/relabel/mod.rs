//! `vaplan relabel`: makes any change of a store at the cost of the data that the change touches, and estimates that
//! cost.
//!
//! [`world`](crate::world) defines what a change means and what it touches. [`engine`](crate::engine) makes the
//! change.

pub mod cluster;
pub mod estimate;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{LabelChangeRow, LabelChangeTrack};
use vaplan_schemas::store::{DataFile, Snapshot, Store};
use vaplan_schemas::tables::LabelChanges;

use crate::error::LabelError;

pub use crate::engine::change::{RelabelRequest, RelabelSummary, run};

/// The labels that a version changed, in order of the key of table `label_changes`.
///
/// # Errors
/// Returns [`LabelError::Store`] if the version cannot be read.
pub fn changes(store: &Store, version: u64) -> Result<Vec<LabelChangeRow>, LabelError> {
    let after: Snapshot = store.at_version(Some(StoreVersion(version)))?;
    let own = |file: &DataFile| file.version().is_none_or(|of| of == version);
    let mut rows = after.read_some::<LabelChanges>(own)?;
    rows.retain(|row| row.version == version);
    Ok(rows.iter().flat_map(LabelChangeTrack::changes).collect())
}
