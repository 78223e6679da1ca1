//! The rows of table `videos` that a change needs, loaded by name or all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_schemas::{Modality, StoreError};

use super::Both;
use super::resolve::WeakNow;
use crate::ingest::annotations::Roster;
use vaplan_schemas::rows::VideoRow;
use vaplan_schemas::store::{Filter, Found, Snapshot};
use vaplan_schemas::tables::Videos;

/// Rows of table `videos` of one store version, by name, each with its place in the data files. Rows are loaded when they
/// are first needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadedVideos {
    rows: BTreeMap<Arc<str>, Found<VideoRow>>,
    asked: BTreeSet<Arc<str>>,
    all: bool,
}

impl LoadedVideos {
    /// Loads the rows of these videos, except the rows that are loaded already. A video that the version lacks gets
    /// no row.
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

    /// Loads the rows of all videos, if they are not loaded already.
    pub(crate) fn want_all(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        if !self.all {
            self.take(snapshot, &Filter::all())?;
            self.all = true;
        }
        Ok(())
    }

    fn take(&mut self, snapshot: &Snapshot, filter: &Filter) -> Result<(), StoreError> {
        for found in snapshot.scan::<Videos>(filter)? {
            self.rows.insert(found.row.video.clone(), found);
        }
        Ok(())
    }

    /// The names of all videos after the edits `weak` of weak labels. The rows of all videos must be loaded, or those of
    /// all names that are looked up.
    pub(crate) fn roster_after(&self, weak: &BTreeMap<Arc<str>, Option<WeakNow>>) -> Roster {
        let there = self.rows().map(|row| &row.video);
        let there = there.filter(|name| !weak.contains_key(*name));
        let come = weak.iter().filter(|(_, now)| now.is_some()).map(|(name, _)| name);
        Roster::new(there.chain(come).cloned())
    }

    /// The loaded row of a video. `None` if the row was not loaded or the version lacks the video.
    pub(crate) fn get(&self, name: &str) -> Option<&VideoRow> {
        self.found(name).map(|found| &found.row)
    }

    /// Like [`LoadedVideos::get`], with the place of the row.
    pub(crate) fn found(&self, name: &str) -> Option<&Found<VideoRow>> {
        self.rows.get(name)
    }

    /// All loaded rows in order of name.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &VideoRow> {
        self.rows.values().map(|found| &found.row)
    }
}

/// The feature file of the admitted features of each modality. `None` if the modality has no admitted features.
pub(crate) fn sources_of(row: &VideoRow) -> Both<(Modality, Option<&Arc<str>>)> {
    [
        (Modality::Audio, row.audio_source.as_ref()),
        (Modality::Visual, row.visual_source.as_ref()),
    ]
}
