//! Changes of weak labels in a correction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::VideoRow;
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{Classes, Videos};

use super::{SaveError, SaveRequest};
use crate::audit::population::TrackKey;
use crate::error::LabelError;
use crate::ingest::annotations::unknown_class;
use crate::world::videos::sources_of;

/// A class to add to the weak label of a video, or to take out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeakLabelEdit {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Class of the store.
    pub class: Arc<str>,
    /// True adds the class, false takes the class out. User labels of a class that is taken out wait until the class is added
    /// again.
    pub present: bool,
}

/// The changes of weak labels of a request, checked against the latest version.
#[derive(Debug, Default)]
pub(super) struct WeakCheck {
    /// Classes that the weak label of a video does not have yet.
    added: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Classes that the weak label of a video has and that the request takes out.
    removed: BTreeSet<(Arc<str>, Arc<str>)>,
    videos: BTreeMap<Arc<str>, VideoRow>,
    /// The changes that take these back.
    pub(super) undo: Vec<WeakLabelEdit>,
}

impl WeakCheck {
    /// Checks that the store has the videos and classes, and that the features of a video can be read: a class that is added
    /// needs scores.
    pub(super) fn new(request: &SaveRequest, latest: &Snapshot) -> Result<WeakCheck, SaveError> {
        let mut check = WeakCheck::default();
        if request.weak.is_empty() {
            return Ok(check);
        }
        let rows = latest.read::<Classes>().map_err(LabelError::from)?;
        let classes: BTreeSet<Arc<str>> = rows.into_iter().map(|row| row.class).collect();
        let classes: Vec<Arc<str>> = classes.into_iter().collect();
        for own in &request.weak {
            let (video, class) = (&own.video, &own.class);
            if !classes.contains(class) {
                let reason = unknown_class(class, &classes);
                return Err(SaveError::Request(format!("video `{video}`: {reason}")));
            }
            if !check.videos.contains_key(video) {
                let found = latest
                    .read_video::<Videos>(video)
                    .map_err(LabelError::from)?
                    .pop();
                let found = found.ok_or_else(|| {
                    SaveError::Request(format!(
                        "video `{video}` is not in the store, expected the full name of one that is"
                    ))
                })?;
                check.videos.insert(video.clone(), found);
            }
            let row = &check.videos[video];
            if row.weak_labels.contains(class) == own.present {
                continue;
            }
            let key = (video.clone(), class.clone());
            if own.present {
                readable(row)?;
                check.added.insert(key);
            } else {
                check.removed.insert(key);
            }
            check.undo.push(WeakLabelEdit {
                present: !own.present,
                ..own.clone()
            });
        }
        Ok(check)
    }

    /// The number of segments that the labels of a track will have, if the request adds the class of the track. `None` if the
    /// request does not add the class.
    pub(super) fn segments_of_added(
        &self,
        (video, modality, class): &TrackKey,
    ) -> Option<Result<u32, SaveError>> {
        if !self.added.contains(&(video.clone(), class.clone())) {
            return None;
        }
        let row = &self.videos[video];
        let has_features = sources_of(row)
            .into_iter()
            .any(|(of, source)| of == *modality && source.is_some());
        Some(match has_features {
            true => Ok(row.segments),
            false => Err(SaveError::Request(format!(
                "video `{video}` has no {modality} features, so its {modality} segments have no labels: label the other \
                 modality"
            ))),
        })
    }

    /// Whether the request takes the class of a track out of the weak label.
    pub(super) fn removes(&self, (video, _, class): &TrackKey) -> bool {
        self.removed.contains(&(video.clone(), class.clone()))
    }
}

/// The changes that give the videos of a request the weak labels that they have in a version.
pub(super) fn undo_of_weak(
    request: &SaveRequest,
    snapshot: &Snapshot,
) -> Result<Vec<WeakLabelEdit>, LabelError> {
    let mut undo = Vec::new();
    for own in &request.weak {
        let row = snapshot.read_video::<Videos>(&own.video)?.pop();
        if row.is_some_and(|row| row.weak_labels.contains(&own.class) != own.present) {
            undo.push(WeakLabelEdit {
                present: !own.present,
                ..own.clone()
            });
        }
    }
    Ok(undo)
}

/// Checks that the feature files of a video exist.
fn readable(row: &VideoRow) -> Result<(), SaveError> {
    for (modality, source) in sources_of(row) {
        let Some(source) = source.filter(|source| !source.contains("://")) else {
            continue;
        };
        if let Err(error) = std::fs::metadata(&**source) {
            return Err(SaveError::Request(format!(
                "video `{}`: the class needs scores of the {modality} features `{source}`, which cannot be read: {error}; \
                 bring the file back, or name the folder that the features were moved to by `vaplan relabel --rebase`",
                row.video
            )));
        }
    }
    Ok(())
}
