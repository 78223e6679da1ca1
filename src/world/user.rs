//! User labels of a change: the video and the segments that each row means.

use std::ops::Range;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectKind;
use vaplan_schemas::store::Snapshot;

use super::changes::UserEditRow;
use super::resolve::Resolved;
use crate::error::LabelError;
use crate::ingest::annotations::{KeyError, Roster, key11, unknown_class};

/// A user label to set or to withdraw, of a video and a class that the store has after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserEdit {
    /// Full name of the video.
    pub(crate) video: Arc<str>,
    pub(crate) modality: Modality,
    pub(crate) class: Arc<str>,
    pub(crate) segments: Range<u32>,
    /// `None` withdraws the user labels.
    pub(crate) label: Option<bool>,
    /// The file or other source of the row.
    pub(crate) source: Arc<str>,
}

impl Resolved {
    /// Resolves the rows in order, and rejects those of unknown videos and classes.
    pub(super) fn resolve_user(
        &mut self,
        snapshot: &Snapshot,
        rows: &[&UserEditRow],
    ) -> Result<(), LabelError> {
        self.known
            .want(snapshot, rows.iter().map(|row| row.video.clone()))?;
        // A short name can be the first 11 characters of one. Only the names of all videos tell of which.
        let short =
            |row: &&UserEditRow| self.weak_of(&row.video).is_none() && key11(&row.video) == &*row.video;
        let mut roster = None;
        if rows.iter().any(short) {
            self.known.want_all(snapshot)?;
            roster = Some(self.known.roster_after(&self.weak));
        }
        for row in rows {
            match self.resolve_row(row, roster.as_ref()) {
                Ok(edit) => self.user.push(edit),
                Err((kind, reason)) => {
                    let reject = row.origin.reject(kind, Some(&row.video), reason);
                    self.rejects.push(reject);
                }
            }
        }
        Ok(())
    }

    fn resolve_row(
        &self,
        row: &UserEditRow,
        roster: Option<&Roster>,
    ) -> Result<UserEdit, (RejectKind, String)> {
        if self.after.class_id(&row.class).is_none() {
            let reason = unknown_class(&row.class, &self.after.classes);
            return Err((RejectKind::UnknownClass, reason));
        }
        let video = match (self.weak_of(&row.video), roster) {
            (Some(_), _) => row.video.clone(),
            (None, Some(roster)) => full_name(roster, &row.video)?,
            (None, None) => return Err(unknown_video()),
        };
        let all = self.known.get(&video).map_or(0, |known| known.segments);
        let segments = row.span.segments(self.after.segment_seconds, all);
        Ok(UserEdit {
            video,
            modality: row.modality,
            class: row.class.clone(),
            segments: segments.map_err(|reason| (RejectKind::FieldValue, reason))?,
            label: row.label,
            source: row.origin.file.clone(),
        })
    }
}

fn full_name(roster: &Roster, key: &str) -> Result<Arc<str>, (RejectKind, String)> {
    match roster.resolve(key) {
        Ok(position) => Ok(roster.name(position).clone()),
        Err(KeyError::Unknown) => Err(unknown_video()),
        Err(ambiguous) => Err((RejectKind::AmbiguousKey, ambiguous.to_string())),
    }
}

fn unknown_video() -> (RejectKind, String) {
    let reason = "video is not in the store, expected one that is".to_owned();
    (RejectKind::UnknownVideo, reason)
}
