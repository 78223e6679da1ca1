//! Which features of a video count.
//!
//! ```text
//! weak ────┐           ┌─ one record, of the length of the other modality's, its weak classes only ─▶ admitted
//! scored ──┴─ by video ┤
//!                      └─ none, several that differ, lengths that differ, a class not scored ───────▶ faults
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

pub use crate::fault::Fault;
use crate::records::{Candidate, ScoreRecord, VideoId};

/// Features that count: one of each video and modality, of the classes of the weak label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Admitted {
    /// File it came from; the first in order where identical copies exist.
    pub source: Arc<str>,
    /// Scores.
    pub record: Arc<ScoreRecord>,
}

/// What [`admit`] gives.
pub struct Admission<'scope, T: Timestamp + Lattice> {
    /// At most one record per video and modality.
    pub admitted: VecCollection<'scope, T, (VideoId, (Modality, Admitted))>,
    /// Why a modality is absent; only of videos with a weak label.
    pub faults: VecCollection<'scope, T, (VideoId, Fault)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Fact {
    Weak(Arc<[ClassId]>),
    Scored(Candidate),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Outcome {
    Admitted(Modality, Admitted),
    Fault(Fault),
}

/// Brings weak labels and scored features together.
///
/// `weak` holds one record per video, its classes ascending; `scored` any number per video and modality: copies
/// whose features have one [`FeatureHash`](crate::FeatureHash) count once, others not at all. Features of a video without a weak label are passed over. After a
/// change, work is proportional to the videos that changed. Only classes of the weak label pass (METHOD.md, PLG 4,
/// grade P).
pub fn admit<'scope, T: Timestamp + Lattice>(
    weak: VecCollection<'scope, T, (VideoId, Arc<[ClassId]>)>,
    scored: VecCollection<'scope, T, (VideoId, Candidate)>,
) -> Admission<'scope, T> {
    let scope = weak.scope();
    scope.region_named("Admit", |inner| {
        let weak = weak
            .enter_region(inner)
            .map(|(video, classes)| (video, Fact::Weak(classes)));
        let scored = scored
            .enter_region(inner)
            .map(|(video, candidate)| (video, Fact::Scored(candidate)));
        let outcomes = weak
            .concat(scored)
            .reduce_named("Admit", |video, facts, out| {
                assert_there(*video, facts);
                let facts: Vec<&Fact> = facts.iter().map(|(fact, _)| *fact).collect();
                out.extend(outcomes(&facts).into_iter().map(|outcome| (outcome, 1)));
            })
            .map(|(video, outcome)| (video, outcome));
        let admitted = outcomes.clone().flat_map(|(video, outcome)| match outcome {
            Outcome::Admitted(modality, admitted) => Some((video, (modality, admitted))),
            Outcome::Fault(_) => None,
        });
        let faults = outcomes.flat_map(|(video, outcome)| match outcome {
            Outcome::Admitted(..) => None,
            Outcome::Fault(fault) => Some((video, fault)),
        });
        Admission {
            admitted: admitted.leave_region(scope),
            faults: faults.leave_region(scope),
        }
    })
}

/// A record that goes without having been there would count as if it had come.
///
/// # Panics
/// Where there is one: the inputs are sets, and whoever feeds them keeps them so.
pub(crate) fn assert_there<F: std::fmt::Debug>(video: VideoId, facts: &[(&F, isize)]) {
    if let Some((fact, _)) = facts.iter().find(|(_, count)| *count < 0) {
        panic!("a record went that was not there: {video:?}, {fact:?}");
    }
}

/// Of one video, from its distinct facts in order.
fn outcomes(facts: &[&Fact]) -> Vec<Outcome> {
    let Some(weak) = facts.iter().find_map(|fact| match fact {
        Fact::Weak(classes) => Some(classes),
        Fact::Scored(_) => None,
    }) else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let mut one_of = |modality| match one_candidate(facts, modality, weak) {
        Ok(admitted) => Some(admitted),
        Err(fault) => {
            faults.push(Outcome::Fault(fault));
            None
        }
    };
    let audio = one_of(Modality::Audio);
    let visual = one_of(Modality::Visual);
    let mut outcomes = faults;
    match (audio, visual) {
        (Some(audio), Some(visual)) if audio.record.segments() != visual.record.segments() => {
            let (audio, visual) = (audio.record.segments(), visual.record.segments());
            outcomes.push(Outcome::Fault(Fault::Lengths { audio, visual }));
        }
        (audio, visual) => {
            outcomes.extend(audio.map(|admitted| Outcome::Admitted(Modality::Audio, admitted)));
            outcomes.extend(visual.map(|admitted| Outcome::Admitted(Modality::Visual, admitted)));
        }
    }
    outcomes
}

fn one_candidate(facts: &[&Fact], modality: Modality, weak: &[ClassId]) -> Result<Admitted, Fault> {
    let mut candidates = facts.iter().filter_map(|fact| match fact {
        Fact::Scored(candidate) if candidate.modality == modality => Some(candidate),
        _ => None,
    });
    let first = candidates.next().ok_or(Fault::Missing(modality))?;
    let others: Vec<&Candidate> = candidates.collect();
    if others.iter().any(|other| other.features != first.features) {
        let mut sources: Vec<Arc<str>> = std::iter::once(first)
            .chain(others)
            .map(|candidate| candidate.source.clone())
            .collect();
        sources.sort();
        return Err(Fault::Conflict(modality, sources));
    }
    if let Some(&class) = weak.iter().find(|class| !first.record.classes().contains(class)) {
        return Err(Fault::Unscored(modality, class));
    }
    let record = if first.record.classes() == weak {
        first.record.clone()
    } else {
        Arc::new(first.record.restricted(|class| weak.contains(&class)))
    };
    Ok(Admitted {
        source: first.source.clone(),
        record,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Cosine, FeatureHash, Score};

    fn candidate(source: &str, features: f32, score: f64) -> Fact {
        let score = vec![Score::new(score).expect("a number")];
        let record = ScoreRecord::new(1, vec![ClassId(0)], vec![Cosine::new(0.5)], score);
        Fact::Scored(Candidate {
            modality: Modality::Audio,
            source: source.into(),
            record: Arc::new(record),
            features: FeatureHash::of(&[features]),
        })
    }

    #[test]
    fn copies_are_equal_by_their_features_and_not_by_their_scores() {
        let admitted = |facts: [Fact; 2]| one_candidate(&facts.each_ref(), Modality::Audio, &[ClassId(0)]);
        // Two processors score one file, and their last bits differ.
        let copies = admitted([
            candidate("a", 1.0, 0.25),
            candidate("b", 1.0, 0.25000000000000006),
        ]);
        assert_eq!(&*copies.expect("one of the copies").source, "a");
        let differ = admitted([candidate("a", 1.0, 0.25), candidate("b", 2.0, 0.25)]);
        assert!(matches!(differ, Err(Fault::Conflict(Modality::Audio, _))));
    }
}
