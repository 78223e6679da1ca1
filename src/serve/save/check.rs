//! Checks a correction against the latest version, and finds what would take the correction back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::rows::{LabelRule, LabelTrack};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{Labels, UserLabels};
use vaplan_schemas::{Modality, StoreVersion};

use super::weak::{WeakCheck, undo_of_weak};
use super::{LabelEdit, SaveError, SaveRequest, Wanted, WeakLabelEdit};
use crate::audit::population::TrackKey;
use crate::error::LabelError;
use crate::serve::history::ShownVersion;

/// What takes a correction back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UndoEdits {
    /// Labels.
    pub edits: Vec<LabelEdit>,
    /// Changes of weak labels.
    pub weak: Vec<WeakLabelEdit>,
}

/// Labels that changed since the person saw them. Nothing was saved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SaveConflict {
    /// The version that the person saw.
    pub seen: u64,
    /// The version that the labels are of now.
    pub version: u64,
    /// The tracks with labels that changed.
    pub tracks: Vec<ConflictTrack>,
    /// The versions since, the latest first.
    pub versions: Vec<ShownVersion>,
}

/// A track with labels that changed: what the person saw, what is there now, and what the person wants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConflictTrack {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The segments with labels that changed.
    pub segments: Vec<u32>,
    /// Labels that the person saw; `None` if the version is no longer in the store.
    pub seen: Option<Vec<ConflictLabel>>,
    /// Labels now.
    pub now: Vec<ConflictLabel>,
    /// Labels that the person wants; null withdraws.
    pub wanted: Vec<Option<bool>>,
}

/// A label, and the rule that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ConflictLabel {
    /// Label.
    pub label: bool,
    /// Rule.
    pub rule: LabelRule,
}

impl SaveRequest {
    /// Checks the edits against the latest version, whose write lock the caller holds. Returns the edits that would take
    /// the correction back.
    ///
    /// # Errors
    /// Returns [`SaveError::Request`] if an edit names a label that does not exist, and [`SaveError::Conflict`] if a
    /// label that an edit touches changed since the version that the person saw.
    pub(in crate::serve) fn check_against(&self, latest: &Snapshot) -> Result<UndoEdits, SaveError> {
        let wanted = self.wanted();
        let videos = self.videos();
        let now = tracks(latest, &videos)?;
        let weak = WeakCheck::new(self, latest)?;
        if self.again && weak.undo.is_empty() && self.is_done(&wanted, &now) {
            return self.undo_since(latest, &wanted, &videos);
        }
        for (key, cells) in &wanted {
            match weak.segments_of_added(key) {
                Some(segments) => within(key, cells, segments?)?,
                None => exists(key, cells, now.get(key))?,
            }
        }
        if self.version != latest.version().version {
            let mut touched = wanted.clone();
            // Without the class, every label of the class goes. The person must have seen all of them.
            for (key, track) in &now {
                if weak.removes(key) {
                    let cells = touched.entry(key.clone()).or_default();
                    for segment in 0..track.segments() as u32 {
                        cells.entry(segment).or_insert(None);
                    }
                }
            }
            self.compare(latest, &touched, &videos, &now)?;
        }
        Ok(UndoEdits {
            edits: undo(latest, &wanted, &videos)?,
            weak: weak.undo,
        })
    }

    /// Whether the labels are already as the edits want them.
    fn is_done(&self, wanted: &Wanted, now: &BTreeMap<TrackKey, LabelTrack>) -> bool {
        let goes = |(video, _, class): &TrackKey| {
            let mut weak = self.weak.iter();
            weak.any(|own| !own.present && (&own.video, &own.class) == (video, class))
        };
        wanted.iter().all(|(key, cells)| match now.get(key) {
            // The request took the class out of the weak label, and its labels with it.
            None => goes(key),
            Some(track) => cells.iter().all(|(segment, label)| {
                let segment = *segment as usize;
                segment < track.segments()
                    && match label {
                        Some(label) => {
                            track.rules[segment] == LabelRule::User && track.labels[segment] == *label
                        }
                        None => track.rules[segment] != LabelRule::User,
                    }
            }),
        })
    }

    /// What takes back a request that was committed before: the state of the version that the person saw. If that version is
    /// no longer in the store, nothing takes the request back.
    fn undo_since(
        &self,
        latest: &Snapshot,
        wanted: &Wanted,
        videos: &BTreeSet<Arc<str>>,
    ) -> Result<UndoEdits, SaveError> {
        let Ok(seen) = latest.store().at_version(Some(StoreVersion(self.version))) else {
            return Ok(UndoEdits::default());
        };
        Ok(UndoEdits {
            edits: undo(&seen, wanted, videos)?,
            weak: undo_of_weak(self, &seen)?,
        })
    }

    fn compare(
        &self,
        latest: &Snapshot,
        wanted: &Wanted,
        videos: &BTreeSet<Arc<str>>,
        now: &BTreeMap<TrackKey, LabelTrack>,
    ) -> Result<(), SaveError> {
        let store = latest.store();
        // A version that was vacuumed cannot be compared, so every touched label counts as changed.
        let seen = match store.at_version(Some(StoreVersion(self.version))) {
            Ok(seen) => Some(tracks(&seen, videos)?),
            Err(_) => None,
        };
        let mut conflicts = Vec::new();
        for (key, cells) in wanted {
            // A class that the same request adds has no labels yet, so that there is nothing to overwrite.
            let Some(now) = now.get(key) else { continue };
            let before = seen.as_ref().map(|seen| seen.get(key));
            let same = |segment: &u32| {
                let Some(Some(before)) = before else { return false };
                let segment = *segment as usize;
                segment < before.segments() && alike(shown(before, segment), shown(now, segment))
            };
            let segments: Vec<u32> = cells.keys().copied().filter(|segment| !same(segment)).collect();
            if segments.is_empty() {
                continue;
            }
            let of = |track: &LabelTrack| -> Vec<ConflictLabel> {
                let known = segments
                    .iter()
                    .filter(|segment| (**segment as usize) < track.segments());
                known.map(|segment| shown(track, *segment as usize)).collect()
            };
            conflicts.push(ConflictTrack {
                video: key.0.clone(),
                modality: key.1,
                class: key.2.clone(),
                seen: before.flatten().map(of),
                now: of(now),
                wanted: segments.iter().map(|segment| cells[segment]).collect(),
                segments,
            });
        }
        if conflicts.is_empty() {
            return Ok(());
        }
        let versions = store.versions().map_err(LabelError::from)?;
        let since = versions.iter().rev().take_while(|row| row.version > self.version);
        Err(SaveError::Conflict(Box::new(SaveConflict {
            seen: self.version,
            version: latest.version().version,
            tracks: conflicts,
            versions: since.take(20).map(ShownVersion::from).collect(),
        })))
    }
}

/// Two labels are alike if a person sees the same and the same edit has the same effect on them: a flip of PLD that gives
/// the label that PLG gave before is no change.
fn alike(a: ConflictLabel, b: ConflictLabel) -> bool {
    let user = |label: ConflictLabel| label.rule == LabelRule::User;
    a.label == b.label && user(a) == user(b)
}

fn shown(track: &LabelTrack, segment: usize) -> ConflictLabel {
    ConflictLabel {
        label: track.labels[segment],
        rule: track.rules[segment],
    }
}

fn tracks(
    snapshot: &Snapshot,
    videos: &BTreeSet<Arc<str>>,
) -> Result<BTreeMap<TrackKey, LabelTrack>, LabelError> {
    let mut found = BTreeMap::new();
    for video in videos {
        for track in snapshot.read_video::<Labels>(video)? {
            found.insert((track.video.clone(), track.modality, track.class.clone()), track);
        }
    }
    Ok(found)
}

fn exists(
    key: &TrackKey,
    cells: &BTreeMap<u32, Option<bool>>,
    track: Option<&LabelTrack>,
) -> Result<(), SaveError> {
    let Some(track) = track else {
        let (video, modality, class) = key;
        return Err(SaveError::Request(format!(
            "video `{video}` has no {modality} labels of class `{class}`, expected a video of the store and a class of its \
             weak label"
        )));
    };
    within(key, cells, track.segments() as u32)
}

fn within(key: &TrackKey, cells: &BTreeMap<u32, Option<bool>>, segments: u32) -> Result<(), SaveError> {
    match cells.keys().next_back() {
        Some(last) if *last >= segments => Err(SaveError::Request(format!(
            "video `{}`: segment is {last}, expected less than {segments}, the number of segments",
            key.0
        ))),
        _ => Ok(()),
    }
}

/// The edits that give the touched segments the user labels that they have in this version.
fn undo(
    latest: &Snapshot,
    wanted: &Wanted,
    videos: &BTreeSet<Arc<str>>,
) -> Result<Vec<LabelEdit>, SaveError> {
    let mut former: BTreeMap<TrackKey, BTreeMap<u32, bool>> = BTreeMap::new();
    for video in videos {
        for row in latest.read_video::<UserLabels>(video).map_err(LabelError::from)? {
            let key = (row.video, row.modality, row.class);
            former.entry(key).or_default().insert(row.segment, row.label);
        }
    }
    let mut undo: Vec<LabelEdit> = Vec::new();
    for (key, cells) in wanted {
        let own = former.get(key);
        for (segment, label) in cells {
            let before = own.and_then(|own| own.get(segment).copied());
            if before == *label {
                continue;
            }
            match undo.last_mut() {
                Some(last)
                    if last.end == *segment
                        && last.label == before
                        && (&last.video, last.modality, &last.class) == (&key.0, key.1, &key.2) =>
                {
                    last.end += 1;
                }
                _ => undo.push(LabelEdit {
                    video: key.0.clone(),
                    modality: key.1,
                    class: key.2.clone(),
                    start: *segment,
                    end: segment + 1,
                    label: before,
                }),
            }
        }
    }
    Ok(undo)
}
