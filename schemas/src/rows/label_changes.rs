//! Rows of table `label_changes`.

use std::sync::Arc;

use super::{FlipReason, LabelRule};
use crate::ids::Modality;

/// A row of `label_changes`: the segments of a track that a version set, or unset, by one rule. Key: (`version`, `video`,
/// `modality`, `class`, first of `segments`). Rows are only added.
///
/// A label that is not in `labels` counts as unset, so the changes up to version v add up to the set labels of
/// `labels` at v. [`LabelChangeTrack::group`] makes these rows from changes of single labels.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelChangeTrack {
    /// The store version that changed the labels.
    pub version: u64,
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The labels after the change. Before it, they were the opposite.
    pub to: bool,
    /// The rule that set the labels.
    pub rule: LabelRule,
    /// The segments, from 0, ascending; not empty.
    pub segments: Vec<u32>,
    /// Why PLD flipped the labels, one reason per segment; empty if no reason is known, and for every rule but `pld`.
    pub why: Vec<FlipReason>,
}

impl LabelChangeTrack {
    /// Groups changes of single labels into rows, in the order of the table. The changes of a track must be adjacent,
    /// and their segments must ascend.
    ///
    /// ```
    /// use vaplan_schemas::Modality;
    /// use vaplan_schemas::rows::{LabelChangeRow, LabelChangeTrack, LabelRule};
    /// let change = |segment, to: bool| LabelChangeRow {
    ///     version: 2,
    ///     video: "clip".into(),
    ///     modality: Modality::Audio,
    ///     class: "Dog".into(),
    ///     segment,
    ///     from: !to,
    ///     to,
    ///     rule: LabelRule::Plg,
    ///     why: None,
    /// };
    /// let changes = [change(0, true), change(1, false), change(3, true)];
    /// let rows = LabelChangeTrack::group(changes.clone());
    /// assert_eq!(rows.len(), 2);
    /// assert_eq!((rows[0].to, &rows[0].segments), (true, &vec![0, 3]));
    /// let mut again: Vec<_> = rows.iter().flat_map(LabelChangeTrack::changes).collect();
    /// again.sort_by_key(|change| change.segment);
    /// assert_eq!(again, changes);
    /// ```
    pub fn group(changes: impl IntoIterator<Item = LabelChangeRow>) -> Vec<LabelChangeTrack> {
        let mut rows: Vec<LabelChangeTrack> = Vec::new();
        // The rows from this one on are of the current track. A track has at most two labels, three rules, and changes
        // with and without a reason, so it has few rows.
        let mut current = 0;
        for change in changes {
            let of_track = |row: &LabelChangeTrack| {
                row.version == change.version
                    && row.modality == change.modality
                    && row.video == change.video
                    && row.class == change.class
            };
            if !rows.last().is_some_and(of_track) {
                current = rows.len();
            }
            let same = |row: &&mut LabelChangeTrack| {
                row.to == change.to && row.rule == change.rule && row.why.is_empty() == change.why.is_none()
            };
            match rows[current..].iter_mut().find(same) {
                Some(row) => {
                    row.segments.push(change.segment);
                    row.why.extend(change.why.map(|why| *why));
                }
                None => rows.push(LabelChangeTrack {
                    version: change.version,
                    video: change.video,
                    modality: change.modality,
                    class: change.class,
                    to: change.to,
                    rule: change.rule,
                    segments: vec![change.segment],
                    why: change.why.into_iter().map(|why| *why).collect(),
                }),
            }
        }
        rows
    }

    /// The changes of single labels, in order of their segment.
    pub fn changes(&self) -> impl Iterator<Item = LabelChangeRow> + '_ {
        self.segments
            .iter()
            .enumerate()
            .map(|(nth, segment)| LabelChangeRow {
                version: self.version,
                video: self.video.clone(),
                modality: self.modality,
                class: self.class.clone(),
                segment: *segment,
                from: !self.to,
                to: self.to,
                rule: self.rule,
                why: self.why.get(nth).copied().map(Box::new),
            })
    }
}

/// The change of one label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelChangeRow {
    /// The store version that changed the label.
    pub version: u64,
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The segment, from 0.
    pub segment: u32,
    /// The label before the change.
    pub from: bool,
    /// The label after the change; it differs from `from`.
    pub to: bool,
    /// The rule that set the label.
    pub rule: LabelRule,
    /// Why PLD flipped the label; `None` for every rule but `pld`.
    pub why: Option<Box<FlipReason>>,
}
