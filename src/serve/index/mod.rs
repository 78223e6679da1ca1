//! What lists and queues need of every video, in memory.
//!
//! ```text
//! tables of a version ── read ─ groups of buckets ─▶ ReviewIndex ── query ─ filter, order, page ─▶ rows of the list
//! a later version ────── refresh ─ only the videos of its new files ──▲
//! ```
//!
//! **Memory.** An entry is 16 bytes for the video, the bytes of its name, and 40 bytes for each track (modality and class of
//! the weak label). LLP has 1.6 classes per video, so that a video takes about 170 bytes. No map, string or list is
//! allocated per video: the entries are four arrays. While the index is made, the rows of [`read::GROUP`] videos are in
//! memory, too.
//!
//! **Versions.** An index is of one store version and never changes. A save or another program makes a later version;
//! a thread then makes the next index and replaces the former one, so that no reader sees parts of two versions. The
//! new index copies the arrays and reads only the videos whose rows are in files that the earlier version did not have.

pub mod gain;
pub mod query;
pub mod read;
pub mod refresh;

use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

/// The entries of all videos of one store version, in order of name.
#[derive(Clone, Debug, Default)]
pub struct ReviewIndex {
    /// The store version.
    pub version: u64,
    /// Names of the classes in order. [`IndexedTrack::class`] is a position in this list.
    pub classes: Vec<Arc<str>>,
    /// The epoch of the predictions that the labels are compared with: the latest that counts. `None` without predictions.
    pub epoch: Option<u64>,
    names: String,
    videos: Vec<IndexedVideo>,
    tracks: Vec<IndexedTrack>,
}

/// One video of an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexedVideo {
    /// The end of the name in the names of all videos.
    name_end: u32,
    /// The end of the tracks in the tracks of all videos.
    track_end: u32,
    /// Number of segments.
    pub segments: u32,
    /// Split.
    pub split: Split,
}

/// One modality and class of a video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexedTrack {
    /// Position of the class.
    pub class: u32,
    /// Modality.
    pub modality: Modality,
    /// Number of segments whose label is set.
    pub set: u32,
    /// Number of labels that PLD flipped.
    pub flipped: u32,
    /// Number of labels that a person set.
    pub user: u32,
    /// Smallest distance of a score from the threshold, relative to the threshold; infinite if a person set every label.
    pub distance: f32,
    /// Largest forward loss of a label; 0 without predictions.
    pub loss: f32,
    /// Number of segments in which PLG and the parser differ.
    pub parser: u32,
    /// Number of segments in which the labels of both modalities differ.
    pub other: u32,
    /// Number of segments in which label and truth differ.
    pub wrong: u32,
}

impl IndexedTrack {
    /// A track in which nothing is counted yet.
    pub(super) fn new(class: u32, modality: Modality) -> IndexedTrack {
        IndexedTrack {
            class,
            modality,
            set: 0,
            flipped: 0,
            user: 0,
            distance: f32::INFINITY,
            loss: 0.0,
            parser: 0,
            other: 0,
            wrong: 0,
        }
    }
}

/// A video that is to be put into an index.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoEntry {
    /// Full name.
    pub name: Arc<str>,
    /// Split.
    pub split: Split,
    /// Number of segments.
    pub segments: u32,
    /// Its tracks, by class and then modality.
    pub tracks: Vec<IndexedTrack>,
}

impl ReviewIndex {
    /// Makes an index of entries in order of name.
    ///
    /// # Panics
    /// Panics if the names of all videos together have 4 GiB or more.
    pub fn new(
        version: u64,
        classes: Vec<Arc<str>>,
        epoch: Option<u64>,
        entries: impl IntoIterator<Item = VideoEntry>,
    ) -> ReviewIndex {
        let mut index = ReviewIndex {
            version,
            classes,
            epoch,
            ..ReviewIndex::default()
        };
        for entry in entries {
            index.push(&entry.name, entry.split, entry.segments, &entry.tracks);
        }
        index.names.shrink_to_fit();
        index.videos.shrink_to_fit();
        index.tracks.shrink_to_fit();
        index
    }

    fn push(&mut self, name: &str, split: Split, segments: u32, tracks: &[IndexedTrack]) {
        self.names.push_str(name);
        self.tracks.extend_from_slice(tracks);
        self.videos.push(IndexedVideo {
            name_end: end(self.names.len()),
            track_end: end(self.tracks.len()),
            segments,
            split,
        });
    }

    /// Number of videos.
    pub fn len(&self) -> usize {
        self.videos.len()
    }

    /// Whether there is no video.
    pub fn is_empty(&self) -> bool {
        self.videos.is_empty()
    }

    /// Bytes of the arrays.
    pub fn bytes(&self) -> usize {
        self.names.len() + size_of_val(&*self.videos) + size_of_val(&*self.tracks)
    }

    /// The video at a position.
    ///
    /// # Panics
    /// Panics if there is no such position.
    pub fn video(&self, at: usize) -> &IndexedVideo {
        &self.videos[at]
    }

    /// Name of the video at a position.
    ///
    /// # Panics
    /// Panics if there is no such position.
    pub fn name(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.videos[before].name_end);
        &self.names[start as usize..self.videos[at].name_end as usize]
    }

    /// Tracks of the video at a position.
    ///
    /// # Panics
    /// Panics if there is no such position.
    pub fn tracks(&self, at: usize) -> &[IndexedTrack] {
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.videos[before].track_end);
        &self.tracks[start as usize..self.videos[at].track_end as usize]
    }

    /// Position of a video; `None` if there is no video of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        let at = self.lower_bound(name);
        (at < self.len() && self.name(at) == name).then_some(at)
    }

    /// Positions of the videos whose names begin with a text.
    pub fn starting<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        (self.lower_bound(text)..self.len()).take_while(move |at| self.name(*at).starts_with(text))
    }

    /// Position of the first video whose name is not before `name`.
    fn lower_bound(&self, name: &str) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle) < name {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// The index of a later version: this index, with the entries of some videos replaced, added or (`None`) removed.
    /// `changed` is in order of name, each name once.
    pub fn with(
        &self,
        version: u64,
        changed: impl IntoIterator<Item = (Arc<str>, Option<VideoEntry>)>,
    ) -> ReviewIndex {
        let mut next = ReviewIndex {
            version,
            classes: self.classes.clone(),
            epoch: self.epoch,
            names: String::with_capacity(self.names.len()),
            videos: Vec::with_capacity(self.videos.len()),
            tracks: Vec::with_capacity(self.tracks.len()),
        };
        let mut at = 0;
        for (name, entry) in changed {
            while at < self.len() && self.name(at) < &*name {
                next.copy(self, at);
                at += 1;
            }
            if at < self.len() && self.name(at) == &*name {
                at += 1;
            }
            if let Some(entry) = entry {
                next.push(&entry.name, entry.split, entry.segments, &entry.tracks);
            }
        }
        (at..self.len()).for_each(|at| next.copy(self, at));
        next
    }

    fn copy(&mut self, from: &ReviewIndex, at: usize) {
        let video = from.video(at);
        self.push(from.name(at), video.split, video.segments, from.tracks(at));
    }
}

fn end(length: usize) -> u32 {
    u32::try_from(length)
        .expect("the names of a store have less than 4 GiB, and it has fewer than 2^32 tracks")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, tracks: usize) -> VideoEntry {
        VideoEntry {
            name: name.into(),
            split: Split::Train,
            segments: 10,
            tracks: (0..tracks)
                .map(|class| IndexedTrack::new(class as u32, Modality::Audio))
                .collect(),
        }
    }

    fn entries(index: &ReviewIndex) -> Vec<(String, usize)> {
        (0..index.len())
            .map(|at| (index.name(at).to_owned(), index.tracks(at).len()))
            .collect()
    }

    #[test]
    fn a_changed_index_equals_one_that_is_made_anew() {
        let old = ReviewIndex::new(1, Vec::new(), None, [entry("b", 1), entry("d", 2), entry("f", 0)]);
        let changed = [
            ("a".into(), Some(entry("a", 3))),
            ("d".into(), Some(entry("d", 1))),
            ("e".into(), None),
            ("f".into(), None),
            ("g".into(), Some(entry("g", 2))),
        ];
        let new = old.with(2, changed);
        let made = [entry("a", 3), entry("b", 1), entry("d", 1), entry("g", 2)];
        let made = ReviewIndex::new(2, Vec::new(), None, made);
        assert_eq!(entries(&new), entries(&made));
        assert_eq!(
            (new.videos, new.tracks, new.names),
            (made.videos, made.tracks, made.names)
        );
        assert_eq!(old.find("d"), Some(1));
        assert_eq!(old.starting("").collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(old.starting("d").collect::<Vec<_>>(), [1]);
        assert_eq!((old.find("c"), old.find(""), old.find("z")), (None, None, None));
    }

    #[test]
    fn a_video_of_llp_takes_less_than_200_bytes() {
        assert_eq!((size_of::<IndexedVideo>(), size_of::<IndexedTrack>()), (16, 40));
        let tracks = |number: usize| if number % 5 < 3 { 4 } else { 2 };
        let names = (0..1000).map(|number| entry(&format!("{number:011}_100_110"), tracks(number)));
        let index = ReviewIndex::new(1, Vec::new(), None, names);
        assert!(index.bytes() / 1000 < 200, "{}", index.bytes());
    }
}
