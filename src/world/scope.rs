//! Which videos and tracks a change can touch.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_dataflows::CandidateRule;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::rule::Rule;
use vaplan_schemas::rows::LabelTrack;
use vaplan_schemas::store::{Place, Snapshot};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::flips::{self, UnchangedFlips};
use super::resolve::Resolved;
use crate::error::LabelError;
use crate::ingest::annotations::key11;
use crate::world::World;

/// The videos and tracks that a change can touch, or everything.
#[derive(Clone, Debug, PartialEq)]
pub enum Scope {
    /// The change affects every score of a modality, so that all features must be read again.
    Everything,
    /// The change affects all rows of some videos, and some tracks of all videos.
    Part(Touched),
}

/// Videos and tracks that a change can touch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Touched {
    /// Videos of which every row may change.
    pub videos: BTreeSet<Arc<str>>,
    /// The videos among `videos` whose features must be read again.
    pub rescored: BTreeSet<Arc<str>>,
    /// Pairs of modality and class whose labels may change in any video.
    pub tracks: BTreeSet<(Modality, ClassId)>,
    /// Tracks whose labels after the change are known. The list can also hold tracks that `videos` or `tracks` cover.
    pub relabelled: Vec<RelabelledTrack>,
    /// Flips of PLD that the change leaves as they are. Filled only if the change asks for the number of all flips.
    pub stay: Vec<UnchangedFlips>,
}

/// A track to which the change gives other flips of PLD, or user labels, and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct RelabelledTrack {
    /// Place of the old rows in the store.
    pub place: Place,
    /// The labels after the change.
    pub new: LabelTrack,
    /// The labels whose value changes.
    pub changes: Vec<Change>,
}

/// Which videos count as touched after a change of predictions or of K, α, guard or modalities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionScope {
    /// Only the videos in which PLD flips other labels. The rows of all other videos stay the same.
    Flipped,
    /// Whole videos in which PLD flips other labels, because a session in memory must learn them. If the denoising rules
    /// change, all videos with predictions.
    Session,
}

impl Scope {
    /// Determines the scope of a change. Feature files that the change names add their videos later, when the files
    /// are read.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn of(
        snapshot: &Snapshot,
        resolved: &mut Resolved,
        of: PredictionScope,
    ) -> Result<Scope, LabelError> {
        if everything(&resolved.before, &resolved.after) {
            return Ok(Scope::Everything);
        }
        let mut touched = Touched::default();
        let classes: Vec<ClassId> = (0..resolved.after.classes.len() as u32).map(ClassId).collect();
        for modality in Modality::ALL {
            let (before, after) = (&resolved.before, &resolved.after);
            let (was, is) = (before.settings.of(modality), after.settings.of(modality));
            let changed = |class: &ClassId| {
                was.rule != is.rule || was.score_threshold(*class) != is.score_threshold(*class)
            };
            let own = classes.iter().filter(|class| changed(class));
            touched.tracks.extend(own.map(|class| (modality, *class)));
        }
        let session = of == PredictionScope::Session;
        let all = session && resolved.before.denoising != resolved.after.denoising;
        let mut moved = flips::moved(snapshot, resolved, all)?;
        if session && !moved.rewritten.is_empty() {
            moved = flips::moved(snapshot, resolved, true)?;
        }
        if session {
            let flipped = moved.flipped.drain(..);
            touched.videos.extend(flipped.map(|own| own.new.video));
        }
        touched.videos.extend(moved.videos);
        for modality in moved.rewritten {
            touched
                .tracks
                .extend(classes.iter().map(|class| (modality, *class)));
        }
        (touched.relabelled, touched.stay) = (moved.flipped, moved.stay);
        touched.relabelled.append(&mut resolved.overrides.tracks);
        prompts(snapshot, resolved, &mut touched)?;
        candidates(snapshot, resolved, &mut touched)?;
        weak(snapshot, resolved, &mut touched)?;
        touched
            .videos
            .extend(resolved.user.iter().map(|row| row.video.clone()));
        // Load the row of every touched video: later code treats a video without a loaded row as a video that the
        // store lacks.
        resolved.known.want(snapshot, touched.videos.iter().cloned())?;
        Ok(Scope::Part(touched))
    }
}

/// Whether the change affects every score of a modality. A softmax probability depends on all classes, so that a
/// change of one prompt or of κ changes all scores.
fn everything(before: &World, after: &World) -> bool {
    before.classes != after.classes
        || Modality::ALL.into_iter().any(|modality| {
            let softmax = matches!(after.settings.of(modality).rule, Rule::Softmax { .. });
            let rule = before.settings.of(modality).rule != after.settings.of(modality).rule;
            let (was, is) = (
                &before.prompts[modality.index()],
                &after.prompts[modality.index()],
            );
            // If the width of the prompts changes, features that were rejected because of their width may fit now. No
            // table lists these features, so that all features must be read again.
            was.width != is.width || (softmax && (rule || was != is))
        })
}

/// Adds the videos without a weak label if their candidates are chosen by another rule after the change.
fn candidates(snapshot: &Snapshot, resolved: &mut Resolved, touched: &mut Touched) -> Result<(), StoreError> {
    let (before, after) = (&resolved.before.settings, &resolved.after.settings);
    if before.candidates == after.candidates {
        return Ok(());
    }
    let guesses = after.candidates != CandidateRule::Weak;
    resolved.known.want_all(snapshot)?;
    for row in resolved
        .known
        .rows()
        .filter(|row| row.guessed || row.weak_labels.is_empty())
    {
        touched.videos.insert(row.video.clone());
        if guesses {
            touched.rescored.insert(row.video.clone());
        }
    }
    Ok(())
}

/// Adds the videos whose weak label has a class with a changed prompt, and those with guessed candidates, which depend on
/// all prompts. Only rule `logit` gets here with changed
/// prompts.
fn prompts(snapshot: &Snapshot, resolved: &mut Resolved, touched: &mut Touched) -> Result<(), StoreError> {
    let mut changed: BTreeSet<Arc<str>> = BTreeSet::new();
    for modality in Modality::ALL {
        let (was, is) = (
            &resolved.before.prompts[modality.index()],
            &resolved.after.prompts[modality.index()],
        );
        for (position, class) in resolved.after.classes.iter().enumerate() {
            let id = ClassId(position as u32);
            if was.row(id) != is.row(id) {
                changed.insert(class.clone());
            }
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    resolved.known.want_all(snapshot)?;
    let with = resolved
        .known
        .rows()
        .filter(|row| row.guessed || row.weak_labels.iter().any(|class| changed.contains(class)));
    for row in with {
        touched.videos.insert(row.video.clone());
        touched.rescored.insert(row.video.clone());
    }
    Ok(())
}

/// Adds the videos with an edited weak label. If a video comes or goes, also adds all videos with the same first 11
/// characters, because a key of 11 characters can become ambiguous or cease to be ambiguous.
fn weak(snapshot: &Snapshot, resolved: &mut Resolved, touched: &mut Touched) -> Result<(), StoreError> {
    let mut keys: BTreeSet<Arc<str>> = BTreeSet::new();
    for (name, now) in &resolved.weak {
        let before = resolved.known.get(name);
        touched.videos.insert(name.clone());
        match (before, now) {
            (Some(row), Some(now)) => {
                let scored =
                    |class: &ClassId| row.weak_labels.contains(&resolved.after.classes[class.index()]);
                // The candidates that the row has count on if no change touches them.
                let (before, after) = (&resolved.before.settings, &resolved.after.settings);
                let known = row.guessed && before.candidates == after.candidates;
                let guess = resolved.after.guesses(&now.classes) && !known;
                if guess || !now.classes.iter().all(scored) {
                    touched.rescored.insert(name.clone());
                }
            }
            _ => {
                keys.insert(key11(name).into());
            }
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    resolved.known.want_all(snapshot)?;
    let names = resolved
        .known
        .rows()
        .map(|row| &row.video)
        .chain(resolved.weak.keys());
    let siblings: Vec<Arc<str>> = names.filter(|name| keys.contains(key11(name))).cloned().collect();
    for name in siblings {
        touched.videos.insert(name.clone());
        touched.rescored.insert(name);
    }
    Ok(())
}
