//! Which labels of a store version PLD changes, decided from the tables before any features are read.
//!
//! ```text
//! predictions before, after ─┐
//! K, α, guard before, after ─┴─ videos with a difference ── labels ─┬─ other flips ──▶ videos to label again
//!                                                                   └─ equal flips ──▶ flips that stay
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::changes::{Change, cells};
use vaplan_dataflows::decide::{Denoising, decide_track, plg};
use vaplan_dataflows::{Flip, LabelRecord, Score, Track, VideoId};
use vaplan_schemas::rows::{FlipLimit, FlipReason, LabelRule, LabelTrack, PredictionTrack};
use vaplan_schemas::store::{Filter, Found, Place, Snapshot};
use vaplan_schemas::tables::{Labels, Rejects, Table, Videos};
use vaplan_schemas::{ClassId, Modality};

use super::resolve::Resolved;
use crate::error::LabelError;
use crate::world::World;
use crate::world::evidence::{columns, counting, latest_tracks, prediction};

/// Number of labels that PLD flipped, by modality and class: first the labels that it set, then those that it unset.
pub type FlipCounts = BTreeMap<(Modality, Arc<str>), [u64; 2]>;

/// Adds the flips of these records to `flips`.
pub(crate) fn count<'a>(
    flips: &mut FlipCounts,
    world: &World,
    records: impl IntoIterator<Item = (Modality, &'a LabelRecord)>,
) {
    for (modality, record) in records {
        for track in record.tracks.iter().filter(|track| track.denoised.is_some()) {
            let class = world.classes[track.class.index()].clone();
            let own = flips.entry((modality, class)).or_default();
            for segment in (0..track.pld.len()).filter(|segment| track.pld.get(*segment)) {
                own[usize::from(!track.label.get(segment))] += 1;
            }
        }
    }
}

/// Adds the flips that another process counted.
pub(crate) fn add(flips: &mut FlipCounts, others: FlipCounts) {
    for (track, [set, unset]) in others {
        let own = flips.entry(track).or_default();
        *own = [own[0] + set, own[1] + unset];
    }
}

/// Total number of flips.
pub fn total(flips: &FlipCounts) -> u64 {
    flips.values().flatten().sum()
}

/// A track whose flips the change leaves as they are, and the number of these flips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnchangedFlips {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality of the labels.
    pub modality: Modality,
    /// Name of the class.
    pub class: Arc<str>,
    /// Number of labels that PLD set, and number of labels that PLD unset.
    pub flips: [u64; 2],
}

/// A track in which the change gives PLD other flips, and changes nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Reflipped {
    /// Place of the old rows in the store.
    pub place: Place,
    /// The labels after the change.
    pub new: LabelTrack,
    /// The labels whose value changes.
    pub changes: Vec<Change>,
}

/// How a change of predictions, or of the settings of PLD, affects the labels of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct AffectedLabels {
    /// Videos that only the label graph can decide. Examples are a rejected prediction, and a user label that hides a
    /// score.
    pub(crate) videos: BTreeSet<Arc<str>>,
    /// Tracks with other flips, in videos that are not in `videos`.
    pub(crate) flipped: Vec<Reflipped>,
    /// Tracks whose flips stay, in videos that are not in `videos`.
    pub(crate) stay: Vec<UnchangedFlips>,
}

/// The decision of PLD for a track.
enum FlipDecision {
    /// The flips of the track stay as they are.
    Same,
    /// PLD gives the track other flips.
    Other(Track),
    /// The tables do not tell; the label graph must decide.
    Unclear,
}

/// The predictions that count before and after the change.
struct CountedPredictions {
    names: BTreeMap<VideoId, Arc<str>>,
    before: BTreeMap<(VideoId, Modality), u64>,
    after: BTreeMap<(VideoId, Modality), PredictionTrack>,
    /// Classes with their column in the predictions after the change.
    columns: Vec<(ClassId, usize)>,
}

/// Finds the videos and tracks that a change affects. If `all` is set, the result has every video with changed
/// predictions or settings, even if its labels stay the same.
pub(crate) fn moved(
    snapshot: &Snapshot,
    resolved: &Resolved,
    all: bool,
) -> Result<AffectedLabels, LabelError> {
    let (was, is) = (&resolved.before, &resolved.after);
    let same = was.active == is.active && was.denoising == is.denoising && resolved.predictions.is_empty();
    if same && !resolved.asks_for_flips {
        return Ok(AffectedLabels::default());
    }
    let both = CountedPredictions::read(snapshot, resolved)?;
    let fresh: BTreeSet<(VideoId, Modality)> = resolved
        .predictions
        .iter()
        .map(|track| (VideoId::of(&track.video), track.modality))
        .collect();
    let differs = |key: &(VideoId, Modality)| {
        let after = both.after.get(key).map(|track| track.epoch);
        let settings = was.denoising[key.1.index()] != is.denoising[key.1.index()];
        settings || fresh.contains(key) || both.before.get(key).copied() != after
    };
    let keys = || both.before.keys().chain(both.after.keys());
    let differing: BTreeSet<VideoId> = keys().filter(|key| differs(key)).map(|key| key.0).collect();
    if all {
        let named = |id: &VideoId| both.names.get(id).cloned();
        return Ok(AffectedLabels {
            videos: differing.iter().filter_map(named).collect(),
            ..AffectedLabels::default()
        });
    }
    let looked: BTreeSet<VideoId> = match resolved.asks_for_flips {
        true => keys().map(|key| key.0).collect(),
        false => differing.clone(),
    };
    let mut moved = AffectedLabels::default();
    for row in snapshot.read::<Rejects>()? {
        let video = row.video.as_deref().filter(|_| row.kind.is_of_predictions());
        moved.videos.extend(
            video
                .filter(|video| differing.contains(&VideoId::of(video)))
                .map(Arc::from),
        );
    }
    // If more than a quarter of the videos is wanted, reading all rows is faster than a filter by video.
    let there: u64 = snapshot.files(Videos::NAME)?.iter().map(|file| file.rows).sum();
    let filter = match looked.len() as u64 * 4 > there {
        true => Filter::all(),
        false => Filter::videos(looked.iter().filter_map(|id| both.names.get(id).cloned())),
    };
    let look = |tracks: Vec<Found<LabelTrack>>| {
        let mut own = AffectedLabels::default();
        for Found { row: track, place } in tracks {
            let id = VideoId::of(&track.video);
            if !looked.contains(&id) {
                continue;
            }
            let says = match differing.contains(&id) {
                true => both.says(is, id, &track),
                false => FlipDecision::Same,
            };
            match says {
                FlipDecision::Same => {}
                FlipDecision::Unclear => {
                    own.videos.insert(track.video);
                    continue;
                }
                FlipDecision::Other(expected) => {
                    own.flipped.push(reflipped(track, place, expected));
                    continue;
                }
            }
            let flips = track.flipped();
            if flips != [0, 0] {
                own.stay.push(UnchangedFlips {
                    video: track.video,
                    modality: track.modality,
                    class: track.class,
                    flips,
                });
            }
        }
        own
    };
    for own in snapshot.map_files::<Labels, _>(&filter, look)? {
        moved.videos.extend(own.videos);
        moved.flipped.extend(own.flipped);
        moved.stay.extend(own.stay);
    }
    Ok(moved)
}

impl CountedPredictions {
    fn read(snapshot: &Snapshot, resolved: &Resolved) -> Result<CountedPredictions, LabelError> {
        let (was, is) = (&resolved.before, &resolved.after);
        let mut names: BTreeMap<VideoId, Arc<str>> = BTreeMap::new();
        let tracks = counting(snapshot, was.active.as_ref(), &Filter::all())?;
        let mut before: BTreeMap<(VideoId, Modality), u64> = BTreeMap::new();
        for track in &tracks {
            let id = VideoId::of(&track.video);
            names.insert(id, track.video.clone());
            let epoch = before.entry((id, track.modality)).or_default();
            *epoch = track.epoch.max(*epoch);
        }
        let mut tracks = match was.active == is.active {
            true => tracks,
            false => counting(snapshot, is.active.as_ref(), &Filter::all())?,
        };
        // `latest_tracks` keeps the later of two tracks of one epoch. Append the predictions of the change last, so
        // that they replace those of the store.
        tracks.extend(resolved.predictions.iter().cloned());
        names.extend(
            tracks
                .iter()
                .map(|track| (VideoId::of(&track.video), track.video.clone())),
        );
        let (after, columns) = match &is.active {
            Some(active) => (latest_tracks(tracks, active), columns(active, is)),
            None => Default::default(),
        };
        Ok(CountedPredictions {
            names,
            before,
            after,
            columns,
        })
    }

    /// Compares the flips that PLD now gives a track with the flips that the track has.
    fn says(&self, world: &World, id: VideoId, track: &LabelTrack) -> FlipDecision {
        let Some(class) = world.class_id(&track.class) else {
            return FlipDecision::Same;
        };
        let denoising = self.denoising(world, id, track.modality, class);
        let has_flips = track.rules.contains(&LabelRule::Pld);
        if denoising.is_none() && !has_flips {
            return FlipDecision::Same;
        }
        let Some((scores, threshold)) = scored(track) else {
            return FlipDecision::Unclear;
        };
        let of_track = |own: &Denoising| own.prediction.segments() as usize == track.segments();
        if !denoising.as_ref().is_none_or(of_track) {
            return FlipDecision::Unclear;
        }
        let labels = plg(&scores, threshold);
        let (expected, rejection) = decide_track(track.modality, class, labels, denoising.as_ref());
        if rejection.is_some() {
            return FlipDecision::Unclear;
        }
        let same = (0..track.segments()).all(|segment| {
            let (own, why) = (track.get(segment), expected.flip(segment));
            (own.rule == LabelRule::Pld) == why.is_some() && own.why.copied() == why.as_ref().map(flip_reason)
        });
        if same {
            FlipDecision::Same
        } else {
            FlipDecision::Other(expected)
        }
    }

    /// The prediction and settings of PLD for one class. A video has few classes in its weak label, but its
    /// predictions have all classes: one column is enough here.
    fn denoising(&self, world: &World, id: VideoId, modality: Modality, class: ClassId) -> Option<Denoising> {
        let track = self.after.get(&(id, modality))?;
        let rule = world.denoising[modality.index()]?;
        let own = self.columns.binary_search_by_key(&class, |(of, _)| *of);
        let columns = own.map_or(&[][..], |at| &self.columns[at..=at]);
        Some(Denoising {
            prediction: Arc::new(prediction(track, columns, None)),
            rule,
        })
    }
}

/// Scores and threshold of a track, as its labels repeat them. `None` if a label lacks its score or threshold: table
/// `labels` does not hold the score that a user label overrides.
fn scored(track: &LabelTrack) -> Option<(Vec<Score>, Score)> {
    if track.rules.contains(&LabelRule::User) {
        return None;
    }
    let scores = track.scores.iter().map(|score| Score::new(*score));
    Some((scores.collect::<Option<_>>()?, Score::new(track.threshold?)?))
}

/// The reason for a flip, as column `why` of the tables holds it.
pub(crate) fn flip_reason(flip: &Flip) -> FlipReason {
    FlipReason {
        epoch: flip.epoch,
        loss: Some(flip.loss.get()),
        // A rule without these parameters has the epoch and the loss as its reason.
        limit: flip.rule.limit().map(|(alpha, k)| FlipLimit {
            base: flip.base.get(),
            alpha,
            k,
        }),
    }
}

/// The track with the labels and flips of `expected`. Its scores and thresholds stay.
fn reflipped(track: LabelTrack, place: Place, expected: Track) -> Reflipped {
    let before = track.labels.iter().copied().collect();
    let before = Track::plg(expected.class, before);
    let mut new = track;
    new.labels = expected.label.iter().collect();
    new.flips.clear();
    for (segment, rule) in new.rules.iter_mut().enumerate() {
        *rule = match expected.flip(segment) {
            Some(flip) => {
                new.flips.push((segment as u32, flip_reason(&flip)));
                LabelRule::Pld
            }
            None => LabelRule::Plg,
        };
    }
    let record = |track| LabelRecord { tracks: vec![track] };
    let (before, after) = (record(before), record(expected));
    let changes = cells(VideoId::of(&new.video), new.modality, Some(&before), Some(&after));
    Reflipped { place, new, changes }
}
