//! Tracks, predictions and marks to one record per video and modality, and the meet of the two.
//!
//! ```text
//! tracks ───────┐            ┌─ PLG, flipped by PLD, set by a person ─▶ labels
//! predictions ──┼─ by video ─┼─ audio ∧ visual ───────────────────────▶ audio_visual
//! marks ────────┘            └─ marks and predictions without a label ▶ faults
//! ```

use std::sync::Arc;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, VecCollection};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::core::OkErr;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::assert_there;
use crate::denoise::{Predicted, denoise_track};
use crate::fault::{Fault, MarkFault};
use crate::marks::{Mark, Marks};
use crate::records::{Bits, LabelRecord, Track, VideoId};

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
    Predicted(Predicted),
    Marked(Modality, Arc<Marks>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Outcome {
    Of(Modality, Arc<LabelRecord>),
    Both(Arc<LabelRecord>),
    // Apart, so that the two above, of which there are many, stay small.
    Fault(Box<Fault>),
}

/// Gathers the tracks of each video, flips what PLD flips, and puts the marks of a person on top.
///
/// `tracks` holds one record per video, modality and class, `predictions` and `marks` at most one per video and
/// modality. After a change, work is proportional to the videos with a track, prediction or mark that changed.
/// Predictions for a modality without labels are passed over.
pub fn labels<'scope, T: Timestamp + Lattice>(
    tracks: VecCollection<'scope, T, (VideoId, (Modality, ClassId, Bits))>,
    predictions: VecCollection<'scope, T, (VideoId, Predicted)>,
    marks: VecCollection<'scope, T, (VideoId, (Modality, Arc<Marks>))>,
) -> Labelled<'scope, T> {
    let scope = tracks.scope();
    scope.region_named("Labels", |inner| {
        let tracks = tracks
            .enter_region(inner)
            .map(|(video, (modality, class, bits))| (video, Fact::Track(modality, class, bits)));
        let predictions = predictions
            .enter_region(inner)
            .map(|(video, predicted)| (video, Fact::Predicted(predicted)));
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

/// Of one video, from its distinct facts in order.
fn outcomes(facts: &[&Fact]) -> Vec<Outcome> {
    let mut faults = Vec::new();
    let [audio, visual] = Modality::ALL.map(|modality| Labelling::of(modality, facts).finish(&mut faults));
    let faults = faults.into_iter().map(Box::new);
    let mut outcomes: Vec<Outcome> = faults.map(Outcome::Fault).collect();
    if let (Some(audio), Some(visual)) = (&audio, &visual) {
        outcomes.push(Outcome::Both(Arc::new(audio.meet(visual))));
    }
    for (modality, record) in Modality::ALL.into_iter().zip([audio, visual]) {
        outcomes.extend(record.map(|record| Outcome::Of(modality, Arc::new(record))));
    }
    outcomes
}

/// What is known of one modality of a video.
struct Labelling<'a> {
    modality: Modality,
    tracks: Vec<Track>,
    predicted: Option<&'a Predicted>,
    marks: &'a [Mark],
}

impl<'a> Labelling<'a> {
    fn of(modality: Modality, facts: &[&'a Fact]) -> Labelling<'a> {
        let of_track = |fact: &&&Fact| matches!(fact, Fact::Track(of, ..) if *of == modality);
        let mut own = Labelling {
            modality,
            // As many as there are: a growing list takes room for four.
            tracks: Vec::with_capacity(facts.iter().filter(of_track).count()),
            predicted: None,
            marks: &[],
        };
        for fact in facts {
            match fact {
                // Facts come in order, so the classes ascend.
                Fact::Track(of, class, bits) if *of == modality => {
                    own.tracks.push(Track::plg(*class, bits.clone()));
                }
                Fact::Predicted(predicted) if predicted.modality == modality => {
                    own.predicted = Some(predicted);
                }
                Fact::Marked(of, marks) if *of == modality => own.marks = &marks.classes,
                _ => {}
            }
        }
        own
    }

    /// PLG, then PLD, then a person.
    fn finish(mut self, faults: &mut Vec<Fault>) -> Option<LabelRecord> {
        self.denoise(faults);
        self.mark(faults);
        let tracks = self.tracks;
        (!tracks.is_empty()).then_some(LabelRecord { tracks })
    }

    fn denoise(&mut self, faults: &mut Vec<Fault>) {
        let (Some(predicted), Some(first)) = (self.predicted, self.tracks.first()) else {
            return;
        };
        let (modality, prediction) = (self.modality, &predicted.prediction);
        let expected = first.label.len() as u32;
        if prediction.segments() != expected {
            faults.push(Fault::Prediction {
                modality,
                epoch: prediction.epoch(),
                segments: prediction.segments(),
                expected,
            });
            return;
        }
        for track in &mut self.tracks {
            faults.extend(denoise_track(predicted, track));
        }
    }

    fn mark(&mut self, faults: &mut Vec<Fault>) {
        let modality = self.modality;
        let said = self.marks.iter().filter(|mark| mark.says_something());
        if self.tracks.is_empty() {
            let why = MarkFault::Unlabelled;
            faults.extend(said.take(1).map(|_| Fault::Mark { modality, why }));
            return;
        }
        for mark in said {
            match self.tracks.binary_search_by_key(&mark.class, |track| track.class) {
                Ok(at) => faults.extend(mark.apply(modality, &mut self.tracks[at])),
                Err(_) => faults.push(Fault::Mark {
                    modality,
                    why: MarkFault::Class(mark.class),
                }),
            }
        }
    }
}
