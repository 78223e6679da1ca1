//! User labels that override labels of stored tracks.
//!
//! A user label outranks every other label of its segment and changes no other label. The row of its track in table `labels` is
//! therefore all that decides the new row: neither scores nor predictions are read. The label graph decides all other user labels:
//! withdrawn ones, which uncover a score, and those of segments or classes that the table does not have.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::changes::Change;
use vaplan_dataflows::{SetBy, VideoId};
use vaplan_schemas::rows::{LabelRule, LabelTrack};
use vaplan_schemas::store::{Filter, Found, Snapshot};
use vaplan_schemas::tables::{Labels, UserLabels};

use super::changes::UserEditRow;
use super::resolve::Resolved;
use super::scope::RelabelledTrack;
use super::user::UserEdit;
use crate::error::LabelError;

/// The user labels of a change that override labels of stored tracks, and these tracks after the change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) edits: Vec<UserEdit>,
    pub(crate) tracks: Vec<RelabelledTrack>,
}

impl Resolved {
    /// Finds the videos whose user labels all override labels of stored tracks, and overrides them. Returns the rows of the
    /// other videos, in order. The change must have nothing but user labels.
    pub(super) fn override_labels<'a>(
        &mut self,
        snapshot: &Snapshot,
        rows: &[&'a UserEditRow],
    ) -> Result<Vec<&'a UserEditRow>, LabelError> {
        let mut by_video: BTreeMap<&Arc<str>, Vec<&UserEditRow>> = BTreeMap::new();
        for row in rows {
            by_video.entry(&row.video).or_default().push(row);
        }
        let filter = Filter::videos(by_video.keys().map(|video| (*video).clone()));
        // The commit reads the user labels of these videos. In an object store both tables are read in one round of requests.
        let mut stored = std::thread::scope(|scope| {
            let ahead = snapshot
                .store()
                .is_remote()
                .then(|| scope.spawn(|| snapshot.fetch::<UserLabels>(&filter)));
            let stored = snapshot.scan::<Labels>(&filter);
            if let Some(ahead) = ahead {
                ahead
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            stored
        })?;
        let mut done = Overrides::default();
        for tracks in stored.chunk_by_mut(|a, b| a.row.video == b.row.video) {
            let video = tracks[0].row.video.clone();
            if let Some(edits) = self.overriding(tracks, &by_video[&video]) {
                by_video.remove(&video);
                done.tracks.extend(self.overridden(tracks, &edits));
                done.edits.extend(edits);
            }
        }
        self.overrides = done;
        let left = |row: &&&'a UserEditRow| by_video.contains_key(&row.video);
        Ok(rows.iter().filter(left).copied().collect())
    }

    /// The edits of these rows, if each sets labels that the table has. `tracks` are all tracks of the video.
    fn overriding(&self, tracks: &[Found<LabelTrack>], rows: &[&UserEditRow]) -> Option<Vec<UserEdit>> {
        // Both modalities have the classes of the weak label, so the longest track is as long as the video.
        let all = tracks.iter().map(|found| found.row.segments()).max()?;
        let edit = |row: &&UserEditRow| {
            let of_row = |found: &&Found<LabelTrack>| {
                (found.row.modality, &found.row.class) == (row.modality, &row.class)
            };
            let track = &tracks.iter().find(of_row)?.row;
            let segments = row.span.segments(self.after.segment_seconds, all as u32).ok()?;
            let overrides = row.label.is_some()
                && segments.end as usize <= track.segments()
                && self.after.class_id(&row.class).is_some();
            overrides.then(|| UserEdit {
                video: row.video.clone(),
                modality: row.modality,
                class: row.class.clone(),
                segments,
                label: row.label,
                source: row.origin.file.clone(),
            })
        };
        rows.iter().map(edit).collect()
    }

    /// The tracks that the edits change, after them.
    fn overridden(&self, tracks: &[Found<LabelTrack>], edits: &[UserEdit]) -> Vec<RelabelledTrack> {
        let mut changed = Vec::new();
        for found in tracks {
            let before = &found.row;
            let mut new = before.clone();
            for edit in edits {
                let label = edit
                    .label
                    .filter(|_| (edit.modality, &edit.class) == (new.modality, &new.class));
                for segment in edit.segments.clone().filter(|_| label.is_some()) {
                    new.set(segment as usize, label == Some(true), LabelRule::User, None);
                }
            }
            if new == *before {
                continue;
            }
            let class = self
                .after
                .class_id(&new.class)
                .expect("the edit names a class of the store");
            let (video, modality) = (VideoId::of(&new.video), new.modality);
            let labels = before.labels.iter().zip(&new.labels);
            let differing = (0..).zip(labels).filter(|(_, (before, after))| before != after);
            let change = |(segment, (_, to)): (u32, (&bool, &bool))| Change {
                video,
                modality,
                class,
                segment,
                to: *to,
                rule: SetBy::User,
                flip: None,
            };
            changed.push(RelabelledTrack {
                place: found.place,
                changes: differing.map(change).collect(),
                new,
            });
        }
        changed
    }
}
