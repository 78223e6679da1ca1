//! Whether an epoch improves the labels of videos with dense truth, and by which denoising rule.
//!
//! ```text
//! rules × videos ── own F-score of the labels, before and after ─▶ gains ─┬─ best on all videos ────▶ the rule
//!                                                                         └─ best on the other folds ▶ held-out gain
//! ```
//!
//! The gain of a rule is the mean over the videos of the change of the F-score of the modality. A rule that was chosen on the
//! same videos would gain too much, so the reported gain of each fold is that of the rule which the other folds choose. Its
//! standard error is that of a mean of paired differences.

use std::fmt;

use vaplan_dataflows::DenoisingRule;
use vaplan_dataflows::denoising::RuleParameters;
use vaplan_schemas::Modality;

use super::CalibrationMetric;
use super::sample::CalibrationVideo;
use crate::eval::Evaluator;
use crate::world::Both;
use crate::world::settings::LabelSettings;

/// Number of folds.
const FOLDS: usize = 5;
/// Standard errors by which the held-out gain must exceed 0. The true gain of one in 40 accepted rules is then below 0, if
/// the videos with dense truth are drawn like all others.
const LEAST_ERRORS: f64 = 2.0;

/// The rules that are tried. The default rule is one of them.
const ALPHA: [f64; 3] = [3.0, 10.0, 30.0];
const GUARD: [f64; 3] = [0.5, 0.7, 0.9];
const CLEAR: [f64; 6] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5];
const SET: [f64; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Scales of rule `margin`, in standard deviations of the margins of the videos.
const SCALE: [f64; 7] = [0.03, 0.06, 0.09, 0.125, 0.25, 0.5, 1.0];
const BIAS: [f64; 7] = [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5];

/// The best denoising rule on videos with dense truth, and its gain on videos that did not choose it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DenoisingGain {
    /// The rule with the highest gain on all videos.
    #[serde(serialize_with = "by_text", deserialize_with = "from_text")]
    pub rule: DenoisingRule,
    /// Number of videos.
    pub videos: usize,
    /// Gain on all videos, in points of the F-score (percent).
    pub in_sample: f64,
    /// Gain on each fold of the rule that the other folds choose, in points.
    pub held_out: f64,
    /// Standard error of the held-out gain, in points.
    pub error: f64,
}

fn by_text<S: serde::Serializer>(rule: &DenoisingRule, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(rule)
}

/// Reads a rule as its text shows it: the name, and each parameter as `name=value`.
fn from_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<DenoisingRule, D::Error> {
    use serde::Deserialize as _;
    use serde::de::Error as _;
    let text = String::deserialize(from)?;
    let mut words = text.split(' ');
    let name = words.next().unwrap_or_default();
    let parameter = |word: &str| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    let parameters: Option<RuleParameters> = words.map(parameter).collect();
    let parameters = parameters.ok_or_else(|| {
        D::Error::custom(format!(
            "the denoising rule is `{text}`, expected NAME PARAMETER=VALUE .."
        ))
    })?;
    DenoisingRule::new(name, &parameters).map_err(D::Error::custom)
}

impl fmt::Display for DenoisingGain {
    /// The rule, its gain and what follows from it, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.is_gain() {
            true => "taken",
            false => "no gain by more than two standard errors: no label is changed",
        };
        write!(
            f,
            "rule chosen on {} videos of val: {}; labels {:+.1} points, held out {:+.1} ± {:.1}: {verdict}",
            self.videos, self.rule, self.in_sample, self.held_out, self.error
        )
    }
}

impl DenoisingGain {
    /// Whether the held-out gain is above 0 by more than two standard errors.
    pub fn is_gain(&self) -> bool {
        self.held_out > LEAST_ERRORS * self.error
    }
}

/// Chooses a rule for the labels of these modalities, and measures its gain by cross-validation. Returns `None` for fewer than
/// two videos per fold.
pub fn denoising_gain(
    videos: &[CalibrationVideo],
    settings: &LabelSettings,
    modalities: &[Modality],
) -> Option<DenoisingGain> {
    if videos.len() < 2 * FOLDS || modalities.is_empty() {
        return None;
    }
    let before: Vec<f64> = scores(videos, settings, modalities, None);
    let tried = rules(videos, settings, modalities).map(|rule| {
        let after = scores(videos, settings, modalities, Some(rule));
        let gains = differences(&after, &before);
        (rule, gains)
    });
    let tried: Vec<(DenoisingRule, Vec<f64>)> = tried.collect();
    let best = |counts: &dyn Fn(usize) -> bool| {
        let sum = |gains: &[f64]| -> f64 {
            let counted = gains.iter().enumerate().filter(|(nth, _)| counts(*nth));
            counted.map(|(_, gain)| gain).sum()
        };
        // The first of equally good rules wins: the default rule is first.
        let mut best = (0, f64::NEG_INFINITY);
        for (nth, (_, gains)) in tried.iter().enumerate() {
            let sum = sum(gains);
            if sum > best.1 {
                best = (nth, sum);
            }
        }
        best.0
    };
    let chosen = best(&|_| true);
    let mut held = vec![0.0; videos.len()];
    for fold in 0..FOLDS {
        let own = &tried[best(&|nth| nth % FOLDS != fold)].1;
        for nth in (fold..videos.len()).step_by(FOLDS) {
            held[nth] = own[nth];
        }
    }
    let (held_out, error) = mean_and_error(&held);
    Some(DenoisingGain {
        rule: tried[chosen].0,
        videos: videos.len(),
        in_sample: mean_and_error(&tried[chosen].1).0,
        held_out,
        error,
    })
}

/// Every rule that is tried, the default rule first.
fn rules(
    videos: &[CalibrationVideo],
    settings: &LabelSettings,
    modalities: &[Modality],
) -> impl Iterator<Item = DenoisingRule> {
    let k = 5;
    let pld = ALPHA
        .into_iter()
        .flat_map(move |alpha| {
            GUARD.map(|guard| DenoisingRule::pld(k, alpha, guard).expect("the grid is valid"))
        })
        .filter(|rule| *rule != DenoisingRule::default());
    let bounds = CLEAR
        .into_iter()
        .flat_map(|clear| SET.map(|set| DenoisingRule::bounds(clear, set).expect("the grid is valid")));
    let deviation = deviation_of_margins(videos, settings, modalities);
    let scales = SCALE.map(|share| rounded(share * deviation));
    let scales = scales
        .into_iter()
        .filter(|scale| scale.is_finite() && *scale > 0.0);
    let margin = scales
        .flat_map(|scale| BIAS.map(|bias| DenoisingRule::margin(scale, bias).expect("the grid is valid")));
    std::iter::once(DenoisingRule::default())
        .chain(pld)
        .chain(bounds)
        .chain(margin)
}

/// Standard deviation of score minus threshold, over all segments of the tracks of these modalities.
fn deviation_of_margins(
    videos: &[CalibrationVideo],
    settings: &LabelSettings,
    modalities: &[Modality],
) -> f64 {
    let margins = || {
        modalities.iter().flat_map(move |modality| {
            let settings = settings.of(*modality);
            let tracks = videos.iter().flat_map(|video| &video.tracks[modality.index()]);
            tracks.flat_map(move |(class, scores)| {
                let threshold = settings.score_threshold(*class);
                scores.iter().map(move |score| score - threshold)
            })
        })
    };
    let count = margins().count() as f64;
    let mean = margins().sum::<f64>() / count;
    (margins().map(|margin| (margin - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// The number with two digits, so that people can read the rule that was chosen.
fn rounded(value: f64) -> f64 {
    format!("{value:.1e}").parse().expect("a number in digits")
}

/// The F-score of each video's labels, the mean of the modalities, in percent.
fn scores(
    videos: &[CalibrationVideo],
    settings: &LabelSettings,
    modalities: &[Modality],
    rule: Option<DenoisingRule>,
) -> Vec<f64> {
    let mut rules: Both<Option<DenoisingRule>> = [None, None];
    for modality in modalities {
        rules[modality.index()] = rule;
    }
    let score = |video: &CalibrationVideo| {
        let mut evaluator = Evaluator::new(settings.audio.thresholds.len());
        evaluator.add(&video.labels(settings, &rules), &video.truth);
        let level = evaluator.scores().expect("there is a video").segment;
        let own = modalities
            .iter()
            .map(|modality| CalibrationMetric::Own.of(&level, *modality));
        own.sum::<f64>() / modalities.len() as f64
    };
    videos.iter().map(score).collect()
}

/// The gain of each video.
fn differences(after: &[f64], before: &[f64]) -> Vec<f64> {
    after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

/// Mean, and standard error of the mean.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;
    use vaplan_dataflows::rule::Rule;
    use vaplan_dataflows::{CandidateRule, Prediction, Probability, VideoId};
    use vaplan_schemas::ClassId;

    use super::*;
    use crate::eval::VideoParse;
    use crate::world::settings::ModalitySettings;

    /// Videos of one class and four segments. The event is in segments 0 and 1, and the scores set 0 and 2. `right` of the
    /// videos get the truth as probabilities, and the others its opposite.
    fn videos(count: usize, right: usize) -> Vec<CalibrationVideo> {
        let video = |nth: usize| {
            let mut truth = VideoParse::new(1, 4);
            (0..2).for_each(|segment| truth.visual.put(0, segment, true));
            let event = [0.95, 0.9, 0.1, 0.05];
            let probability = |p: f32| Probability::new(if nth < right { p } else { 1.0 - p });
            let prediction = Prediction::new(1, 4, vec![ClassId(0)], event.map(probability).to_vec());
            CalibrationVideo {
                id: VideoId::of(&nth.to_string()),
                segments: 4,
                tracks: [Vec::new(), vec![(ClassId(0), vec![0.9, 0.1, 0.9, 0.1])]],
                truth,
                predictions: [None, Some(Arc::new(prediction))],
            }
        };
        (0..count).map(video).collect()
    }

    fn settings(classes: usize) -> LabelSettings {
        let own = ModalitySettings {
            rule: Rule::Logit { scale: 1.0 },
            thresholds: vec![0.5; classes],
        };
        LabelSettings {
            audio: own.clone(),
            visual: own,
            candidates: CandidateRule::Weak,
        }
    }

    #[test]
    fn right_predictions_gain_and_opposite_ones_do_not() {
        let gain = |right| denoising_gain(&videos(40, right), &settings(1), &[Modality::Visual]).unwrap();
        let good = gain(40);
        // F rises from 0.5 to 1 in every video.
        assert!(
            (good.held_out - 50.0).abs() < 1e-9 && good.error < 1e-9,
            "{good:?}"
        );
        assert!(good.is_gain());
        let bad = gain(0);
        assert!(!bad.is_gain(), "{bad:?}");
        let few = gain(4);
        assert!(!few.is_gain(), "most videos lose: {few:?}");
    }

    #[test]
    fn a_rule_that_flips_nothing_is_chosen_if_every_flip_harms() {
        let bad = denoising_gain(&videos(40, 0), &settings(1), &[Modality::Visual]).unwrap();
        assert_eq!((bad.in_sample, bad.held_out), (0.0, 0.0), "{bad:?}");
    }

    #[test]
    fn a_few_videos_tell_nothing() {
        assert_eq!(
            denoising_gain(&videos(9, 9), &settings(1), &[Modality::Visual]),
            None
        );
        assert_eq!(denoising_gain(&videos(40, 40), &settings(1), &[]), None);
    }

    #[test]
    fn a_gain_is_read_again_as_it_was_written() {
        let gain = denoising_gain(&videos(40, 40), &settings(1), &[Modality::Visual]).unwrap();
        let text = serde_json::to_string(&gain).unwrap();
        assert_eq!(serde_json::from_str::<DenoisingGain>(&text).unwrap(), gain);
        for bad in [&*format!("vote {}", gain.rule), &*format!("{} k", gain.rule)] {
            let text = text.replace(&gain.rule.to_string(), bad);
            assert!(serde_json::from_str::<DenoisingGain>(&text).is_err(), "{text}");
        }
        assert!(gain.to_string().ends_with(": taken"), "{gain}");
    }

    /// Videos of three classes, of which one or two are in the weak label. Scores and probabilities are the truth with errors. The
    /// errors of the probabilities last over a video in part, as those of a parser do.
    fn simulated(count: usize, (seed, error): (u64, f64)) -> Vec<CalibrationVideo> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = move || rng.sample::<f64, _>(StandardNormal);
        let video = |nth: usize| {
            let mut truth = VideoParse::new(3, 10);
            let (mut tracks, mut probabilities) = (Vec::new(), vec![Probability::new(0.01); 30]);
            for class in 0..1 + nth % 2 {
                let onset = ((normal().abs() * 4.0) as usize).min(9);
                let offset = (onset + 1 + (normal().abs() * 5.0) as usize).min(10);
                let lasting = normal();
                let mut scores = Vec::new();
                for segment in 0..10 {
                    let event = (onset..offset).contains(&segment);
                    truth.visual.put(class, segment, event);
                    let sign = if event { 1.0 } else { -1.0 };
                    scores.push(0.5 + 0.5 * sign + 0.5 * normal());
                    let logit: f64 = 2.5 * sign + error * (lasting + normal());
                    probabilities[class * 10 + segment] =
                        Probability::new((1.0 / (1.0 + (-logit).exp())) as f32);
                }
                tracks.push((ClassId(class as u32), scores));
            }
            let classes = (0..3).map(ClassId).collect();
            CalibrationVideo {
                id: VideoId::of(&nth.to_string()),
                segments: 10,
                tracks: [Vec::new(), tracks],
                truth,
                predictions: [
                    None,
                    Some(Arc::new(Prediction::new(1, 10, classes, probabilities))),
                ],
            }
        };
        (0..count).map(video).collect()
    }

    #[test]
    fn a_rule_that_reads_margins_wins_where_scores_and_predictions_have_errors_of_their_own() {
        let settings = settings(3);
        let videos = simulated(240, (1, 2.0));
        let gain = denoising_gain(&videos, &settings, &[Modality::Visual]).unwrap();
        assert!(gain.rule.reads_margins() && gain.is_gain(), "{gain:?}");
        let before = scores(&videos, &settings, &[Modality::Visual], None);
        let of = |rule| {
            let after = scores(&videos, &settings, &[Modality::Visual], Some(rule));
            let gains = differences(&after, &before);
            mean_and_error(&gains).0
        };
        let others = rules(&videos, &settings, &[Modality::Visual]).filter(|rule| !rule.reads_margins());
        let best = others.map(of).fold(f64::NEG_INFINITY, f64::max);
        assert!(
            gain.held_out > best + 1.0,
            "{gain:?} against {best} of the best other rule"
        );
    }

    /// Predictions that are much better, a little better, and worse than the labels.
    #[test]
    fn the_held_out_gain_agrees_with_the_gain_on_other_videos_in_9_of_10_seeds() {
        let settings = settings(3);
        for error in [1.0, 2.0, 6.0] {
            let mut agreed = Vec::new();
            for seed in 0..10 {
                let gain =
                    denoising_gain(&simulated(120, (seed, error)), &settings, &[Modality::Visual]).unwrap();
                let others = simulated(480, (1000 + seed, error));
                let before = scores(&others, &settings, &[Modality::Visual], None);
                let after = scores(&others, &settings, &[Modality::Visual], Some(gain.rule));
                let gains = differences(&after, &before);
                let (found, own_error) = mean_and_error(&gains);
                // The gain on the other videos is a mean of a sample, too.
                let interval = 2.0 * gain.error.hypot(own_error);
                agreed.push(((gain.held_out - found).abs() <= interval, gain, found));
            }
            let count = agreed.iter().filter(|(agrees, _, _)| *agrees).count();
            assert!(count >= 9, "error {error}: {count} of 10 agree: {agreed:?}");
        }
    }
}
