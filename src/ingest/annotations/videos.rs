//! The videos of an annotation folder, in about 35 bytes each.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, LargeStringArray, LargeStringBuilder};
use vaplan_schemas::ClassId;
use vaplan_schemas::rows::Split;

/// Videos with their weak labels, in the order of the files.
///
/// A data set can have millions of videos, and all of them are in memory while a run is planned. All names are therefore
/// in one allocation, and videos with the same split, weak label and file share one [`VideoLabel`]. A video takes the
/// bytes of its name and 16 more.
///
/// ```
/// use vaplan::ingest::annotations::{AnnotatedVideos, VideoLabel};
/// use vaplan_schemas::{ClassId, rows::Split};
///
/// let label = VideoLabel {
///     split: Split::Train,
///     weak: [ClassId(3)].into(),
///     source: "train.csv".into(),
/// };
/// let videos: AnnotatedVideos = [("b_0_10", label.clone()), ("a_0_10", label)].into_iter().collect();
/// assert_eq!(videos.get(0).name, "b_0_10");
/// assert_eq!(videos.position("a_0_10"), Some(1));
/// assert_eq!(videos.position("c_0_10"), None);
/// ```
#[derive(Clone, Debug)]
pub struct AnnotatedVideos {
    names: LargeStringArray,
    /// Position in `distinct` for each video.
    labels: Vec<u32>,
    distinct: Vec<VideoLabel>,
    /// Positions of the videos in alphabetical order of names.
    by_name: Vec<u32>,
}

/// Split, weak label and source of a video. Many videos share the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VideoLabel {
    /// Split that the video belongs to.
    pub split: Split,
    /// Classes of the weak label in ascending order, each once.
    pub weak: Arc<[ClassId]>,
    /// File that the row of the video comes from.
    pub source: Arc<str>,
}

/// A video with its weak label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnotatedVideo<'a> {
    /// Full name of the video.
    pub name: &'a str,
    /// Split that the video belongs to.
    pub split: Split,
    /// Classes of the weak label in ascending order, each once.
    pub weak: &'a Arc<[ClassId]>,
    /// File that the row of the video comes from.
    pub source: &'a Arc<str>,
}

impl AnnotatedVideos {
    /// The number of videos.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no video.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The video at a position.
    ///
    /// # Panics
    /// Panics if there is no such position.
    pub fn get(&self, position: usize) -> AnnotatedVideo<'_> {
        let VideoLabel { split, weak, source } = &self.distinct[self.labels[position] as usize];
        AnnotatedVideo {
            name: self.names.value(position),
            split: *split,
            weak,
            source,
        }
    }

    /// Iterates over the videos in order of position.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = AnnotatedVideo<'_>> {
        (0..self.len()).map(|position| self.get(position))
    }

    /// Position of the video with this full name. `None` if there is no such video.
    pub fn position(&self, name: &str) -> Option<usize> {
        let name_at = |position: &u32| self.names.value(*position as usize);
        let found = self.by_name.binary_search_by(|at| name_at(at).cmp(name)).ok()?;
        Some(self.by_name[found] as usize)
    }

    /// Positions in alphabetical order of names.
    pub(crate) fn by_name(&self) -> &[u32] {
        &self.by_name
    }

    /// Takes names with the position in `distinct` of each. `by_name` is [`alphabetical`] of the names.
    pub(super) fn from_parts(
        names: LargeStringArray,
        labels: Vec<u32>,
        distinct: Vec<VideoLabel>,
        by_name: Vec<u32>,
    ) -> AnnotatedVideos {
        AnnotatedVideos {
            names,
            labels,
            distinct,
            by_name,
        }
    }
}

/// Positions of names in alphabetical order. Equal names are in order of position.
///
/// # Panics
/// Panics if there are 2^32 or more names.
pub(super) fn alphabetical(names: &LargeStringArray) -> Vec<u32> {
    let count = u32::try_from(names.len()).expect("fewer than 2^32 videos");
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_unstable_by(|a, b| {
        let [first, second] = [a, b].map(|position| names.value(*position as usize));
        first.cmp(second).then(a.cmp(b))
    });
    order
}

impl<S: AsRef<str>> FromIterator<(S, VideoLabel)> for AnnotatedVideos {
    fn from_iter<I: IntoIterator<Item = (S, VideoLabel)>>(videos: I) -> AnnotatedVideos {
        let mut names = LargeStringBuilder::new();
        let (mut labels, mut distinct) = (Vec::new(), Vec::new());
        let mut known: BTreeMap<VideoLabel, u32> = BTreeMap::new();
        for (name, label) in videos {
            names.append_value(name);
            let next = distinct.len() as u32;
            labels.push(*known.entry(label).or_insert_with_key(|label| {
                distinct.push(label.clone());
                next
            }));
        }
        let names = names.finish();
        let by_name = alphabetical(&names);
        AnnotatedVideos::from_parts(names, labels, distinct, by_name)
    }
}
