//! Which labels of a store version PLD changes, decided from the tables before any features are read.
//!
//! ```text
//! predictions of the change, few ── labels of their videos ─┐
//! predictions and labels of all videos, bucket by bucket ───┴─ flips of each track ─┬─ other flips ──▶ tracks to write
//!                                                                                   ├─ equal flips ──▶ flips that stay
//!                                                                                   └─ not to tell ──▶ videos to label again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::changes::cells;
use vaplan_dataflows::decide::{Denoising, PlgTrack, decide_track};
use vaplan_dataflows::{Flip, LabelRecord, Score, Track, VideoId};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{FlipLimit, FlipReason, LabelRule, LabelTrack};
use vaplan_schemas::store::{Filter, Found, Place, Snapshot, on_every_core};
use vaplan_schemas::tables::{Labels, Rejects};

use super::bucketed::{LatestPredictions, PredictionsByBucket};
use super::resolve::Resolved;
use super::scope::RelabelledTrack;
use super::{Active, World};
use crate::error::LabelError;
use crate::world::evidence::{counting, has_epoch};

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

/// How a change of predictions, or of the settings of PLD, affects the labels of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct AffectedLabels {
    /// Videos that only the label graph can decide. Examples are a rejected prediction, and a user label that hides a
    /// score.
    pub(crate) videos: BTreeSet<Arc<str>>,
    /// Tracks with other flips, in videos that are not in `videos`.
    pub(crate) flipped: Vec<RelabelledTrack>,
    /// Tracks whose flips stay, in videos that are not in `videos`.
    pub(crate) stay: Vec<UnchangedFlips>,
    /// Modalities of which so many tracks get other flips that all their tracks are labelled anew. Then `flipped` and `stay`
    /// are empty, and `videos` has only the videos with a rejected prediction.
    pub(crate) rewritten: BTreeSet<Modality>,
}

/// The decision of PLD for a track.
enum FlipDecision {
    /// The flips of the track stay as they are.
    Same,
    /// PLD gives the track other flips.
    Other(Track),
    /// A user label hides a score, so the label graph must decide.
    Hidden,
    /// A prediction is rejected, so the label graph must decide.
    Rejected,
}

/// The largest number of tracks with other flips that are kept in memory, at about 700 bytes each. If an epoch flips more, all
/// tracks of the modality are labelled anew, bucket by bucket.
const MOST_FLIPPED: usize = 1 << 18;
/// The largest number of predictions in a change for which only the videos of these predictions are read. For more, all
/// buckets are read, because these videos are in nearly all files.
const FEW_PREDICTIONS: usize = 1 << 13;
/// The number of videos of a group of buckets.
const GROUP_VIDEOS: u64 = 1 << 15;

/// Finds the videos and tracks that a change affects. If `all` is set, the result has every video with changed
/// predictions or settings, even if its labels stay the same.
pub(crate) fn moved(
    snapshot: &Snapshot,
    resolved: &Resolved,
    all: bool,
) -> Result<AffectedLabels, LabelError> {
    let (was, is) = (&resolved.before, &resolved.after);
    let same = was.active == is.active && was.denoising == is.denoising;
    if same && resolved.predictions.is_empty() && !resolved.asks_for_flips {
        return Ok(AffectedLabels::default());
    }
    let fresh: BTreeSet<(VideoId, Modality)> = resolved
        .predictions
        .iter()
        .map(|track| (VideoId::of(&track.video), track.modality))
        .collect();
    if all {
        return with_changed_predictions(snapshot, resolved, &fresh);
    }
    match few(snapshot, resolved)? {
        true => of_few_videos(snapshot, resolved, &fresh),
        false => of_all_buckets(snapshot, resolved, &fresh, same),
    }
}

/// Every video with changed predictions or settings.
fn with_changed_predictions(
    snapshot: &Snapshot,
    resolved: &Resolved,
    fresh: &BTreeSet<(VideoId, Modality)>,
) -> Result<AffectedLabels, LabelError> {
    let (was, is) = (&resolved.before, &resolved.after);
    let [before, after] = before_and_after(snapshot, resolved, &Filter::all())?;
    let differs = |key: &(VideoId, Modality)| {
        let settings = was.denoising[key.1.index()] != is.denoising[key.1.index()];
        settings || fresh.contains(key) || before.epoch(*key) != after.epoch(*key)
    };
    let keys = before.keys().chain(after.keys());
    let differing: BTreeSet<VideoId> = keys.filter(differs).map(|(video, _)| video).collect();
    let names = before.names().into_iter().chain(after.names());
    Ok(AffectedLabels {
        videos: names
            .filter(|name| differing.contains(&VideoId::of(name)))
            .collect(),
        ..AffectedLabels::default()
    })
}

/// The predictions that count before and after the change, of the videos of a filter.
fn before_and_after(
    snapshot: &Snapshot,
    resolved: &Resolved,
    filter: &Filter,
) -> Result<[LatestPredictions; 2], LabelError> {
    let (was, is) = (&resolved.before, &resolved.after);
    let before = counting(snapshot, was.active.as_ref(), filter)?;
    let mut after = match was.active == is.active {
        true => before.clone(),
        false => counting(snapshot, is.active.as_ref(), filter)?,
    };
    // The later of two tracks of one epoch counts. Append the predictions of the change last, so that they replace those of
    // the store.
    after.extend(resolved.predictions.iter().cloned());
    Ok([
        LatestPredictions::new(before, was),
        LatestPredictions::new(after, is),
    ])
}

/// Whether the change affects only the videos of its own predictions, and these are few.
fn few(snapshot: &Snapshot, resolved: &Resolved) -> Result<bool, LabelError> {
    let (was, is) = (&resolved.before, &resolved.after);
    let given = &resolved.predictions;
    if resolved.asks_for_flips || was.denoising != is.denoising || given.len() > FEW_PREDICTIONS {
        return Ok(false);
    }
    let Some(now) = &is.active else {
        return Ok(was.active.is_none());
    };
    let stay = |then: &Active| then.classes == now.classes && then.epochs.is_subset(&now.epochs);
    if !was.active.as_ref().is_none_or(stay) {
        return Ok(false);
    }
    // The predictions that the store already has of an epoch that did not count before would now count, too.
    for epoch in &now.epochs {
        let counted = was.active.as_ref().is_some_and(|was| was.epochs.contains(epoch));
        if !counted && has_epoch(snapshot, *epoch)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the labels of the videos of the change's own predictions.
fn of_few_videos(
    snapshot: &Snapshot,
    resolved: &Resolved,
    fresh: &BTreeSet<(VideoId, Modality)>,
) -> Result<AffectedLabels, LabelError> {
    let filter = Filter::videos(resolved.predictions.iter().map(|track| track.video.clone()));
    let [before, after] = before_and_after(snapshot, resolved, &filter)?;
    let keys = before.keys().chain(after.keys());
    let differs = |key: &(VideoId, Modality)| fresh.contains(key) || before.epoch(*key) != after.epoch(*key);
    let differing: BTreeSet<VideoId> = keys.filter(differs).map(|(video, _)| video).collect();
    let differing = |video: VideoId| differing.contains(&video);
    let look = |tracks| Looked::at(tracks, &resolved.after, &after, &differing);
    let mut all = Looked::default();
    for own in snapshot.map_files::<Labels, _>(&filter, look)? {
        all.add(own);
    }
    affected(snapshot, all, &differing)
}

/// Reads all labels and all predictions that count, bucket by bucket.
///
/// The predictions before the change are not read. If other predictions or settings count, every video may differ: the flips
/// that a track should have and the flips that it has tell whether it does.
fn of_all_buckets(
    snapshot: &Snapshot,
    resolved: &Resolved,
    fresh: &BTreeSet<(VideoId, Modality)>,
    same: bool,
) -> Result<AffectedLabels, LabelError> {
    let is = &resolved.after;
    let fresh: BTreeSet<VideoId> = fresh.iter().map(|(video, _)| *video).collect();
    let differing = |video: VideoId| !same || fresh.contains(&video);
    let groups = snapshot.bucket_groups(GROUP_VIDEOS)?;
    let predictions = PredictionsByBucket::read(snapshot, is, &resolved.predictions, groups.buckets())?;
    let labels = snapshot.by_bucket::<Labels>(groups.buckets())?;
    let mut all = Looked::default();
    for group in groups.iter() {
        let rows = labels.group(group.clone())?;
        let looked = on_every_core(group.len(), |nth| {
            let bucket = group.start + nth as u32;
            let latest = predictions.as_ref().map(|own| own.of(bucket)).transpose()?;
            let tracks = rows.bucket(bucket, &Filter::all())?;
            Ok::<_, LabelError>(Looked::at(tracks, is, &latest.unwrap_or_default(), &differing))
        })?;
        looked.into_iter().for_each(|own| all.add(own));
    }
    let mut affected = affected(snapshot, all, &differing)?;
    if !affected.rewritten.is_empty() {
        let denoised = |modality: &Modality| {
            let of = |world: &World| world.denoising[modality.index()].is_some();
            of(&resolved.before) || of(is)
        };
        affected.rewritten = Modality::ALL.into_iter().filter(denoised).collect();
    }
    Ok(affected)
}

/// The decisions about some tracks.
#[derive(Debug, Default)]
struct Looked {
    hidden: BTreeSet<Arc<str>>,
    rejected: BTreeSet<Arc<str>>,
    flipped: Vec<RelabelledTrack>,
    stay: Vec<UnchangedFlips>,
    /// Whether more tracks were flipped than memory shall hold. The lists `hidden`, `flipped` and `stay` then stay empty.
    too_many: bool,
}

impl Looked {
    fn at(
        tracks: Vec<Found<LabelTrack>>,
        world: &World,
        predictions: &LatestPredictions,
        differing: &(dyn Fn(VideoId) -> bool + Sync),
    ) -> Looked {
        let mut looked = Looked::default();
        for Found { row: track, place } in tracks {
            let id = VideoId::of(&track.video);
            let says = match differing(id) {
                true => says(predictions, world, id, &track),
                false => FlipDecision::Same,
            };
            match says {
                FlipDecision::Same => {
                    let flips = track.flipped();
                    if flips != [0, 0] {
                        looked.stay.push(UnchangedFlips {
                            video: track.video,
                            modality: track.modality,
                            class: track.class,
                            flips,
                        });
                    }
                }
                FlipDecision::Hidden => drop(looked.hidden.insert(track.video)),
                FlipDecision::Rejected => drop(looked.rejected.insert(track.video)),
                FlipDecision::Other(expected) => {
                    let generated = world.generated(track.modality);
                    looked.flipped.push(reflipped(track, place, expected, generated));
                }
            }
        }
        looked
    }

    fn add(&mut self, other: Looked) {
        self.rejected.extend(other.rejected);
        if self.too_many {
            return;
        }
        self.hidden.extend(other.hidden);
        self.flipped.extend(other.flipped);
        self.stay.extend(other.stay);
        if self.hidden.len() + self.flipped.len() > MOST_FLIPPED {
            self.too_many = true;
            (self.hidden, self.flipped, self.stay) = Default::default();
        }
    }
}

fn affected(
    snapshot: &Snapshot,
    looked: Looked,
    differing: &(dyn Fn(VideoId) -> bool + Sync),
) -> Result<AffectedLabels, LabelError> {
    let mut videos = looked.rejected;
    videos.extend(looked.hidden);
    for row in snapshot.read::<Rejects>()? {
        let video = row.video.as_deref().filter(|_| row.kind.is_of_predictions());
        let video = video.filter(|video| differing(VideoId::of(video)));
        videos.extend(video.map(Arc::from));
    }
    Ok(AffectedLabels {
        videos,
        flipped: looked.flipped,
        stay: looked.stay,
        rewritten: match looked.too_many {
            true => Modality::ALL.into(),
            false => BTreeSet::new(),
        },
    })
}

/// Compares the flips that PLD now gives a track with the flips that the track has.
fn says(predictions: &LatestPredictions, world: &World, id: VideoId, track: &LabelTrack) -> FlipDecision {
    let Some(class) = world.class_id(&track.class) else {
        return FlipDecision::Same;
    };
    let denoising = predictions.denoising(world, (id, track.modality, class));
    let has_flips = track.rules.contains(&LabelRule::Pld);
    if denoising.is_none() && !has_flips {
        return FlipDecision::Same;
    }
    let of_track = |own: &Denoising| own.prediction.segments() as usize == track.segments();
    if !denoising.as_ref().is_none_or(of_track) {
        return FlipDecision::Rejected;
    }
    let Some((scores, threshold)) = scored(track) else {
        let bad = |own: &Denoising| {
            let values = own.prediction.of(class).unwrap_or_default();
            values.iter().any(|value| value.get().is_none())
        };
        return match denoising.as_ref().is_some_and(bad) {
            true => FlipDecision::Rejected,
            false => FlipDecision::Hidden,
        };
    };
    let generated = PlgTrack::new(class, &scores, threshold, denoising.as_ref().map(|own| own.rule));
    let (expected, rejection) = decide_track(track.modality, generated, denoising.as_ref());
    if rejection.is_some() {
        return FlipDecision::Rejected;
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
        limit: flip
            .rule
            .limit()
            .zip(flip.base)
            .map(|((alpha, k), base)| FlipLimit {
                base: base.get(),
                alpha,
                k,
            }),
    }
}

/// The track with the labels and flips of `expected`. Its scores and thresholds stay. Labels that are not flipped have the rule
/// `generated`.
fn reflipped(track: LabelTrack, place: Place, expected: Track, generated: LabelRule) -> RelabelledTrack {
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
            None => generated,
        };
    }
    let record = |track| LabelRecord { tracks: vec![track] };
    let (before, after) = (record(before), record(expected));
    let changes = cells(VideoId::of(&new.video), new.modality, Some(&before), Some(&after));
    RelabelledTrack { place, new, changes }
}
