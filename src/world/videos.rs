//! Rows of `videos` that a change needs: some by name, or all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::{Modality, StoreError};

use super::Both;
use vaplan_schemas::rows::VideoRow;
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::Videos;

/// Rows of `videos` as the version has them, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    rows: BTreeMap<Arc<str>, VideoRow>,
    asked: BTreeSet<Arc<str>>,
    all: bool,
}

impl Known {
    /// Sees to it that these are here, where the version has them.
    pub(crate) fn want(
        &mut self,
        snapshot: &Snapshot,
        names: impl IntoIterator<Item = Arc<str>>,
    ) -> Result<(), StoreError> {
        if self.all {
            return Ok(());
        }
        let new: Vec<Arc<str>> = names
            .into_iter()
            .filter(|name| self.asked.insert(name.clone()))
            .collect();
        if !new.is_empty() {
            self.take(snapshot, &Filter::videos(new))?;
        }
        Ok(())
    }

    /// Sees to it that all are here.
    pub(crate) fn want_all(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        if !self.all {
            self.take(snapshot, &Filter::all())?;
            self.all = true;
        }
        Ok(())
    }

    fn take(&mut self, snapshot: &Snapshot, filter: &Filter) -> Result<(), StoreError> {
        for found in snapshot.scan::<Videos>(filter)? {
            self.rows.insert(found.row.video.clone(), found.row);
        }
        Ok(())
    }

    /// A row that was wanted before.
    pub(crate) fn get(&self, name: &str) -> Option<&VideoRow> {
        self.rows.get(name)
    }

    /// All that are here, by name.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &VideoRow> {
        self.rows.values()
    }
}

/// Files of the features that count.
pub(crate) fn sources_of(row: &VideoRow) -> Both<(Modality, Option<&Arc<str>>)> {
    [
        (Modality::Audio, row.audio_source.as_ref()),
        (Modality::Visual, row.visual_source.as_ref()),
    ]
}
