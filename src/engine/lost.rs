//! Refuses a commit that would unset the labels of most videos, because their features are gone or cannot be used.
//!
//! Single videos without usable features are rejected rows. If most videos of a modality lose their features at once, a
//! wrong folder or the features of another model are the likely cause, and a committed version would replace good labels
//! by none.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::VideoId;
use vaplan_dataflows::outcome::Outcome;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, Severity};

use super::part::TouchedRows;
use crate::error::LabelError;
use crate::world::changes::Changes;
use crate::world::rejects::input_noun;
use crate::world::videos::sources_of;
use crate::world::{Both, World};

/// How many videos have labels of a modality before a change, and how many of them lose these labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LostLabels {
    had: Both<usize>,
    lost: Both<usize>,
}

impl LostLabels {
    /// Adds videos that have labels before the change and exist after it, each with its modality.
    pub(crate) fn add(&mut self, before: &[(VideoId, Modality)], outcome: &Outcome) {
        for (video, modality) in before {
            let at = modality.index();
            self.had[at] += 1;
            self.lost[at] += usize::from(outcome.video(*video).labels[at].is_none());
        }
    }

    /// Adds the counts of another process.
    pub(crate) fn add_counts(&mut self, other: &LostLabels) {
        for modality in Modality::ALL {
            let at = modality.index();
            self.had[at] += other.had[at];
            self.lost[at] += other.lost[at];
        }
    }

    /// Checks that at most half of the videos that had labels lose all labels of a modality.
    ///
    /// # Errors
    /// Returns [`LabelError::Lost`] with the first rejected row of the modality.
    pub(crate) fn check(&self, world: &World, rejects: &[RejectRow]) -> Result<(), LabelError> {
        for modality in Modality::ALL {
            let (lost, had) = (self.lost[modality.index()], self.had[modality.index()]);
            if lost * 2 > had {
                let rejected =
                    |row: &&RejectRow| row.severity == Severity::Reject && row.modality == Some(modality);
                // The rows of files tell why the features cannot be used; the rows of the graph only tell that none are
                // left.
                let of_file = |row: &&RejectRow| rejected(row) && !row.kind.is_of_graph();
                let first = rejects
                    .iter()
                    .find(of_file)
                    .or_else(|| rejects.iter().find(rejected));
                return Err(LabelError::Lost {
                    modality,
                    inputs: input_noun(world, modality),
                    lost,
                    had,
                    first: first.map(|row| format!("`{}`: {}", row.file, row.reason)),
                });
            }
        }
        Ok(())
    }
}

/// Checks [`LostLabels`] for the part of a store that a change touches. A modality whose inputs the change removes by name,
/// and does not replace, is not checked.
///
/// # Errors
/// Returns the errors of [`LostLabels::check`].
pub(crate) fn check_part(part: &TouchedRows, outcome: &Outcome, changes: &Changes) -> Result<(), LabelError> {
    if changes.allow_missing {
        return Ok(());
    }
    let labelled: BTreeSet<(VideoId, Modality)> = part
        .old
        .labels
        .iter()
        .map(|found| (VideoId::of(&found.row.video), found.row.modality))
        .filter(|(video, modality)| {
            let at = modality.index();
            let removes = !changes.removed[at].is_empty() && changes.features[at].is_empty();
            part.videos.contains_key(video) && !removes
        })
        .collect();
    let mut lost = LostLabels::default();
    lost.add(&labelled.into_iter().collect::<Vec<_>>(), outcome);
    // The videos that the change does not touch keep their labels. All videos are known if features were read; otherwise
    // no features can be lost.
    let mut had: Both<usize> = [0; 2];
    for row in part.resolved.known.rows() {
        for (modality, source) in sources_of(row) {
            had[modality.index()] += usize::from(source.is_some());
        }
    }
    for (own, all) in lost.had.iter_mut().zip(had) {
        *own = (*own).max(all);
    }
    lost.check(&part.resolved.after, &part.reread.rejects)
}
