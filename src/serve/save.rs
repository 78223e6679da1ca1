//! A correction: labels that a person sets or withdraws, and classes that a person adds to a weak label.
//!
//! ```text
//! page ── version that the person saw, edits ──▶ check ─ same labels as now? ── yes ─▶ one store version, and its undo
//!                                                          (under the write lock)  no ─▶ both states, nothing is saved
//! ```
//!
//! The check compares only the labels that the edits touch. A person therefore never overwrites a label without having
//! seen it, and changes elsewhere in the store do not get in the way.
//!
//! A label exists only for classes of the weak label (docs/method.md, PLG). To label another class, a save also adds the class
//! to the weak label of the video. Both are one store version, and one undo takes both back.

mod check;
mod weak;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::Modality;

pub use self::check::{ConflictLabel, ConflictTrack, SaveConflict, UndoEdits};
pub use self::weak::WeakLabelEdit;
use crate::audit::population::TrackKey;
use crate::error::LabelError;
use crate::world::changes::{ChangeRows, Changes, Origin, UserEditRow, UserSpan, WeakEdit, WeakEditRow};

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
    /// Class of the weak label of the video, after the changes of the weak label in the same request.
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
    #[serde(default)]
    pub edits: Vec<LabelEdit>,
    /// Changes of weak labels, applied before the edits.
    #[serde(default)]
    pub weak: Vec<WeakLabelEdit>,
    /// Who makes the correction. `None` takes the author of the server.
    pub author: Option<Arc<str>>,
    /// What the person says about the correction.
    pub note: Option<Arc<str>>,
    /// Whether the page sent the same request before and got no answer, for example because the server was killed. If the
    /// store has all that the request asks for, the first request was committed, and the answer is that of a success.
    #[serde(default)]
    pub again: bool,
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
    /// Changes of weak labels that take the correction back.
    pub undo_weak: Vec<WeakLabelEdit>,
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

/// What the edits want of each segment of each track.
type Wanted = BTreeMap<TrackKey, BTreeMap<u32, Option<bool>>>;

impl SaveRequest {
    /// Checks the values that need no store.
    ///
    /// # Errors
    /// Returns [`SaveError::Request`] with the value found and the value expected.
    pub fn check(&self) -> Result<(), SaveError> {
        let bad = |reason: String| Err(SaveError::Request(reason));
        let found = self.edits.len() + self.weak.len();
        if !(1..=MOST_EDITS).contains(&found) {
            return bad(format!("{found} edits, expected 1 to {MOST_EDITS}"));
        }
        let weak: BTreeSet<_> = self.weak.iter().map(|own| (&own.video, &own.class)).collect();
        if weak.len() < self.weak.len() {
            return bad("a class of a weak label is changed twice, expected once".to_owned());
        }
        for edit in &self.edits {
            if let Err(reason) = UserSpan::Segments(edit.start..edit.end).check() {
                return bad(format!("video `{}`: {reason}", edit.video));
            }
        }
        check_author(self.author.as_ref()).map_err(SaveError::Request)?;
        // A note may have several lines.
        let note = self.note.as_deref().map(|note| note.replace(['\n', '\r'], " "));
        check_text("note", note.as_deref(), NOTE).map_err(SaveError::Request)
    }

    /// The change of the store. `author` is used if the request names no author.
    pub(super) fn changes(&self, author: Option<&Arc<str>>) -> Changes {
        let given = |text: &Option<Arc<str>>| text.clone().filter(|text| !text.trim().is_empty());
        let author = given(&self.author).or_else(|| author.cloned());
        let source = source_of(author.as_ref());
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
                weak: self.weak_rows(&source),
                ..ChangeRows::default()
            },
            author,
            note: given(&self.note),
            ..Changes::default()
        }
    }

    /// The changes of weak labels: one row per video that gets classes, then one per video that loses classes.
    fn weak_rows(&self, source: &Arc<str>) -> Vec<WeakEditRow> {
        let mut classes: BTreeMap<(bool, &Arc<str>), Vec<Arc<str>>> = BTreeMap::new();
        for own in &self.weak {
            let of_video = classes.entry((!own.present, &own.video)).or_default();
            of_video.push(own.class.clone());
        }
        let row = |((removes, video), classes): ((bool, &Arc<str>), Vec<Arc<str>>)| WeakEditRow {
            edit: if removes { WeakEdit::Remove } else { WeakEdit::Add },
            video: video.clone(),
            classes,
            split: None,
            origin: Origin {
                file: source.clone(),
                row: None,
            },
        };
        classes.into_iter().map(row).collect()
    }

    /// The videos of the edits.
    pub(super) fn videos(&self) -> BTreeSet<Arc<str>> {
        let weak = self.weak.iter().map(|own| &own.video);
        let edits = self.edits.iter().map(|edit| &edit.video);
        edits.chain(weak).cloned().collect()
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
}

/// Refuses an author that tables, page and terminal cannot show well.
///
/// # Errors
/// Returns a message with what was found and what was expected.
pub(super) fn check_author(author: Option<&Arc<str>>) -> Result<(), String> {
    check_text("author", author.map(|author| &**author), AUTHOR)
}

/// Refuses a text that is too long, or that has a control character: a terminal would obey an escape sequence.
fn check_text(name: &str, text: Option<&str>, most: usize) -> Result<(), String> {
    let text = text.unwrap_or_default();
    let length = text.chars().count();
    if length > most {
        return Err(format!("{name} has {length} characters, expected at most {most}"));
    }
    match text.chars().find(|letter| letter.is_control()) {
        Some(letter) => Err(format!(
            "{name} has the control character U+{:04X}, expected no control characters",
            u32::from(letter)
        )),
        None => Ok(()),
    }
}

/// Column `source` of rows that an author saves on the page.
pub(super) fn source_of(author: Option<&Arc<str>>) -> Arc<str> {
    author.map_or_else(|| "serve".into(), |author| format!("serve: {author}").into())
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
            weak: Vec::new(),
            author: None,
            note: None,
            again: false,
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
        let mut noted = request(vec![edit(0, 1)]);
        noted.note = Some("two\r\nlines".into());
        noted.check().unwrap();
        noted.note = Some("red: \u{1b}[31m".into());
        assert_eq!(
            refused(noted),
            "note has the control character U+001B, expected no control characters"
        );
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
