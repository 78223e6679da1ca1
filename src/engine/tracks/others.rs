//! The rows of other videos that a change of tracks also removes and adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_schemas::bucket_of;
use vaplan_schemas::rows::{LabelTrack, ScoreTrack};
use vaplan_schemas::store::Place;

/// The rows of a bucketed table that another part of the change removes and adds.
pub(crate) struct OtherRows<R> {
    gone: Vec<Place>,
    new: BTreeMap<u32, Vec<R>>,
}

impl<R: Clone> OtherRows<R> {
    /// Takes the places of removed rows and the new rows. `video` gives the name of the video of a row.
    pub(crate) fn new(
        gone: &[Place],
        new: &[R],
        buckets: u32,
        video: impl Fn(&R) -> &Arc<str>,
    ) -> OtherRows<R> {
        let mut by_bucket: BTreeMap<u32, Vec<R>> = BTreeMap::new();
        for row in new {
            let bucket = bucket_of(video(row), buckets);
            by_bucket.entry(bucket).or_default().push(row.clone());
        }
        let mut gone = gone.to_vec();
        gone.sort_unstable();
        OtherRows { gone, new: by_bucket }
    }

    /// Whether the other part of the change neither removes nor adds a row.
    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    pub(super) fn removes(&self, place: &Place) -> bool {
        self.gone.binary_search(place).is_ok()
    }

    pub(super) fn of(&self, bucket: u32) -> &[R] {
        self.new.get(&bucket).map_or(&[], Vec::as_slice)
    }
}

/// The rows of `labels` and `scores` that another part of the change removes and adds.
pub(crate) struct OtherTracks {
    pub(crate) labels: OtherRows<LabelTrack>,
    pub(crate) scores: OtherRows<ScoreTrack>,
}
