//! Operator: PLG labels, predictions and user labels to one record per video and modality, and what both modalities share.
//!
//! The operator gathers the rows of each video and calls [`decide`](crate::decide), which holds the definition of a label.
//!
//! ```text
//! tracks ───────┐                         ┌─▶ labels
//! predictions ──┼─ by video ═ decide ═────┼─▶ audio_visual
//! marks ────────┘                         └─▶ faults
//! ```

use std::sync::Arc;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, VecCollection};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::core::OkErr;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::assert_there;
use crate::decide::{Denoising, ModalityLabels, audio_visual, decide_modality};
use crate::fault::Fault;
use crate::marks::Marks;
use crate::records::{Bits, LabelRecord, VideoId};

/// What [`labels`] gives.
pub struct Labelled<'scope, T: Timestamp + Lattice> {
    /// One record per video and modality.
    pub labels: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
    /// One record per video with labels of both: an audio-visual event is one that is in both (grade C).
    pub audio_visual: VecCollection<'scope, T, (VideoId, Arc<LabelRecord>)>,
    /// Marks and predictions that do not count.
    pub faults: VecCollection<'scope, T, (VideoId, Fault)>,
}

/// What is known of a video; in this order, tracks by modality and class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Fact {
    Track(Modality, ClassId, Bits),
    Predicted(Modality, Denoising),
    Marked(Modality, Arc<Marks>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Outcome {
    Of(Modality, Arc<LabelRecord>),
    Both(Arc<LabelRecord>),
    // Apart, so that the two above, of which there are many, stay small.
    Fault(Box<Fault>),
}

/// Gathers the tracks, predictions and user labels of each video, and decides its labels.
///
/// `tracks` holds one record per video, modality and class, `predictions` and `marks` at most one per video and
/// modality. After a change, work is proportional to the videos with a track, prediction or mark that changed.
/// Predictions for a modality without labels are passed over.
pub fn labels<'scope, T: Timestamp + Lattice>(
    tracks: VecCollection<'scope, T, (VideoId, (Modality, ClassId, Bits))>,
    predictions: VecCollection<'scope, T, (VideoId, (Modality, Denoising))>,
    marks: VecCollection<'scope, T, (VideoId, (Modality, Arc<Marks>))>,
) -> Labelled<'scope, T> {
    let scope = tracks.scope();
    scope.region_named("Labels", |inner| {
        let tracks = tracks
            .enter_region(inner)
            .map(|(video, (modality, class, bits))| (video, Fact::Track(modality, class, bits)));
        let predictions = predictions
            .enter_region(inner)
            .map(|(video, (modality, own))| (video, Fact::Predicted(modality, own)));
        let marks = marks
            .enter_region(inner)
            .map(|(video, (modality, marks))| (video, Fact::Marked(modality, marks)));
        let gathered =
            tracks
                .concatenate([predictions, marks])
                .reduce_named("Gather", |video, facts, out| {
                    assert_there(*video, facts);
                    let facts: Vec<&Fact> = facts.iter().map(|(fact, _)| *fact).collect();
                    out.extend(outcomes(&facts).into_iter().map(|outcome| (outcome, 1)));
                });
        // Split rather than copied: the records of a first run are many.
        let (labels, others) = gathered.inner.ok_err::<Vec<_>, _, Vec<_>, _, _>(
            |((video, outcome), time, diff)| match outcome {
                Outcome::Of(modality, record) => Ok((((video, modality), record), time, diff)),
                other => Err(((video, other), time, diff)),
            },
        );
        let (audio_visual, faults) =
            others.ok_err::<Vec<_>, _, Vec<_>, _, _>(|((video, outcome), time, diff)| match outcome {
                Outcome::Both(record) => Ok(((video, record), time, diff)),
                Outcome::Fault(fault) => Err(((video, *fault), time, diff)),
                Outcome::Of(..) => unreachable!("split off above"),
            });
        Labelled {
            labels: labels.as_collection().leave_region(scope),
            audio_visual: audio_visual.as_collection().leave_region(scope),
            faults: faults.as_collection().leave_region(scope),
        }
    })
}

/// The labels of one video, from its distinct facts in order.
fn outcomes(facts: &[&Fact]) -> Vec<Outcome> {
    let [audio, visual] = Modality::ALL.map(|modality| of_modality(modality, facts));
    let rejections = audio.rejections.into_iter().chain(visual.rejections);
    let mut outcomes: Vec<Outcome> = rejections.map(Box::new).map(Outcome::Fault).collect();
    let both = audio_visual(audio.labels.as_ref(), visual.labels.as_ref());
    outcomes.extend(both.map(Arc::new).map(Outcome::Both));
    for (modality, record) in Modality::ALL.into_iter().zip([audio.labels, visual.labels]) {
        outcomes.extend(record.map(|record| Outcome::Of(modality, Arc::new(record))));
    }
    outcomes
}

/// The labels of one modality, from the facts of the video.
fn of_modality(modality: Modality, facts: &[&Fact]) -> ModalityLabels {
    let of_track = |fact: &&&Fact| matches!(fact, Fact::Track(of, ..) if *of == modality);
    // As many as there are: a growing list takes room for four.
    let mut tracks = Vec::with_capacity(facts.iter().filter(of_track).count());
    let (mut denoising, mut user_labels) = (None, None);
    for fact in facts {
        match fact {
            // Facts come in order, so the classes ascend.
            Fact::Track(of, class, label) if *of == modality => tracks.push((*class, label.clone())),
            Fact::Predicted(of, own) if *of == modality => denoising = Some(own),
            Fact::Marked(of, own) if *of == modality => user_labels = Some(&**own),
            _ => {}
        }
    }
    decide_modality(modality, tracks, denoising, user_labels)
}
