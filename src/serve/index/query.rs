//! Filters, queues and pages of the list of videos.

use serde::{Deserialize, Serialize};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::{IndexedTrack, ReviewIndex, gain};

/// Largest number of rows of a page.
pub const MOST_ROWS: usize = 200;
/// Number of rows of a page if the request names none.
const ROWS: usize = 50;

/// More than the number of what can be reviewed in a track of any video.
const MOST_OF_A_VIDEO: f64 = 4_294_967_296.0;

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueOrder {
    /// By name.
    #[default]
    Name,
    /// The score that is nearest to its threshold first. Videos whose labels are all a person's are left out.
    Near,
    /// Most segments in which PLG and the parser differ first. Videos without such a segment are left out.
    Parser,
    /// Most segments in which audio and visual labels of a class differ first. Videos without such a segment are left out.
    Av,
    /// Most labels that PLD flipped first. Videos without a flip are left out.
    Pld,
    /// Highest forward loss first. Videos without predictions are left out.
    Loss,
    /// Most segments in which label and truth differ first. Videos without such a segment are left out.
    Wrong,
    /// Videos of the class and modality that gains most from review first, and within it those with most to review. Tracks
    /// with a user label, and videos with nothing to review, are left out.
    Gain,
}

impl QueueOrder {
    /// The number that the order goes by, of one track. `None` leaves the track out. A higher number comes first.
    fn of(self, track: &IndexedTrack) -> Option<f64> {
        let counted = |count: u32| (count > 0).then_some(f64::from(count));
        match self {
            QueueOrder::Name => Some(0.0),
            QueueOrder::Near => track.distance.is_finite().then_some(-f64::from(track.distance)),
            QueueOrder::Parser => counted(track.parser),
            // Both tracks of the class count the same segments.
            QueueOrder::Av => counted(track.other).filter(|_| track.modality == Modality::Audio),
            QueueOrder::Pld => counted(track.flipped),
            QueueOrder::Loss => (track.loss > 0.0).then_some(f64::from(track.loss)),
            QueueOrder::Wrong => counted(track.wrong),
            QueueOrder::Gain => counted(gain::to_review(track)),
        }
    }

    /// The number of a video, from those of its tracks: the sum of counts, or the best of distances and losses.
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            QueueOrder::Near | QueueOrder::Loss | QueueOrder::Name | QueueOrder::Gain => a.max(b),
            QueueOrder::Parser | QueueOrder::Av | QueueOrder::Pld | QueueOrder::Wrong => a + b,
        }
    }
}

/// A rule that set labels, as a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleFilter {
    /// PLD flipped a label.
    Pld,
    /// A person set a label.
    User,
    /// All labels are those of PLG.
    Plg,
}

/// A disagreement, as a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffersFilter {
    /// PLG and the parser.
    Parser,
    /// Audio and visual labels.
    Av,
    /// Labels and truth.
    Truth,
}

/// A request for a page of the list.
///
/// `class`, `modality`, `rule` and `differs` must all hold for one track of a video, so that "PLD flipped visual Dog" does
/// not find a video in which PLD flipped Speech.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Part of the name, in any case.
    #[serde(default)]
    pub q: String,
    /// Name of a class; empty: any.
    #[serde(default)]
    pub class: String,
    /// Modality.
    pub modality: Option<Modality>,
    /// Split.
    pub split: Option<Split>,
    /// Rule.
    pub rule: Option<RuleFilter>,
    /// Disagreement.
    pub differs: Option<DiffersFilter>,
    /// Only videos with (`true`) or without (`false`) a user label.
    pub reviewed: Option<bool>,
    /// Videos without a user label come first.
    #[serde(default)]
    pub unreviewed_first: bool,
    /// Order.
    #[serde(default)]
    pub order: QueueOrder,
    /// Page, from 0.
    #[serde(default)]
    pub page: usize,
    /// Rows of a page, from 1 to [`MOST_ROWS`].
    pub rows: Option<usize>,
    /// Wait until the list is of this store version or a later one.
    pub at_least: Option<u64>,
}

/// One page of the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListPage {
    /// Store version of all rows.
    pub version: u64,
    /// Number of videos that the filters leave.
    pub total: usize,
    /// Number of videos of the version.
    pub videos: usize,
    /// Page, from 0.
    pub page: usize,
    /// Rows of a full page.
    pub rows: usize,
    /// The videos.
    pub list: Vec<ListedVideo>,
}

/// One row of the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedVideo {
    /// Full name.
    pub video: String,
    /// Split.
    pub split: Split,
    /// Number of segments.
    pub segments: u32,
    /// Classes of the tracks.
    pub classes: Vec<String>,
    /// Number of set labels: audio, visual.
    pub set: [u32; 2],
    /// Labels that PLD flipped.
    pub pld: u32,
    /// Labels that a person set.
    pub user: u32,
    /// Segments in which PLG and the parser differ. `None` without predictions.
    pub parser: Option<u32>,
    /// Segments in which audio and visual labels of a class differ.
    pub av: u32,
    /// Segments in which label and truth differ.
    pub wrong: u32,
    /// Smallest relative distance of a score from its threshold.
    pub near: Option<f32>,
    /// Largest forward loss. `None` without predictions of the video.
    pub loss: Option<f32>,
}

impl ListQuery {
    /// Checks the values of the request.
    ///
    /// # Errors
    /// Returns a message with the value found and the value expected.
    pub fn check(&self, index: &ReviewIndex) -> Result<(), String> {
        let rows = self.rows.unwrap_or(ROWS);
        if !(1..=MOST_ROWS).contains(&rows) {
            return Err(format!("rows is {rows}, expected 1 to {MOST_ROWS}"));
        }
        if !self.class.is_empty() && !index.classes.iter().any(|class| **class == *self.class) {
            return Err(format!(
                "class is `{}`, expected a class of the store",
                self.class
            ));
        }
        Ok(())
    }

    /// The page of an index.
    pub fn page(&self, index: &ReviewIndex) -> ListPage {
        let rows = self.rows.unwrap_or(ROWS).clamp(1, MOST_ROWS);
        let found = self.matching(index);
        let list = found.iter().skip(self.page.saturating_mul(rows)).take(rows);
        ListPage {
            version: index.version,
            total: found.len(),
            videos: index.len(),
            page: self.page,
            rows,
            list: list.map(|at| listed(index, *at as usize)).collect(),
        }
    }

    /// Positions of the videos that the filters leave, in the order of the list.
    pub fn matching(&self, index: &ReviewIndex) -> Vec<u32> {
        let class = index.classes.iter().position(|class| **class == *self.class);
        let needle = self.q.to_lowercase();
        let any_track = self.any_track();
        let places = (self.order == QueueOrder::Gain).then(|| gain::places(index));
        let of = |track: &IndexedTrack| {
            let number = self.order.of(track)?;
            // The place of the class counts first. No video has so many segments that its number reaches the next place.
            Some(
                number
                    + places
                        .as_ref()
                        .map_or(0.0, |places| places.of(track) * MOST_OF_A_VIDEO),
            )
        };
        let mut found: Vec<(bool, f64, u32)> = Vec::new();
        for at in 0..index.len() {
            let video = index.video(at);
            if self.split.is_some_and(|split| split != video.split) || !contains(index.name(at), &needle) {
                continue;
            }
            let tracks = index.tracks(at);
            let reviewed = tracks.iter().any(|track| track.user > 0);
            if self.reviewed.is_some_and(|wanted| wanted != reviewed) {
                continue;
            }
            let own = tracks.iter().filter(|track| self.takes(track, class));
            let number = own.filter_map(of).reduce(|a, b| self.order.join(a, b));
            // A video without labels has no tracks, and is found if no filter asks for a track.
            let number = number.or((any_track && self.order == QueueOrder::Name).then_some(0.0));
            if let Some(number) = number {
                found.push((reviewed && self.unreviewed_first, -number, at as u32));
            }
        }
        // Equal numbers keep the order of the names.
        found.sort_unstable_by(|a, b| (a.0.cmp(&b.0)).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
        found.into_iter().map(|(_, _, at)| at).collect()
    }

    fn any_track(&self) -> bool {
        self.class.is_empty() && self.modality.is_none() && self.rule.is_none() && self.differs.is_none()
    }

    fn takes(&self, track: &IndexedTrack, class: Option<usize>) -> bool {
        let rule = |rule| match rule {
            RuleFilter::Pld => track.flipped > 0,
            RuleFilter::User => track.user > 0,
            RuleFilter::Plg => track.flipped == 0 && track.user == 0,
        };
        let differs = |differs| match differs {
            DiffersFilter::Parser => track.parser > 0,
            DiffersFilter::Av => track.other > 0,
            DiffersFilter::Truth => track.wrong > 0,
        };
        (self.class.is_empty() || class == Some(track.class as usize))
            && self.modality.is_none_or(|modality| modality == track.modality)
            && self.rule.is_none_or(rule)
            && self.differs.is_none_or(differs)
    }
}

/// Whether a name contains the needle, which is in lower case.
fn contains(name: &str, needle: &str) -> bool {
    needle.is_empty() || name.contains(needle) || name.to_lowercase().contains(needle)
}

fn listed(index: &ReviewIndex, at: usize) -> ListedVideo {
    let (video, tracks) = (index.video(at), index.tracks(at));
    let sum = |count: fn(&IndexedTrack) -> u32| tracks.iter().map(count).sum();
    let set = |modality| {
        let own = tracks.iter().filter(|track| track.modality == modality);
        own.map(|track| track.set).sum()
    };
    let mut classes: Vec<u32> = tracks.iter().map(|track| track.class).collect();
    classes.dedup();
    let near = tracks
        .iter()
        .map(|track| track.distance)
        .fold(f32::INFINITY, f32::min);
    ListedVideo {
        video: index.name(at).to_owned(),
        split: video.split,
        segments: video.segments,
        classes: classes
            .into_iter()
            .map(|class| index.classes[class as usize].to_string())
            .collect(),
        set: Modality::ALL.map(set),
        pld: sum(|track| track.flipped),
        user: sum(|track| track.user),
        parser: index.epoch.map(|_| sum(|track| track.parser)),
        av: sum(|track| track.other) / 2,
        wrong: sum(|track| track.wrong),
        near: near.is_finite().then_some(near),
        loss: tracks
            .iter()
            .map(|track| track.loss)
            .reduce(f32::max)
            .filter(|loss| *loss > 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::VideoEntry;
    use super::*;

    /// `a` has a near score, `b` a flip of visual Dog, `c` a user label and two disagreements, `d` no labels at all.
    fn index() -> ReviewIndex {
        let entry = |name: &str, split, tracks| VideoEntry {
            name: name.into(),
            split,
            segments: 10,
            tracks,
        };
        let [mut near, mut flip, mut dog, mut user] =
            [0, 0, 1, 1].map(|class| IndexedTrack::new(class, Modality::Audio));
        near.distance = 0.01;
        (flip.distance, flip.modality, flip.flipped) = (0.5, Modality::Visual, 1);
        (dog.distance, dog.parser) = (0.2, 1);
        (user.user, user.parser, user.loss) = (2, 2, 3.0);
        let entries = [
            entry("a", Split::Train, vec![near]),
            entry("b", Split::Val, vec![flip, dog]),
            entry("Cc", Split::Train, vec![user]),
            entry("d", Split::Test, vec![]),
        ];
        let mut entries = Vec::from(entries);
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        ReviewIndex::new(4, vec!["Dog".into(), "Cat".into()], None, entries)
    }

    fn names(query: &ListQuery) -> Vec<String> {
        let index = index();
        query.check(&index).unwrap();
        query.page(&index).list.into_iter().map(|row| row.video).collect()
    }

    #[test]
    fn a_queue_leaves_out_what_has_nothing_to_review() {
        let of = |order| {
            names(&ListQuery {
                order,
                ..ListQuery::default()
            })
        };
        assert_eq!(of(QueueOrder::Name), ["Cc", "a", "b", "d"]);
        assert_eq!(of(QueueOrder::Near), ["a", "b"]);
        assert_eq!(of(QueueOrder::Parser), ["Cc", "b"]);
        assert_eq!(of(QueueOrder::Pld), ["b"]);
        assert_eq!(of(QueueOrder::Loss), ["Cc"]);
        // Audio Dog of `a` is near, visual Dog of `b` is flipped, audio Cat of `b` has one disagreement of three, and half of the
        // videos of audio Cat are reviewed.
        assert_eq!(of(QueueOrder::Gain), ["b", "a"]);
    }

    #[test]
    fn filters_hold_for_one_track_at_a_time() {
        let mut query = ListQuery {
            rule: Some(RuleFilter::Pld),
            ..ListQuery::default()
        };
        assert_eq!(names(&query), ["b"]);
        query.class = "Cat".into();
        assert!(
            names(&query).is_empty(),
            "PLD flipped Dog, and Cat is another track"
        );
        query.class = "Dog".into();
        query.modality = Some(Modality::Audio);
        assert!(names(&query).is_empty(), "PLD flipped the visual track");
    }

    #[test]
    fn the_unreviewed_come_first_and_pages_do_not_overlap() {
        let mut query = ListQuery {
            unreviewed_first: true,
            rows: Some(3),
            ..ListQuery::default()
        };
        assert_eq!(names(&query), ["a", "b", "d"]);
        query.page = 1;
        assert_eq!(names(&query), ["Cc"]);
        query.page = usize::MAX;
        assert!(names(&query).is_empty());
        query = ListQuery {
            q: "cC".into(),
            reviewed: Some(true),
            ..ListQuery::default()
        };
        assert_eq!(names(&query), ["Cc"]);
        query.rows = Some(0);
        assert_eq!(query.check(&index()).unwrap_err(), "rows is 0, expected 1 to 200");
    }
}
