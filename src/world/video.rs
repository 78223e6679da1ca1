//! One video with its weak label, and which video the key of a feature file names.

use std::ops::RangeInclusive;
use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_schemas::ClassId;
use vaplan_schemas::rows::{RejectKind, RejectRow, Split};

use crate::error::LabelError;
use crate::ingest::annotations::{AnnotatedVideo, AnnotatedVideos, KeyError, key11};

/// A video with its weak label.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// Hash of the full name.
    pub id: VideoId,
    /// Full name.
    pub name: Arc<str>,
    /// Split that the video belongs to.
    pub split: Split,
    /// Classes of the weak label in ascending order. If `guessed`, the candidates that the scores gave.
    pub weak: Arc<[ClassId]>,
    /// Whether `weak` was guessed from the scores.
    pub guessed: bool,
    /// File that the weak label comes from.
    pub source: Arc<str>,
}

/// The videos of a run: those to label, and all others whose names are known. It finds them by id and by the key of a
/// feature file, as [`Roster`](crate::ingest::annotations::Roster) does.
///
/// A run keeps all its videos in memory, so a video takes only 28 bytes and the bytes of its name. Ids are hashes and therefore
/// evenly distributed, so a look-up begins where an id would be if they were exactly so, and looks at few others.
#[derive(Clone, Debug)]
pub struct VideoSet {
    all: AnnotatedVideos,
    /// Splits whose videos are labelled.
    splits: Vec<Split>,
    /// The ids of the labelled videos, ascending, and their positions.
    ids: Vec<VideoId>,
    by_id: Vec<u32>,
}

/// A video of a [`VideoSet`].
#[derive(Clone, Copy, Debug)]
pub struct KnownVideo<'a> {
    /// Hash of the full name.
    pub id: VideoId,
    /// Full name.
    pub name: &'a str,
    /// Split that the video belongs to.
    pub split: Split,
    /// Classes of the weak label in ascending order.
    pub weak: &'a Arc<[ClassId]>,
    /// File that the weak label comes from.
    pub source: &'a Arc<str>,
}

impl From<KnownVideo<'_>> for Video {
    fn from(known: KnownVideo<'_>) -> Video {
        Video {
            id: known.id,
            name: known.name.into(),
            split: known.split,
            weak: known.weak.clone(),
            guessed: false,
            source: known.source.clone(),
        }
    }
}

impl VideoSet {
    /// Takes all known videos. The videos of `splits` are labelled.
    ///
    /// # Errors
    /// Returns [`LabelError::Collision`] if the names of two labelled videos have the same hash.
    pub fn new(all: AnnotatedVideos, splits: &[Split]) -> Result<VideoSet, LabelError> {
        let labelled = (0_u32..).zip(all.iter());
        let labelled = labelled.filter(|(_, video)| splits.contains(&video.split));
        let mut labelled: Vec<(VideoId, u32)> = labelled
            .map(|(position, video)| (VideoId::of(video.name), position))
            .collect();
        labelled.sort_unstable();
        if let Some(pair) = labelled.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let [first, second] =
                [pair[0].1, pair[1].1].map(|position| all.get(position as usize).name.to_owned());
            return Err(LabelError::Collision { first, second });
        }
        let (ids, by_id) = labelled.into_iter().unzip();
        Ok(VideoSet {
            all,
            splits: splits.to_vec(),
            ids,
            by_id,
        })
    }

    /// The number of labelled videos.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no video is labelled.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The video at a position of the list that the set was made of.
    ///
    /// # Panics
    /// Panics if there is no such position.
    pub fn at(&self, position: usize) -> KnownVideo<'_> {
        let AnnotatedVideo {
            name,
            split,
            weak,
            source,
        } = self.all.get(position);
        KnownVideo {
            id: VideoId::of(name),
            name,
            split,
            weak,
            source,
        }
    }

    /// Iterates over the labelled videos in order of position.
    pub fn iter(&self) -> impl Iterator<Item = KnownVideo<'_>> {
        let all = (0..self.all.len()).map(|position| self.at(position));
        all.filter(|video| self.splits.contains(&video.split))
    }

    /// The ids of the labelled videos, ascending.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = VideoId> {
        self.ids.iter().copied()
    }

    /// The labelled video with this id. `None` if no labelled video has the id.
    pub fn get(&self, video: VideoId) -> Option<KnownVideo<'_>> {
        self.of_ids(video..=video).next()
    }

    /// The labelled videos with these ids, in order of id.
    pub fn of_ids(&self, ids: RangeInclusive<VideoId>) -> impl ExactSizeIterator<Item = KnownVideo<'_>> {
        let first = self.first_from(*ids.start());
        let past = match ids.end().0.checked_add(1) {
            Some(next) => self.first_from(VideoId(next)),
            None => self.ids.len(),
        };
        let own = &self.by_id[first.min(past)..past];
        own.iter().map(|&position| self.at(position as usize))
    }

    /// The number of labelled videos with a smaller id.
    fn first_from(&self, id: VideoId) -> usize {
        let (ids, all) = (&self.ids, self.ids.len());
        let less = |at: usize| ids[at] < id;
        let guess = ((u128::from(id.0) * all as u128) >> 64) as usize;
        // The answer is at least `from` and at most `to`. Steps double, because a guess is rarely far off.
        let (mut from, mut to, mut step) = (0, all, 1);
        if guess < all && less(guess) {
            from = guess + 1;
            while from + step <= all {
                let probe = from + step - 1;
                if !less(probe) {
                    to = probe;
                    break;
                }
                from = probe + 1;
                step *= 2;
            }
        } else {
            to = guess;
            while step <= to {
                let probe = to - step;
                if less(probe) {
                    from = probe + 1;
                    break;
                }
                to = probe;
                step *= 2;
            }
        }
        from + ids[from..to].partition_point(|own| *own < id)
    }

    /// The video that a key names.
    pub fn meaning(&self, key: &str) -> Meaning {
        // Most keys are the full name of a labelled video. A name is found by its id in less time than in alphabetical order.
        let id = VideoId::of(key);
        let at = self.first_from(id);
        if self.ids.get(at) == Some(&id) && self.all.get(self.by_id[at] as usize).name == key {
            return Meaning::Video(self.by_id[at] as usize);
        }
        let name = |position: &u32| self.all.get(*position as usize).name;
        // All names that begin with a key are together.
        let order = self.all.by_name();
        let first = order.partition_point(|position| name(position) < key);
        let later = &order[first..];
        let fits = |position: &&u32| name(position) == key || key11(name(position)) == key;
        let Some(own) = later.first().filter(fits) else {
            return Meaning::Unknown;
        };
        if name(own) != key {
            let count = later.partition_point(|position| name(position).starts_with(key));
            let last = later[count - 1];
            if last != *own {
                let ambiguous = KeyError::Ambiguous {
                    key: key.to_owned(),
                    first: name(own).into(),
                    second: name(&last).into(),
                };
                return Meaning::Ambiguous {
                    key: key.into(),
                    reason: ambiguous.to_string(),
                };
            }
        }
        match self.splits.contains(&self.all.get(*own as usize).split) {
            true => Meaning::Video(*own as usize),
            false => Meaning::NotLabelled,
        }
    }
}

/// The meaning of the key of a feature file.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// The key names this labelled video, by its position: [`VideoSet::at`].
    Video(usize),
    /// The key names a known video that is not labelled.
    NotLabelled,
    /// The key names no known video.
    Unknown,
    /// The key fits more than one video.
    Ambiguous {
        /// The ambiguous key.
        key: Arc<str>,
        /// A message that names two of the videos.
        reason: String,
    },
}

impl Meaning {
    /// Whether features under the key must be read. An ambiguous key is read, so that it can be rejected by name.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Meaning::Video(_) | Meaning::Ambiguous { .. })
    }

    /// The rejected row for a key that fits more than one video. `None` for any other key.
    pub fn reject(&self, file: &str, row: u64) -> Option<RejectRow> {
        let Meaning::Ambiguous { key, reason } = self else {
            return None;
        };
        let reject = RejectRow::reject(RejectKind::AmbiguousKey, file, reason.clone());
        Some(reject.row(row).video(&**key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::annotations::{Roster, VideoLabel};

    /// A set in which every third video is of split test, and the others are labelled.
    fn set(names: &[&str]) -> VideoSet {
        let video = |(position, name): (usize, &&str)| {
            let label = VideoLabel {
                split: match position % 3 {
                    2 => Split::Test,
                    _ => Split::Train,
                },
                weak: [ClassId(position as u32)].into(),
                source: "train.csv".into(),
            };
            ((*name).to_owned(), label)
        };
        let all = names.iter().enumerate().map(video).collect();
        VideoSet::new(all, &[Split::Train, Split::Val]).unwrap()
    }

    #[test]
    fn keys_mean_the_videos_that_the_roster_tells() {
        let names = [
            "AAAAAAAAAAA_20_30",
            "AAAAAAAAAAA_0_10",
            "AAAAAAAAAAAB",
            "BBBBBBBBBBB_0_10",
            "BBBBBBBBBBB",
            "short",
            "ééééééééééé_0_10",
            "CCCCCCCCCCC_0_10",
            "CCCCCCCCCC",
        ];
        let roster = Roster::new(names);
        let chosen = |position: usize| (position % 3 != 2).then_some(position);
        let known = set(&names);
        let mut keys: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for name in names {
            keys.extend(name.char_indices().map(|(end, _)| name[..end].to_owned()));
            keys.extend([format!("{name}x"), key11(name).to_owned()]);
        }
        for key in keys {
            let wanted = match roster.resolve(&key) {
                Ok(position) => chosen(position).map_or(Meaning::NotLabelled, Meaning::Video),
                Err(KeyError::Unknown) => Meaning::Unknown,
                Err(ambiguous) => Meaning::Ambiguous {
                    key: (&*key).into(),
                    reason: ambiguous.to_string(),
                },
            };
            assert_eq!(known.meaning(&key), wanted, "{key}");
        }
        assert!(matches!(known.meaning("AAAAAAAAAAA"), Meaning::Ambiguous { .. }));
        assert_eq!(known.meaning("BBBBBBBBBBB"), Meaning::Video(4));
        assert_eq!(set(&[]).meaning(""), Meaning::Unknown);
    }

    #[test]
    fn labelled_videos_are_found_by_id_and_by_ranges_of_ids() {
        let names: Vec<String> = (0..100).map(|number| format!("video{number:06}_0_10")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let known = set(&names);
        assert_eq!((known.len(), known.iter().count()), (67, 67));
        for (position, name) in names.iter().enumerate() {
            let found = known.get(VideoId::of(name)).map(Video::from);
            let found = found.map(|video| (video.name, video.weak[0]));
            let wanted = (position % 3 != 2).then(|| (Arc::from(*name), ClassId(position as u32)));
            assert_eq!(found, wanted, "{name}");
        }
        let ids: Vec<VideoId> = known.ids().collect();
        assert!(ids.is_sorted());
        let of =
            |range: RangeInclusive<VideoId>| known.of_ids(range).map(|video| video.id).collect::<Vec<_>>();
        assert_eq!(of(ids[10]..=ids[20]), ids[10..=20]);
        assert_eq!(of(VideoId(0)..=VideoId(u64::MAX)), ids);
    }
}
