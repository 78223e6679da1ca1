//! Refuses a commit that would unset the labels of most videos, because their features are gone or cannot be used.
//!
//! Single videos without usable features are rejected rows. If most videos of a modality lose their features at once, a
//! wrong folder or the features of another model are the likely cause, and a committed version would replace good labels
//! by none.

use std::collections::BTreeSet;

use vaplan_dataflows::VideoId;
use vaplan_dataflows::outcome::Outcome;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, Severity};

use super::part::TouchedRows;
use crate::error::LabelError;
use crate::world::Both;
use crate::world::changes::Changes;
use crate::world::videos::sources_of;

/// The videos that have labels before a change.
pub(crate) struct LabelledVideos {
    /// Number of these videos in the whole store, for each modality.
    pub(crate) count: Both<usize>,
    /// Those among them that the change can touch and that exist after it.
    pub(crate) touched: Both<BTreeSet<VideoId>>,
}

/// Checks that at most half of the videos that had labels lose all labels of a modality.
///
/// # Errors
/// Returns [`LabelError::Lost`] with the first rejected row of the modality.
pub(crate) fn check(
    before: &LabelledVideos,
    outcome: &Outcome,
    rejects: &[RejectRow],
) -> Result<(), LabelError> {
    for modality in Modality::ALL {
        let touched = before.touched[modality.index()].iter();
        let lost = touched.filter(|video| outcome.video(**video).labels[modality.index()].is_none());
        let (lost, had) = (lost.count(), before.count[modality.index()]);
        if lost * 2 > had {
            let rejected =
                |row: &&RejectRow| row.severity == Severity::Reject && row.modality == Some(modality);
            // The rows of files tell why the features cannot be used; the rows of the graph only tell that none are left.
            let of_file = |row: &&RejectRow| rejected(row) && !row.kind.is_of_graph();
            let first = rejects
                .iter()
                .find(of_file)
                .or_else(|| rejects.iter().find(rejected));
            return Err(LabelError::Lost {
                modality,
                lost,
                had,
                first: first.map(|row| format!("`{}`: {}", row.file, row.reason)),
            });
        }
    }
    Ok(())
}

/// Like [`check`], for the part of a store that a change touches. A modality whose inputs the change removes by name is
/// not checked.
///
/// # Errors
/// Returns the errors of [`check`].
pub(super) fn check_part(part: &TouchedRows, outcome: &Outcome, changes: &Changes) -> Result<(), LabelError> {
    if changes.allow_missing {
        return Ok(());
    }
    let mut before = LabelledVideos {
        count: [0; 2],
        touched: Default::default(),
    };
    for row in part.resolved.known.rows() {
        for (modality, source) in sources_of(row) {
            before.count[modality.index()] += usize::from(source.is_some());
        }
    }
    for track in part.old.labels.iter().map(|found| &found.row) {
        let (video, at) = (VideoId::of(&track.video), track.modality.index());
        if part.videos.contains_key(&video) && changes.removed[at].is_empty() {
            before.touched[at].insert(video);
        }
    }
    // The store's videos are all known if features were read. Otherwise no features can be lost.
    for (count, touched) in before.count.iter_mut().zip(&before.touched) {
        *count = (*count).max(touched.len());
    }
    check(&before, outcome, &part.reread.rejects)
}
