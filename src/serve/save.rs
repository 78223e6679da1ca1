//! A correction: labels that a person sets or withdraws.
//!
//! ```text
//! page ── version that the person saw, edits ──▶ check ─ same labels as now? ── yes ─▶ one store version, and its undo
//!                                                          (under the write lock)  no ─▶ both states, nothing is saved
//! ```
//!
//! The check compares only the labels that the edits touch. A person therefore never overwrites a label without having
//! seen it, and changes elsewhere in the store do not get in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::{LabelRule, LabelTrack};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{Labels, UserLabels};
use vaplan_schemas::{Modality, StoreVersion};

use super::history::ShownVersion;
use crate::error::LabelError;
use crate::world::changes::{ChangeRows, Changes, Origin, UserEditRow, UserSpan};

/// Largest number of edits of a save.
pub const MOST_EDITS: usize = 10_000;
/// Largest number of characters of an author.
const AUTHOR: usize = 100;
/// Largest number of characters of a note.
const NOTE: usize = 2_000;

/// Labels of consecutive segments to set or withdraw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelEdit {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class of the weak label of the video.
    pub class: Arc<str>,
    /// First segment.
    pub start: u32,
    /// First segment after the edit.
    pub end: u32,
    /// The label; null withdraws the user labels.
    pub label: Option<bool>,
}

/// A request to save edits as one store version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveRequest {
    /// The store version that the person saw.
    pub version: u64,
    /// The edits, applied in order.
    pub edits: Vec<LabelEdit>,
    /// Who makes the correction. `None` takes the author of the server.
    pub author: Option<Arc<str>>,
    /// What the person says about the correction.
    pub note: Option<Arc<str>>,
}

/// A correction that is saved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SavedVersion {
    /// The latest store version: that of the save, or the former one if the edits changed nothing.
    pub version: u64,
    /// Whether there is a new version.
    pub saved: bool,
    /// Labels that were set.
    pub set: u64,
    /// Labels that were unset.
    pub unset: u64,
    /// Edits that take the correction back.
    pub undo: Vec<LabelEdit>,
    /// Milliseconds from the arrival of the request to the durable commit.
    pub milliseconds: f64,
}

/// The reason why a correction was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// A value of the request is not allowed.
    #[error("{0}")]
    Request(String),
    /// The labels that the edits touch changed since the person saw them.
    #[error("the labels changed since version {}", .0.seen)]
    Conflict(Box<SaveConflict>),
    /// The store cannot be read or written.
    #[error(transparent)]
    Label(#[from] LabelError),
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

/// A track: video, modality, class.
type TrackKey = (Arc<str>, Modality, Arc<str>);
/// What the edits want of each segment of each track.
type Wanted = BTreeMap<TrackKey, BTreeMap<u32, Option<bool>>>;

impl SaveRequest {
    /// Checks the values that need no store.
    ///
    /// # Errors
    /// Returns [`SaveError::Request`] with the value found and the value expected.
    pub fn check(&self) -> Result<(), SaveError> {
        let bad = |reason: String| Err(SaveError::Request(reason));
        if self.edits.is_empty() || self.edits.len() > MOST_EDITS {
            let found = self.edits.len();
            return bad(format!("{found} edits, expected 1 to {MOST_EDITS}"));
        }
        for edit in &self.edits {
            if let Err(reason) = UserSpan::Segments(edit.start..edit.end).check() {
                return bad(format!("video `{}`: {reason}", edit.video));
            }
        }
        for (what, text, most) in [("author", &self.author, AUTHOR), ("note", &self.note, NOTE)] {
            let Some(text) = text else { continue };
            let (length, control) = (text.chars().count(), text.chars().any(char::is_control));
            if length > most || (control && what == "author") {
                return bad(format!(
                    "{what} has {length} characters, expected at most {most}, and no control characters in an author"
                ));
            }
        }
        Ok(())
    }

    /// The change of the store. `author` is used if the request names no author.
    pub(super) fn changes(&self, author: Option<&Arc<str>>) -> Changes {
        let given = |text: &Option<Arc<str>>| text.clone().filter(|text| !text.trim().is_empty());
        let author = given(&self.author).or_else(|| author.cloned());
        let source: Arc<str> = match &author {
            Some(author) => format!("serve: {author}").into(),
            None => "serve".into(),
        };
        let row = |edit: &LabelEdit| UserEditRow {
            video: edit.video.clone(),
            modality: edit.modality,
            class: edit.class.clone(),
            span: UserSpan::Segments(edit.start..edit.end),
            label: edit.label,
            origin: Origin {
                file: source.clone(),
                row: None,
            },
        };
        Changes {
            rows: ChangeRows {
                user: self.edits.iter().map(row).collect(),
                ..ChangeRows::default()
            },
            author,
            note: given(&self.note),
            ..Changes::default()
        }
    }

    /// The videos of the edits.
    pub(super) fn videos(&self) -> BTreeSet<Arc<str>> {
        self.edits.iter().map(|edit| edit.video.clone()).collect()
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for edit in &self.edits {
            let key = (edit.video.clone(), edit.modality, edit.class.clone());
            let track = wanted.entry(key).or_default();
            track.extend((edit.start..edit.end).map(|segment| (segment, edit.label)));
        }
        wanted
    }

    /// Checks the edits against the latest version, whose write lock the caller holds. Returns the edits that would take
    /// the correction back.
    ///
    /// # Errors
    /// Returns [`SaveError::Request`] if an edit names a label that does not exist, and [`SaveError::Conflict`] if a
    /// label that an edit touches changed since the version that the person saw.
    pub(super) fn check_against(&self, latest: &Snapshot) -> Result<Vec<LabelEdit>, SaveError> {
        let wanted = self.wanted();
        let videos: BTreeSet<&Arc<str>> = wanted.keys().map(|(video, ..)| video).collect();
        let now = tracks(latest, &videos)?;
        for (key, cells) in &wanted {
            exists(key, cells, now.get(key))?;
        }
        if self.version != latest.version().version {
            self.compare(latest, &wanted, &videos, &now)?;
        }
        undo(latest, &wanted, &videos)
    }

    fn compare(
        &self,
        latest: &Snapshot,
        wanted: &Wanted,
        videos: &BTreeSet<&Arc<str>>,
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
            let now = &now[key];
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
    videos: &BTreeSet<&Arc<str>>,
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
    (video, modality, class): &TrackKey,
    cells: &BTreeMap<u32, Option<bool>>,
    track: Option<&LabelTrack>,
) -> Result<(), SaveError> {
    let Some(track) = track else {
        return Err(SaveError::Request(format!(
            "video `{video}` has no {modality} labels of class `{class}`, expected a video of the store and a class of its \
             weak label"
        )));
    };
    match cells.keys().next_back() {
        Some(last) if *last as usize >= track.segments() => Err(SaveError::Request(format!(
            "video `{video}`: segment is {last}, expected less than {}, the number of segments",
            track.segments()
        ))),
        _ => Ok(()),
    }
}

/// The edits that give the touched segments the user labels that they have in this version.
fn undo(
    latest: &Snapshot,
    wanted: &Wanted,
    videos: &BTreeSet<&Arc<str>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(start: u32, end: u32) -> LabelEdit {
        LabelEdit {
            video: "clip".into(),
            modality: Modality::Audio,
            class: "Dog".into(),
            start,
            end,
            label: Some(true),
        }
    }

    fn request(edits: Vec<LabelEdit>) -> SaveRequest {
        SaveRequest {
            version: 1,
            edits,
            author: None,
            note: None,
        }
    }

    #[test]
    fn values_that_need_no_store_are_checked() {
        let refused = |request: SaveRequest| request.check().unwrap_err().to_string();
        assert_eq!(refused(request(Vec::new())), "0 edits, expected 1 to 10000");
        assert_eq!(
            refused(request(vec![edit(3, 3)])),
            "video `clip`: onset is 3, expected less than offset 3"
        );
        let mut long = request(vec![edit(0, 1)]);
        long.author = Some("x\ny".into());
        assert!(refused(long.clone()).contains("no control characters"));
        long.author = Some("y".repeat(101).into());
        assert!(refused(long).contains("101 characters, expected at most 100"));
    }

    #[test]
    fn later_edits_of_a_request_win() {
        let mut second = edit(1, 3);
        second.label = None;
        let wanted = request(vec![edit(0, 2), second]).wanted();
        let cells: Vec<_> = wanted.values().flatten().collect();
        assert_eq!(cells, [(&0, &Some(true)), (&1, &None), (&2, &None)]);
    }

    #[test]
    fn an_author_without_letters_is_no_author() {
        let mut request = request(vec![edit(0, 1)]);
        request.author = Some("  ".into());
        let changes = request.changes(Some(&"Ana".into()));
        assert_eq!(changes.author.as_deref(), Some("Ana"));
        assert_eq!(&*changes.rows.user[0].origin.file, "serve: Ana");
    }
}
