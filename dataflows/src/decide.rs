//! The one definition of a label: pure functions from the evidence about a video to its label matrices, with reasons.
//!
//! ```text
//! scores ─────┬─ score > threshold ─▶ PLG ─────┐
//! thresholds ─┴─ score − threshold ─▶ margins ─┤
//! prediction ─┬────────────────────────────────┴─ flips ─┬─ user labels replace ─▶ LabelRecord, rejections
//! rule ───────┘                             user labels ─┘
//! ```
//!
//! The functions take and return plain data. They read no clock, no file and no random number, so equal evidence always
//! gives equal labels. Every path of the program calls them:
//!
//! | caller | function |
//! |---|---|
//! | operator [`threshold`](mod@crate::threshold) | [`plg`], [`margins`] |
//! | operator [`labels`](mod@crate::labels), in the resident graph and in the batch path | [`decide_modality`] |
//! | [`VideoOutcome`](crate::outcome::VideoOutcome), for labels that are set in both modalities | [`audio_visual`] |
//! | the search for tracks that an epoch flips, before the graph is started | [`PlgTrack::new`], [`decide_track`] |
//! | tests against numbers from outside this project, and the test of the graph | [`decide_video`] |
//!
//! The graph calls the parts and not [`decide_video`], so that a changed threshold recomputes PLG of the tracks of one
//! class only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::{ClassId, Modality};

use crate::bits::Bits;
use crate::denoising::DenoisingRule;
use crate::flips::PredictedTrack;
use crate::prediction::Prediction;
use crate::records::{Denoised, LabelRecord, Score, ScoreRecord, Track};
use crate::rejection::{Rejection, UserLabelRejection};
use crate::user_labels::{UserLabelRecord, UserLabelTrack};

/// A prediction of one video and modality, and the rule that denoising uses with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Denoising {
    /// Probabilities of the parser.
    pub prediction: Arc<Prediction>,
    /// The rule that decides which labels the prediction flips.
    pub rule: DenoisingRule,
}

/// All data that the labels of one video and modality depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModalityEvidence<'a> {
    /// Scores of the classes of the weak label; `None` if the modality has no features.
    pub scores: Option<&'a ScoreRecord>,
    /// Threshold of each class; a class without one gets no track.
    pub thresholds: &'a [(ClassId, Score)],
    /// Prediction and rule for denoising; `None` if the modality is not denoised.
    pub denoising: Option<&'a Denoising>,
    /// Labels that a person set.
    pub user_labels: Option<&'a UserLabelRecord>,
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
    pub rejections: Vec<Rejection>,
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
/// use vaplan_dataflows::{UserLabelTrack, UserLabelRecord, DenoisingRule, Prediction, Probability, Score};
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
///     rule: DenoisingRule::pld(3, 10.0, 0.5).unwrap(),
/// };
/// let person = UserLabelRecord {
///     classes: vec![UserLabelTrack {
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
    /// Returns the PLG labels of each class that has scores and a threshold, classes ascending.
    fn tracks(&self) -> Vec<PlgTrack> {
        let rule = self.denoising.map(|own| own.rule);
        let scored = self.scores.into_iter().flat_map(ScoreRecord::tracks);
        let track = |(class, _, scores): (ClassId, _, &[Score])| {
            let threshold = self.thresholds.iter().find(|(of, _)| *of == class)?.1;
            Some(PlgTrack::new(class, scores, threshold, rule))
        };
        scored.filter_map(track).collect()
    }
}

/// Returns the PLG labels of one track: a label is set if its score is above the threshold (strictly).
///
/// # Shapes
/// `scores`: `[T]`; returns `[T]`.
///
/// # Source
/// docs/method.md, PLG 3: `softmax` (grade D), `logit` (grade C: VALOR, `get_segment_pseudo_labels` in
/// `utils/clip_preprocess.py`; as in that code, a score equal to the threshold sets no label).
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

/// Returns the margin of each score: the score minus the threshold. It is above 0 where [`plg`] sets a label.
///
/// # Shapes
/// `scores`: `[T]`; returns `[T]`.
///
/// ```
/// use vaplan_dataflows::Score;
/// use vaplan_dataflows::decide::margins;
/// let scores = [0.25, 0.5, 1.0].map(|value| Score::new(value).unwrap());
/// assert_eq!(margins(&scores, scores[1])[..], [-0.25, 0.0, 0.5].map(|value| Score::new(value).unwrap()));
/// ```
pub fn margins(scores: &[Score], threshold: Score) -> Arc<[Score]> {
    // Only infinity minus infinity is no number. Such a score equals its threshold.
    let margin = |score: &Score| Score::new(score.get() - threshold.get()).or(Score::new(0.0));
    scores
        .iter()
        .map(|score| margin(score).expect("0 is a number"))
        .collect()
}

/// The PLG labels of one track, and what the denoising rule reads beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlgTrack {
    /// Class of the track.
    pub class: ClassId,
    /// Labels of [`plg`].
    pub label: Bits,
    /// Score minus threshold of each segment ([`margins`]); needed if the denoising rule
    /// [reads margins](DenoisingRule::reads_margins).
    pub margins: Option<Arc<[Score]>>,
}

impl PlgTrack {
    /// Makes the labels, and the margins if `rule` reads them.
    ///
    /// # Shapes
    /// `scores`: `[T]`.
    pub fn new(class: ClassId, scores: &[Score], threshold: Score, rule: Option<DenoisingRule>) -> PlgTrack {
        let reads = rule.is_some_and(|rule| rule.reads_margins());
        PlgTrack {
            class,
            label: plg(scores, threshold),
            margins: reads.then(|| margins(scores, threshold)),
        }
    }
}

/// What [`decide_modality`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModalityLabels {
    /// Labels; `None` if there was no track.
    pub labels: Option<LabelRecord>,
    /// Predictions and user labels that had no effect, and why.
    pub rejections: Vec<Rejection>,
}

/// Decides the labels of one modality from its PLG labels: PLD flips them, then user labels replace them.
///
/// If a prediction and the labels have different numbers of segments, the whole prediction is rejected. A user label is
/// rejected if its class or segment has no label. If there is no track, denoising is ignored without a rejection.
///
/// # Shapes
/// `tracks`: one `[T]` per class, classes strictly ascending, all of the same T.
///
/// # Panics
/// Panics if the denoising rule reads margins and a track has none.
pub fn decide_modality(
    modality: Modality,
    tracks: Vec<PlgTrack>,
    denoising: Option<&Denoising>,
    user_labels: Option<&UserLabelRecord>,
) -> ModalityLabels {
    let mut rejections = Vec::new();
    let segments = tracks.first().map(|track| track.label.len() as u32);
    let denoising = match (denoising, segments) {
        (Some(own), Some(expected)) if own.prediction.segments() != expected => {
            rejections.push(Rejection::Prediction {
                modality,
                epoch: own.prediction.epoch(),
                segments: own.prediction.segments(),
                expected,
            });
            None
        }
        (own, _) => own,
    };
    // The exact capacity saves memory: a vector that grows by itself allocates room for at least four tracks.
    let mut decided = Vec::with_capacity(tracks.len());
    for track in tracks {
        let (track, rejected) = decide_track(modality, track, denoising);
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

/// Decides one track from its PLG labels, without user labels.
///
/// A value of the prediction that is not a probability flips no label; the rejection names the first such value. A
/// class that was not predicted keeps its PLG labels.
///
/// # Shapes
/// The track has T segments, and the prediction, too.
///
/// # Panics
/// Panics if the prediction has another number of segments than the track. [`decide_modality`] rejects such a prediction
/// before. Also panics if the denoising rule reads margins and the track has none.
pub fn decide_track(
    modality: Modality,
    PlgTrack {
        class,
        label,
        margins,
    }: PlgTrack,
    denoising: Option<&Denoising>,
) -> (Track, Option<Rejection>) {
    let mut track = Track::plg(class, label);
    let predicted = denoising.and_then(|own| Some((own, own.prediction.of(class)?)));
    let Some((Denoising { prediction, rule }, probabilities)) = predicted else {
        return (track, None);
    };
    assert_eq!(probabilities.len(), track.label.len(), "segments");
    let found = rule.flips(PredictedTrack {
        labels: &track.label,
        margins: margins.as_deref(),
        probabilities,
    });
    if found.flipped.ones() > 0 {
        let score = |value: f64| Score::new(value).expect("losses of probabilities are numbers");
        let losses = found.losses.iter().zip(found.flipped.iter());
        track.denoised = Some(Arc::new(Denoised {
            epoch: prediction.epoch(),
            rule: *rule,
            base: found.base.map(score),
            losses: losses
                .filter(|(_, flipped)| *flipped)
                .map(|(loss, _)| score(loss.expect("a label that flips has a loss")))
                .collect(),
        }));
        let labels = track.label.iter().zip(found.flipped.iter());
        track.label = labels.map(|(label, flipped)| label != flipped).collect();
        track.pld = found.flipped;
    }
    let rejection = found.invalid.map(|segment| Rejection::Probability {
        modality,
        epoch: prediction.epoch(),
        class,
        segment: segment as u32,
        value: probabilities[segment],
    });
    (track, rejection)
}

/// Replaces labels of PLG and PLD by user labels. A user label without a label to replace becomes a rejection.
fn set_by_user(
    modality: Modality,
    tracks: &mut [Track],
    user_labels: &[UserLabelTrack],
    rejections: &mut Vec<Rejection>,
) {
    let said = user_labels.iter().filter(|own| own.says_something());
    if tracks.is_empty() {
        let why = UserLabelRejection::Unlabelled;
        rejections.extend(said.take(1).map(|_| Rejection::UserLabel { modality, why }));
        return;
    }
    for own in said {
        match tracks.binary_search_by_key(&own.class, |track| track.class) {
            Ok(at) => rejections.extend(own.apply(modality, &mut tracks[at])),
            Err(_) => rejections.push(Rejection::UserLabel {
                modality,
                why: UserLabelRejection::Class(own.class),
            }),
        }
    }
}

/// Returns the labels that are set in both modalities: an audio-visual event is audible and visible (docs/method.md, grade
/// C). Returns `None` if one of the two modalities has no labels.
pub fn audio_visual(audio: Option<&LabelRecord>, visual: Option<&LabelRecord>) -> Option<LabelRecord> {
    Some(audio?.meet(visual?))
}
