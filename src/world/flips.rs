//! What PLD makes of the labels that a version has, before anything else is read.
//!
//! ```text
//! predictions before, after ─┐
//! K, α, guard before, after ─┴─ videos of which one differs ── labels ─┬─ other flips ─▶ videos to be labelled
//!                                                                      └─ the same ────▶ flips that stay
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::changes::{Change, cells};
use vaplan_dataflows::decide::{Denoising, decide_track, plg};
use vaplan_dataflows::{Flip, LabelRecord, Score, Track, VideoId};
use vaplan_schemas::rows::{FlipLimit, FlipReason, LabelCell, LabelRule, LabelTrack, PredictionTrack};
use vaplan_schemas::store::{Filter, Found, Place, Snapshot};
use vaplan_schemas::tables::{Labels, Rejects, Table, Videos};
use vaplan_schemas::{ClassId, Modality};

use super::resolve::Resolved;
use crate::error::LabelError;
use crate::world::kept::{columns, counting, latest_tracks, prediction};
use crate::world::{World, at};

/// Labels that PLD flipped, by modality and class: to set, and to unset.
pub type Flips = BTreeMap<(Modality, Arc<str>), [u64; 2]>;

/// Adds the flips of records.
pub(crate) fn count<'a>(
    flips: &mut Flips,
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

/// How many there are.
pub fn total(flips: &Flips) -> u64 {
    flips.values().flatten().sum()
}

/// A track whose flips stay as they are, and how many they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stays {
    /// Full name.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// To set, and to unset.
    pub flips: [u64; 2],
}

/// A track of which PLD flips other labels, and nothing else is another.
#[derive(Clone, Debug, PartialEq)]
pub struct Reflipped {
    /// Where the rows before lie.
    pub place: Place,
    /// The rows after.
    pub new: LabelTrack,
    /// Cells whose label is another.
    pub changes: Vec<Change>,
}

/// What a change of predictions or settings of PLD does to the labels there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moved {
    /// Videos of which only the graph tells: faults of predictions, or a person's label over a score.
    pub(crate) videos: BTreeSet<Arc<str>>,
    /// Tracks of the others with other flips.
    pub(crate) flipped: Vec<Reflipped>,
    /// Flips of the others that stay.
    pub(crate) stay: Vec<Stays>,
}

/// What PLD says of a track.
enum Says {
    /// What it has.
    Same,
    /// Other flips.
    Other(Track),
    /// The graph is to say.
    Unclear,
}

/// Which predictions count, before and after.
struct Both {
    names: BTreeMap<VideoId, Arc<str>>,
    before: BTreeMap<(VideoId, Modality), u64>,
    after: BTreeMap<(VideoId, Modality), PredictionTrack>,
    /// Which of their columns is of which class.
    columns: Vec<(ClassId, usize)>,
}

/// Which videos a change moves. `all`: also those whose labels it leaves as they are.
pub(crate) fn moved(snapshot: &Snapshot, resolved: &Resolved, all: bool) -> Result<Moved, LabelError> {
    let (was, is) = (&resolved.before, &resolved.after);
    let same = was.active == is.active && was.denoising == is.denoising && resolved.predictions.is_empty();
    if same && !resolved.asks_for_flips {
        return Ok(Moved::default());
    }
    let both = Both::read(snapshot, resolved)?;
    let fresh: BTreeSet<(VideoId, Modality)> = resolved
        .predictions
        .iter()
        .map(|track| (VideoId::of(&track.video), track.modality))
        .collect();
    let differs = |key: &(VideoId, Modality)| {
        let after = both.after.get(key).map(|track| track.epoch);
        let settings = was.denoising[at(key.1)] != is.denoising[at(key.1)];
        settings || fresh.contains(key) || both.before.get(key).copied() != after
    };
    let keys = || both.before.keys().chain(both.after.keys());
    let differing: BTreeSet<VideoId> = keys().filter(|key| differs(key)).map(|key| key.0).collect();
    if all {
        let named = |id: &VideoId| both.names.get(id).cloned();
        return Ok(Moved {
            videos: differing.iter().filter_map(named).collect(),
            ..Moved::default()
        });
    }
    let looked: BTreeSet<VideoId> = match resolved.asks_for_flips {
        true => keys().map(|key| key.0).collect(),
        false => differing.clone(),
    };
    let mut moved = Moved::default();
    for row in snapshot.read::<Rejects>()? {
        let video = row.video.as_deref().filter(|_| row.kind.is_of_predictions());
        moved.videos.extend(
            video
                .filter(|video| differing.contains(&VideoId::of(video)))
                .map(Arc::from),
        );
    }
    // Of most videos, all are found quicker.
    let there: u64 = snapshot.files(Videos::NAME)?.iter().map(|file| file.rows).sum();
    let filter = match looked.len() as u64 * 4 > there {
        true => Filter::all(),
        false => Filter::videos(looked.iter().filter_map(|id| both.names.get(id).cloned())),
    };
    let look = |tracks: Vec<Found<LabelTrack>>| {
        let mut own = Moved::default();
        for Found { row: track, place } in tracks {
            let id = VideoId::of(&track.video);
            if !looked.contains(&id) {
                continue;
            }
            let says = match differing.contains(&id) {
                true => both.says(is, id, &track),
                false => Says::Same,
            };
            match says {
                Says::Same => {}
                Says::Unclear => {
                    own.videos.insert(track.video);
                    continue;
                }
                Says::Other(expected) => {
                    own.flipped.push(reflipped(track, place, expected));
                    continue;
                }
            }
            let flips = flipped(&track.cells);
            if flips != [0, 0] {
                own.stay.push(Stays {
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

pub(crate) fn flipped(cells: &[LabelCell]) -> [u64; 2] {
    let mut flips = [0, 0];
    for cell in cells.iter().filter(|cell| cell.rule == LabelRule::Pld) {
        flips[usize::from(!cell.label)] += 1;
    }
    flips
}

impl Both {
    fn read(snapshot: &Snapshot, resolved: &Resolved) -> Result<Both, LabelError> {
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
        // The later of two of one epoch counts.
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
        Ok(Both {
            names,
            before,
            after,
            columns,
        })
    }

    /// What PLD says of a track, against what it has.
    fn says(&self, world: &World, id: VideoId, track: &LabelTrack) -> Says {
        let Some(class) = world.class_id(&track.class) else {
            return Says::Same;
        };
        let denoising = self.denoising(world, id, track.modality, class);
        let has_flips = track.cells.iter().any(|cell| cell.rule == LabelRule::Pld);
        if denoising.is_none() && !has_flips {
            return Says::Same;
        }
        let Some((scores, threshold)) = scored(track) else {
            return Says::Unclear;
        };
        let of_track = |own: &Denoising| own.prediction.segments() as usize == track.cells.len();
        if !denoising.as_ref().is_none_or(of_track) {
            return Says::Unclear;
        }
        let labels = plg(&scores, threshold);
        let (expected, rejection) = decide_track(track.modality, class, labels, denoising.as_ref());
        if rejection.is_some() {
            return Says::Unclear;
        }
        let differs = |(segment, cell): (usize, &LabelCell)| {
            let why = expected.flip(segment);
            (cell.rule == LabelRule::Pld) != why.is_some() || cell.why != why.as_ref().map(flip_reason)
        };
        match track.cells.iter().enumerate().any(differs) {
            true => Says::Other(expected),
            false => Says::Same,
        }
    }

    /// Of one class: a video has a few of them, and its predictions have all.
    fn denoising(&self, world: &World, id: VideoId, modality: Modality, class: ClassId) -> Option<Denoising> {
        let track = self.after.get(&(id, modality))?;
        let settings = world.denoising[at(modality)]?;
        let own = self.columns.binary_search_by_key(&class, |(of, _)| *of);
        let columns = own.map_or(&[][..], |at| &self.columns[at..=at]);
        Some(Denoising {
            prediction: Arc::new(prediction(track, columns, None)),
            settings,
        })
    }
}

/// Scores and threshold of a track, as its labels repeat them. `None` if a label lacks them: `labels` does not hold the
/// score below a user label.
fn scored(track: &LabelTrack) -> Option<(Vec<Score>, Score)> {
    let threshold = track.cells.first()?.threshold?;
    let score = |cell: &LabelCell| {
        let same = cell.threshold == Some(threshold);
        Score::new(cell.score.filter(|_| same)?)
    };
    let scores = track.cells.iter().map(score).collect::<Option<Vec<Score>>>()?;
    Some((scores, Score::new(threshold)?))
}

/// Why PLD flipped a label, as column `why` of the tables holds it.
pub(crate) fn flip_reason(flip: &Flip) -> Box<FlipReason> {
    Box::new(FlipReason {
        epoch: flip.epoch,
        loss: Some(flip.loss.get()),
        limit: Some(FlipLimit {
            base: flip.base.get(),
            alpha: flip.settings.alpha(),
            k: flip.settings.k(),
        }),
    })
}

/// A track with the labels and flips that are expected of it; scores and thresholds stay.
fn reflipped(track: LabelTrack, place: Place, expected: Track) -> Reflipped {
    let before = track.cells.iter().map(|cell| cell.label).collect();
    let before = Track::plg(expected.class, before);
    let mut new = track;
    for (segment, cell) in new.cells.iter_mut().enumerate() {
        let why = expected.flip(segment);
        cell.label = expected.label.get(segment);
        cell.rule = match why {
            Some(_) => LabelRule::Pld,
            None => LabelRule::Plg,
        };
        cell.why = why.as_ref().map(flip_reason);
    }
    let record = |track| LabelRecord { tracks: vec![track] };
    let (before, after) = (record(before), record(expected));
    let changes = cells(VideoId::of(&new.video), new.modality, Some(&before), Some(&after));
    Reflipped { place, new, changes }
}
