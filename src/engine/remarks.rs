//! Remarks on labels that thresholds set without a choice: all labels of a modality, or none.
//!
//! Thresholds that do this often are of another rule, for example a probability, while thresholds of rule `softmax` are multiples
//! of 1/C.

use vaplan_dataflows::outcome::Outcome;
use vaplan_schemas::{ClassId, Modality};

use super::SetLabels;
use super::part::TouchedRows;
use super::tracks::TracksAnew;
use crate::world::{Both, World};

/// Logs and returns remarks on the labels of audio and visual of a store version. `None` for a modality whose labels were not
/// counted.
pub(crate) fn remarks(world: &World, counts: Both<Option<SetLabels>>) -> Vec<String> {
    let counted = Modality::ALL.into_iter().zip(counts);
    let remarks = counted.filter_map(|(modality, labels)| remark(world, modality, labels?));
    remarks.inspect(|remark| tracing::warn!("{remark}")).collect()
}

fn remark(world: &World, modality: Modality, labels: SetLabels) -> Option<String> {
    let of = labels.of;
    let share = match labels.set {
        _ if of == 0 => return None,
        0 => "no label",
        set if set == of => "every label",
        _ => return None,
    };
    if world.holds_imported(modality) {
        return Some(format!(
            "the label files set {share} of the {of} {modality} labels within the weak labels"
        ));
    }
    let rule = world.settings.of(modality).rule.name();
    Some(format!(
        "the thresholds set {share} of the {of} {modality} labels, whose rule is `{rule}`: a threshold of rule `softmax` is a \
         multiple of 1/C (default 1.025 for visual and 0.95 for audio), and a threshold of rule `logit` is the logit itself"
    ))
}

/// Remarks on the labels of the modalities whose rule or thresholds a change of a part of a store changes. `tracks` has the
/// tracks that are labelled beside the part, and the numbers of their labels.
pub(crate) fn track_remarks(
    part: &TouchedRows,
    outcome: &Outcome,
    tracks: Option<(&TracksAnew<'_>, Both<SetLabels>)>,
) -> Vec<String> {
    let (before, after) = (&part.resolved.before, &part.resolved.after);
    let counts = Modality::ALL.map(|modality| {
        if before.settings.of(modality) == after.settings.of(modality) {
            return None;
        }
        let mut classes = (0..after.classes.len() as u32).map(ClassId);
        let is_whole = match &tracks {
            Some((tracks, _)) => tracks.is_whole(modality),
            None => classes.all(|class| part.touched.tracks.contains(&(modality, class))),
        };
        if !is_whole {
            return None;
        }
        let mut labels = match &tracks {
            Some((_, counts)) => counts[modality.index()],
            None => SetLabels::default(),
        };
        // Beside tracks, a part labels only its whole videos.
        let is_counted = |name: Option<&std::sync::Arc<str>>| {
            tracks.is_none() || name.is_some_and(|name| part.touched.videos.contains(name))
        };
        for (video, own, record) in outcome.labels() {
            if own == modality && is_counted(part.names.get(&video)) {
                record.tracks.iter().for_each(|track| labels.add(&track.label));
            }
        }
        Some(labels)
    });
    remarks(after, counts)
}
