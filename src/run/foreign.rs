//! Finds out whether another command changed thresholds, denoising or predictions of a run's store since the last run.
//!
//! A run restores the labels that its file asks for. A person who changed them with `relabel` or `denoise` must not lose
//! that work silently. Each commit of a run therefore records a hash of these values (setting `run.left`), and the next
//! run compares the values in the store with the hash. The hash of a changed file does not matter: a file that asks for
//! other values is a change of the run itself.

use vaplan_dataflows::CandidateRule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::ClassRow;

use crate::engine::plan::DenoisingState;
use crate::world::World;
use crate::world::hash::{feed, hash};

/// Name of the setting with the hash.
pub(super) const LEFT: &str = "left";

/// Returns a hash of the rules, thresholds, denoising and active predictions that a commit of a run writes.
pub(super) fn left(world: &World, (denoising, active): &DenoisingState) -> String {
    hash(|sum| {
        for row in world.class_rows() {
            feed(sum, [&*row.class, row.modality.as_str(), &*value(&row)]);
        }
        for rule in denoising {
            feed(sum, [&*format!("{rule:?}")]);
        }
        feed(sum, [&*format!("{active:?}")]);
        // Programs before this setting recorded no rule of candidate classes.
        if world.settings.candidates != CandidateRule::Weak {
            feed(sum, [&*world.settings.candidates.to_string()]);
        }
    })
}

fn value(row: &ClassRow) -> String {
    format!("{} with rule {} and scale {}", row.threshold, row.rule, row.scale)
}

/// Describes what another command changed and a run would take back. Empty if no other command changed anything, if the
/// store was not made by a run, or if it was made by an older program.
pub(super) fn changes(store: &World, wanted: &World, denoised: &DenoisingState) -> Vec<String> {
    let now = (store.denoising, store.active.clone());
    match store.run.get(LEFT) {
        Some(recorded) if **recorded != *left(store, &now) => {}
        _ => return Vec::new(),
    }
    let mut found = Vec::new();
    let mut thresholds = 0;
    let wanted_rows = wanted.class_rows();
    for own in store.class_rows() {
        let same = |row: &&ClassRow| row.class == own.class && row.modality == own.modality;
        if let Some(row) = wanted_rows
            .iter()
            .find(same)
            .filter(|row| value(row) != value(&own))
        {
            thresholds += 1;
            if thresholds <= 3 {
                found.push(format!(
                    "the {} threshold of `{}` is {}, and the file asks for {}",
                    own.modality,
                    own.class,
                    value(&own),
                    value(row)
                ));
            }
        }
    }
    if thresholds > 3 {
        found.push(format!("{} more thresholds differ", thresholds - 3));
    }
    let (own, asked) = (store.settings.candidates, wanted.settings.candidates);
    if own != asked {
        found.push(format!(
            "the candidates are `{own}`, and the file asks for `{asked}`"
        ));
    }
    for modality in Modality::ALL {
        let (own, asked) = (&now.0[modality.index()], &denoised.0[modality.index()]);
        if own != asked {
            found.push(match own {
                Some(rule) => format!(
                    "{modality} labels are denoised by rule `{}` with other settings",
                    rule.name()
                ),
                None => format!("{modality} labels are not denoised"),
            });
        }
    }
    if now.1 != denoised.1 {
        found.push(match &now.1 {
            Some(active) => {
                let epochs: Vec<String> = active.epochs.iter().map(u64::to_string).collect();
                format!("the predictions of epoch {} are active", epochs.join(", "))
            }
            None => "no predictions are active".to_owned(),
        });
    }
    found
}
