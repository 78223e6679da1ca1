//! The one definition of a label: pure functions from what is known of a video to its label matrices with their reasons.
//!
//! ```text
//! scores ─────┬─ score > threshold ─▶ PLG ─┐
//! thresholds ─┘                            ├─ PLD flips ─┐
//! prediction ─┬────────────────────────────┘             ├─ user labels replace ─▶ LabelRecord, rejections
//! settings ───┘                              user labels ┘
//! ```
//!
//! Plain data comes in and plain data goes out. The functions read no clock, no file and no random number, so that equal
//! evidence always gives equal labels. Every path of the program calls them:
//!
//! | caller | function |
//! |---|---|
//! | operator [`threshold`](mod@crate::threshold) | [`plg`] |
//! | operator [`labels`](mod@crate::labels), which both the resident graph and the batch path contain | [`decide_modality`], [`audio_visual`] |
//! | the search for tracks that an epoch flips, before the graph is started | [`plg`], [`decide_track`] |
//! | tests against numbers from outside this project, and the test of the graph | [`decide_video`] |
//!
//! The graph calls the parts, not the whole: a changed threshold then recomputes PLG of the tracks of one class only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::{ClassId, Modality};

use crate::bits::Bits;
use crate::fault::{Fault, MarkFault};
use crate::marks::{Mark, Marks};
use crate::pld::{Pld, flips};
use crate::prediction::Prediction;
use crate::records::{Denoised, LabelRecord, Score, ScoreRecord, Track};

/// A prediction of one video and modality, and the settings that denoising uses with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Denoising {
    /// Probabilities of the parser.
    pub prediction: Arc<Prediction>,
    /// K, α and guard.
    pub settings: Pld,
}

/// Everything that the labels of one video and modality depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModalityEvidence<'a> {
    /// Scores of the classes of the weak label; `None` if the modality has no features.
    pub scores: Option<&'a ScoreRecord>,
    /// Threshold of each class; a class without one gets no track.
    pub thresholds: &'a [(ClassId, Score)],
    /// What denoising goes by; `None` if the modality is not denoised.
    pub denoising: Option<&'a Denoising>,
    /// Labels that a person set.
    pub user_labels: Option<&'a Marks>,
}

/// The labels of one video.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoLabels {
    /// Labels of the audio; `None` if no class has a track.
    pub audio: Option<LabelRecord>,
    /// Labels of the picture; `None` if no class has a track.
    pub visual: Option<LabelRecord>,
    /// Labels that are set in both; `None` if one of the two has no labels.
    pub audio_visual: Option<LabelRecord>,
    /// Predictions and user labels that had no effect, and why.
    pub rejections: Vec<Fault>,
}

/// Decides the labels of one video.
///
/// # Shapes
/// Each modality has its own number of segments T. `scores` holds `[K, T]` for the K classes of the weak label, a
/// prediction holds `[C, T]`, and the labels hold one track `[T]` per class that has both scores and a threshold.
///
/// ```
/// use std::sync::Arc;
/// use vaplan_dataflows::decide::{Denoising, ModalityEvidence, decide_video};
/// use vaplan_dataflows::records::{Cosine, ScoreRecord, SetBy};
/// use vaplan_dataflows::{Mark, Marks, Pld, Prediction, Probability, Score};
/// use vaplan_schemas::ClassId;
///
/// let dog = ClassId(4);
/// let score = |value: f64| Score::new(value).unwrap();
/// let scores = ScoreRecord::new(
///     4,
///     vec![dog],
///     vec![Cosine::new(0.0); 4],
///     [0.1, 0.7, 0.8, 0.9].map(score).to_vec(),
/// );
/// let thresholds = [(dog, score(0.5))];
/// let plg = ModalityEvidence { scores: Some(&scores), thresholds: &thresholds, ..Default::default() };
/// let labels = decide_video(plg, plg);
/// let visual = labels.visual.unwrap();
/// assert_eq!(format!("{:?}", visual.track(dog).unwrap().label), "0111");
/// assert_eq!(labels.audio_visual.unwrap().ones(), 3);
///
/// // The parser contradicts segment 1, and a person sets segment 0.
/// let probabilities = [0.01, 0.02, 0.99, 0.99].map(Probability::new).to_vec();
/// let denoising = Denoising {
///     prediction: Arc::new(Prediction::new(7, 4, vec![dog], probabilities)),
///     settings: Pld::new(3, 10.0, 0.5).unwrap(),
/// };
/// let person = Marks {
///     classes: vec![Mark {
///         class: dog,
///         known: [true, false, false, false].into_iter().collect(),
///         label: [true, false, false, false].into_iter().collect(),
///     }],
/// };
/// let all = ModalityEvidence { denoising: Some(&denoising), user_labels: Some(&person), ..plg };
/// let visual = decide_video(plg, all).visual.unwrap();
/// let track = visual.track(dog).unwrap();
/// assert_eq!(format!("{:?}", track.label), "1011");
/// assert_eq!([0, 1, 2].map(|t| track.set_by(t)), [SetBy::User, SetBy::Pld, SetBy::Plg]);
/// assert_eq!(track.flip(1).unwrap().epoch, 7);
/// ```
pub fn decide_video(audio: ModalityEvidence<'_>, visual: ModalityEvidence<'_>) -> VideoLabels {
    let mut rejections = Vec::new();
    let mut decide = |modality, evidence: ModalityEvidence<'_>| {
        let tracks = evidence.tracks();
        let decided = decide_modality(modality, tracks, evidence.denoising, evidence.user_labels);
        rejections.extend(decided.rejections);
        decided.labels
    };
    let audio = decide(Modality::Audio, audio);
    let visual = decide(Modality::Visual, visual);
    VideoLabels {
        audio_visual: audio_visual(audio.as_ref(), visual.as_ref()),
        audio,
        visual,
        rejections,
    }
}

impl ModalityEvidence<'_> {
    /// PLG labels of each class with scores and a threshold, classes ascending.
    fn tracks(&self) -> Vec<(ClassId, Bits)> {
        let scored = self.scores.into_iter().flat_map(ScoreRecord::tracks);
        let track = |(class, _, scores): (ClassId, _, &[Score])| {
            let threshold = self.thresholds.iter().find(|(of, _)| *of == class)?.1;
            Some((class, plg(scores, threshold)))
        };
        scored.filter_map(track).collect()
    }
}

/// PLG labels of one track: a label is set if its score is above the threshold, strict.
///
/// # Shapes
/// `scores`: `[T]`; returns `[T]`.
///
/// # Source
/// METHOD.md, PLG 3: `softmax` (grade D), `logit` (grade C: VALOR, `get_segment_pseudo_labels` in
/// `utils/clip_preprocess.py`; like there, a score equal to the threshold sets no label).
///
/// ```
/// use vaplan_dataflows::Score;
/// use vaplan_dataflows::decide::plg;
/// let scores = [0.4, 0.5, 0.6].map(|value| Score::new(value).unwrap());
/// assert_eq!(format!("{:?}", plg(&scores, scores[1])), "001");
/// ```
pub fn plg(scores: &[Score], threshold: Score) -> Bits {
    scores.iter().map(|&score| score > threshold).collect()
}

/// What [`decide_modality`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModalityLabels {
    /// Labels; `None` if there was no track.
    pub labels: Option<LabelRecord>,
    /// Predictions and user labels that had no effect, and why.
    pub rejections: Vec<Fault>,
}

/// Decides the labels of one modality from its PLG labels: PLD flips them, then user labels replace them.
///
/// A prediction with another number of segments than the labels is rejected as a whole. A user label is rejected if its
/// class or segment has no label. Denoising without any track is passed over.
///
/// # Shapes
/// `tracks`: one `[T]` per class, classes strictly ascending, all of the same T.
pub fn decide_modality(
    modality: Modality,
    tracks: Vec<(ClassId, Bits)>,
    denoising: Option<&Denoising>,
    user_labels: Option<&Marks>,
) -> ModalityLabels {
    let mut rejections = Vec::new();
    let segments = tracks.first().map(|(_, label)| label.len() as u32);
    let denoising = match (denoising, segments) {
        (Some(own), Some(expected)) if own.prediction.segments() != expected => {
            rejections.push(Fault::Prediction {
                modality,
                epoch: own.prediction.epoch(),
                segments: own.prediction.segments(),
                expected,
            });
            None
        }
        (own, _) => own,
    };
    // As many as there are: a growing list takes room for four.
    let mut decided = Vec::with_capacity(tracks.len());
    for (class, label) in tracks {
        let (track, rejected) = decide_track(modality, class, label, denoising);
        rejections.extend(rejected);
        decided.push(track);
    }
    let user_labels = user_labels.map_or(&[][..], |own| &own.classes);
    set_by_user(modality, &mut decided, user_labels, &mut rejections);
    ModalityLabels {
        labels: (!decided.is_empty()).then_some(LabelRecord { tracks: decided }),
        rejections,
    }
}

/// Decides one track from its PLG labels, without user labels. The rejection names the first value of the prediction that
/// is no probability; such a value flips no label. A class that was not predicted keeps its PLG labels.
///
/// # Shapes
/// `label`: `[T]`; the prediction has T segments, too.
///
/// # Panics
/// If the prediction has another number of segments: [`decide_modality`] rejects it before.
pub fn decide_track(
    modality: Modality,
    class: ClassId,
    label: Bits,
    denoising: Option<&Denoising>,
) -> (Track, Option<Fault>) {
    let mut track = Track::plg(class, label);
    let predicted = denoising.and_then(|own| Some((own, own.prediction.of(class)?)));
    let Some((Denoising { prediction, settings }, probabilities)) = predicted else {
        return (track, None);
    };
    assert_eq!(probabilities.len(), track.label.len(), "segments");
    let found = flips(&track.label, probabilities, *settings);
    if found.flipped.ones() > 0 {
        let score = |value: f64| Score::new(value).expect("losses of probabilities are numbers");
        let losses = found.losses.iter().zip(found.flipped.iter());
        track.denoised = Some(Arc::new(Denoised {
            epoch: prediction.epoch(),
            settings: *settings,
            base: score(found.base.expect("a label that flips has a loss")),
            losses: losses
                .filter(|(_, flipped)| *flipped)
                .map(|(loss, _)| score(loss.expect("a label that flips has a loss")))
                .collect(),
        }));
        let labels = track.label.iter().zip(found.flipped.iter());
        track.label = labels.map(|(label, flipped)| label != flipped).collect();
        track.pld = found.flipped;
    }
    let bad = found.losses.iter().position(Option::is_none);
    let rejection = bad.map(|segment| Fault::Probability {
        modality,
        epoch: prediction.epoch(),
        class,
        segment: segment as u32,
        value: probabilities[segment],
    });
    (track, rejection)
}

/// Puts user labels on top of the labels of PLG and PLD.
fn set_by_user(modality: Modality, tracks: &mut [Track], user_labels: &[Mark], rejections: &mut Vec<Fault>) {
    let said = user_labels.iter().filter(|own| own.says_something());
    if tracks.is_empty() {
        let why = MarkFault::Unlabelled;
        rejections.extend(said.take(1).map(|_| Fault::Mark { modality, why }));
        return;
    }
    for own in said {
        match tracks.binary_search_by_key(&own.class, |track| track.class) {
            Ok(at) => rejections.extend(own.apply(modality, &mut tracks[at])),
            Err(_) => rejections.push(Fault::Mark {
                modality,
                why: MarkFault::Class(own.class),
            }),
        }
    }
}

/// Labels that are set in both modalities: an audio-visual event is audible and visible (METHOD.md, grade C).
pub fn audio_visual(audio: Option<&LabelRecord>, visual: Option<&LabelRecord>) -> Option<LabelRecord> {
    Some(audio?.meet(visual?))
}
