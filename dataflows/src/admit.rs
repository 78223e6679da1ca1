//! Operator: which features of a video count, and why other features are rejected.
//!
//! ```text
//! weak ────┐
//! guessed ─┤           ┌─ one record, as long as that of the other modality, candidate classes only ─▶ admitted
//! scored ──┴─ by video ┤
//!                      └─ no record, copies that differ, unequal lengths, a class not scored ───▶ rejections
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::candidates::{CandidateRule, counting};
use crate::placement::reduce_here;
use crate::records::{Candidate, ScoreRecord, VideoId};
pub use crate::rejection::Rejection;
use crate::workers::panic_point;

/// The features of one video and modality that count, with scores for the classes of the weak label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Admitted {
    /// File of the features. If there are identical copies, this is the first file in order of name.
    pub source: Arc<str>,
    /// Scores.
    pub record: Arc<ScoreRecord>,
}

/// Outputs of [`admit`].
pub struct Admission<'scope, T: Timestamp + Lattice> {
    /// At most one record per video and modality.
    pub admitted: VecCollection<'scope, T, (VideoId, (Modality, Admitted))>,
    /// Why a modality has no features; only for videos with a weak label.
    pub rejections: VecCollection<'scope, T, (VideoId, Rejection)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Fact {
    Weak(Arc<[ClassId]>),
    Guessed(CandidateRule),
    Scored(Candidate),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum VideoAdmission {
    Admitted(Modality, Admitted),
    Rejection(Rejection),
}

/// Decides for each video which candidate of each modality counts.
///
/// `weak` holds one record per video, classes ascending. `scored` holds any number of candidates per video and
/// modality.
///
/// - If all candidates of a video and modality have the same [`FeatureHash`](crate::FeatureHash), the first one counts.
///   If the hashes differ, no candidate counts.
/// - If the two modalities have different numbers of segments, no candidate of the video counts.
/// - Features of a video without a weak label are ignored without a rejection.
///
/// All records of a video must be on one worker (see [`placement`](crate::placement)).
///
/// Only scores of classes in the weak label pass (docs/method.md, PLG 4, grade P). If `guessed` has a rule for a video, its
/// weak label is empty, and the scores of the classes pass that the rule guesses from the features that count. After a change, work is proportional to
/// the videos that changed.
pub fn admit<'scope, T: Timestamp + Lattice>(
    weak: VecCollection<'scope, T, (VideoId, Arc<[ClassId]>)>,
    guessed: VecCollection<'scope, T, (VideoId, CandidateRule)>,
    scored: VecCollection<'scope, T, (VideoId, Candidate)>,
) -> Admission<'scope, T> {
    let scope = weak.scope();
    scope.region_named("Admit", |inner| {
        let weak = weak
            .enter_region(inner)
            .map(|(video, classes)| (video, Fact::Weak(classes)));
        let guessed = guessed
            .enter_region(inner)
            .map(|(video, rule)| (video, Fact::Guessed(rule)));
        let scored = scored
            .enter_region(inner)
            .map(|(video, candidate)| (video, Fact::Scored(candidate)));
        let outcomes = reduce_here(
            weak.concat(guessed).concat(scored),
            "Admit",
            |video, facts, out| {
                assert_there(*video, facts);
                let facts: Vec<&Fact> = facts.iter().map(|(fact, _)| *fact).collect();
                out.extend(outcomes(&facts).into_iter().map(|outcome| (outcome, 1)));
            },
        );
        let admitted = outcomes.clone().flat_map(|(video, outcome)| match outcome {
            VideoAdmission::Admitted(modality, admitted) => Some((video, (modality, admitted))),
            VideoAdmission::Rejection(_) => None,
        });
        let rejections = outcomes.flat_map(|(video, outcome)| match outcome {
            VideoAdmission::Admitted(..) => None,
            VideoAdmission::Rejection(rejection) => Some((video, rejection)),
        });
        Admission {
            admitted: admitted.leave_region(scope),
            rejections: rejections.leave_region(scope),
        }
    })
}

/// Checks that no record was removed that was not there. The `reduce` operators ignore the counts, so that such a
/// removal would count as an addition.
///
/// # Panics
/// Panics if a record has a negative count. The code that feeds the inputs must keep them sets.
pub(crate) fn assert_there<F: std::fmt::Debug>(video: VideoId, facts: &[(&F, isize)]) {
    if let Some((fact, _)) = facts.iter().find(|(_, count)| *count < 0) {
        panic!("a record went that was not there: {video:?}, {fact:?}");
    }
}

/// Computes the outcomes of one video from its distinct facts, which are in order.
fn outcomes(facts: &[&Fact]) -> Vec<VideoAdmission> {
    panic_point("admit");
    let Some(weak) = facts.iter().find_map(|fact| match fact {
        Fact::Weak(classes) => Some(classes),
        Fact::Guessed(_) | Fact::Scored(_) => None,
    }) else {
        return Vec::new();
    };
    let copies = || {
        facts.iter().filter_map(|fact| match fact {
            Fact::Scored(candidate) => Some(candidate),
            Fact::Weak(_) | Fact::Guessed(_) => None,
        })
    };
    let guess = facts.iter().find_map(|fact| match fact {
        Fact::Guessed(rule) => Some(rule.guess_of(copies())),
        Fact::Weak(_) | Fact::Scored(_) => None,
    });
    let classes = guess.as_deref().unwrap_or(weak);
    let mut rejections = Vec::new();
    let mut one_of = |modality| match one_candidate(copies(), modality, classes) {
        Ok(admitted) => Some(admitted),
        Err(rejection) => {
            rejections.push(VideoAdmission::Rejection(rejection));
            None
        }
    };
    let audio = one_of(Modality::Audio);
    let visual = one_of(Modality::Visual);
    let mut outcomes = rejections;
    match (audio, visual) {
        (Some(audio), Some(visual)) if audio.record.segments() != visual.record.segments() => {
            let (audio, visual) = (audio.record.segments(), visual.record.segments());
            outcomes.push(VideoAdmission::Rejection(Rejection::Lengths { audio, visual }));
        }
        (audio, visual) => {
            outcomes.extend(audio.map(|admitted| VideoAdmission::Admitted(Modality::Audio, admitted)));
            outcomes.extend(visual.map(|admitted| VideoAdmission::Admitted(Modality::Visual, admitted)));
        }
    }
    outcomes
}

fn one_candidate<'a>(
    copies: impl Iterator<Item = &'a Candidate>,
    modality: Modality,
    weak: &[ClassId],
) -> Result<Admitted, Rejection> {
    let first = counting(copies, modality)?;
    if let Some(&class) = weak.iter().find(|class| !first.record.classes().contains(class)) {
        return Err(Rejection::Unscored(modality, class));
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

    fn candidate(source: &str, features: f32, score: f64) -> Candidate {
        let score = vec![Score::new(score).expect("a number")];
        let record = ScoreRecord::new(1, vec![ClassId(0)], vec![Cosine::new(0.5)], score);
        Candidate {
            modality: Modality::Audio,
            source: source.into(),
            record: Arc::new(record),
            features: FeatureHash::of(&[features]),
        }
    }

    #[test]
    fn copies_are_equal_by_their_features_and_not_by_their_scores() {
        let admitted = |copies: [Candidate; 2]| one_candidate(copies.iter(), Modality::Audio, &[ClassId(0)]);
        // Two processors scored the same file, and the last bits of the scores differ.
        let copies = admitted([
            candidate("a", 1.0, 0.25),
            candidate("b", 1.0, 0.25000000000000006),
        ]);
        assert_eq!(&*copies.expect("one of the copies").source, "a");
        let differ = admitted([candidate("a", 1.0, 0.25), candidate("b", 2.0, 0.25)]);
        assert!(matches!(differ, Err(Rejection::Conflict(Modality::Audio, _))));
    }
}
