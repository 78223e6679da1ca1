//! Finds tracks by their keys. Only key columns are decoded, so that a writer who knows the new rows need not read the old ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::data_file::on_files;
use super::scan::{Filter, Place, candidates};
use super::select::Selected;
use super::{DataFile, Snapshot};
use crate::error::StoreError;
use crate::ids::Modality;
use crate::tables::Table;

/// Keys of tracks: a video, a modality and a class.
///
/// ```
/// use vaplan_schemas::Modality;
/// use vaplan_schemas::store::TrackKeys;
/// let mut keys = TrackKeys::default();
/// keys.insert(&"clip".into(), Modality::Audio, &"Dog".into());
/// assert!(!keys.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackKeys(BTreeMap<Arc<str>, Vec<(Modality, Arc<str>)>>);

impl TrackKeys {
    /// Adds a key.
    pub fn insert(&mut self, video: &Arc<str>, modality: Modality, class: &Arc<str>) {
        let own = self.0.entry(video.clone()).or_default();
        own.push((modality, class.clone()));
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&self, video: &str) -> Option<&[(Modality, Arc<str>)]> {
        self.0.get(video).map(Vec::as_slice)
    }
}

impl Snapshot {
    /// The places of the tracks with these keys. A key without a track has no place. Neighbouring tracks share a place.
    ///
    /// This opens only the files that can hold one of the videos, and decodes only their key columns. It uses as many threads
    /// as there are cores.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    ///
    /// # Panics
    /// Panics if the table has no column `video`, `modality` or `class`.
    pub fn places<T: Table>(&self, keys: &TrackKeys) -> Result<Vec<Place>, StoreError> {
        let filter = Filter::videos(keys.0.keys().cloned());
        let files = candidates::<T>(self, &filter)?;
        let opened: Vec<&DataFile> = files.iter().map(|(_, file)| file).collect();
        let found = on_files(&self.store().storage, &opened, |nth| {
            let (number, file) = &files[nth];
            let runs = Selected::tracks::<T>(file, keys)?.into_runs();
            let place = |run: Range<usize>| Place::new(*number, run);
            Ok(runs.into_iter().map(place).collect::<Vec<_>>())
        })?;
        Ok(found.into_iter().flatten().collect())
    }
}
