//! Chooses a threshold for each class and modality from features and weak labels alone, without dense truth.
//!
//! ```text
//! segments of videos without the class ── mean, deviation ─▶ scores where the class does not occur ─┐
//! segments of videos with the class ────── mixture of both ◀────────────────────────────────────────┘
//!                                               └─▶ threshold: an event is as likely as none
//! ```
//!
//! A weak label is complete: a class outside the weak label of a video occurs nowhere in the video. The segments of these
//! videos therefore show which scores a class gets where it does not occur. In the videos of the class, the scores are a
//! mixture of such segments and of segments with the event. [`mixture`] fits the mixture.
//!
//! This way is our own (grade D). docs/method.md, "Thresholds from weak labels", has the formulas, and docs/results.md
//! what it gains.

pub mod kept;
pub mod mixture;

use std::ops::ControlFlow;
use std::sync::Arc;

use vaplan_dataflows::CandidateRule;
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::similarity::{PromptEmbeddings, PromptPair};
use vaplan_schemas::{ClassId, Modality};

use self::kept::ThresholdFit;
use self::mixture::{Moments, threshold};
use crate::engine::plan::PlannedShard;
use crate::ingest::features::{FeatureBatch, FeatureEvent};
use crate::world::settings::LabelSettings;
use crate::world::shares::EventShares;
use crate::world::{Meaning, VideoSet};

/// Number of videos above which only a part of the shards is read. 10,000 videos of 10 segments give every class of
/// LLP thousands of scores.
const MOST_VIDEOS: usize = 10_000;
/// Least number of videos of a class. A class with fewer videos keeps its threshold.
const LEAST_VIDEOS: usize = 20;
/// Rows that are scored at once.
const BATCH_ROWS: usize = 256;

/// The scores of one class.
#[derive(Clone, Debug, Default)]
struct ClassScores {
    /// Scores in videos without the class.
    without: Moments,
    /// Scores in videos with the class.
    with: Vec<f32>,
    /// Number of videos with the class.
    videos: usize,
}

/// The videos, and what an empty weak label means.
struct WeakVideos<'a> {
    videos: &'a VideoSet,
    /// Whether an empty weak label tells nothing. Otherwise it tells that no class occurs in the video.
    empty_is_unknown: bool,
}

/// Fits the thresholds of every class whose weak labels tell a better one. Other classes keep theirs, and a note says so.
///
/// The result depends only on the shards, the prompts, the weak labels, the rule and the shares. Of more than 10,000 videos,
/// every n-th shard is read, so that time and memory do not grow with the number of videos.
pub fn fit_thresholds(
    (settings, shares): (&LabelSettings, EventShares),
    (classes, prompts): (&[Arc<str>], &PromptPair),
    videos: &VideoSet,
    shards: &[PlannedShard],
) -> ThresholdFit {
    let known = WeakVideos {
        videos,
        empty_is_unknown: settings.candidates != CandidateRule::Weak,
    };
    let stride = videos.len().div_ceil(MOST_VIDEOS).max(1);
    let mut fit = ThresholdFit {
        thresholds: [
            settings.audio.thresholds.clone(),
            settings.visual.thresholds.clone(),
        ],
        notes: Vec::new(),
    };
    for modality in Modality::ALL {
        let rule = settings.of(modality).rule;
        let thresholds = &mut fit.thresholds[modality.index()];
        let shards = shards.iter().filter(|shard| shard.modality == modality);
        let found = scores(shards.step_by(stride), (prompts.of(modality), rule), &known);
        let mut kept = Vec::new();
        for (class, scores) in found.into_iter().enumerate() {
            let known = scores.videos;
            let fitted = (known >= LEAST_VIDEOS)
                .then(|| match shares.0[modality.index()] {
                    Some(share) => quantile(scores.with, share),
                    None => threshold(&scores.without, &scores.with),
                })
                .flatten();
            match fitted {
                Some(point) => thresholds[class] = rounded(as_threshold(rule, point)),
                None => kept.push((class, known)),
            }
        }
        if let Some((class, videos)) = kept.first() {
            let reason = match videos < &LEAST_VIDEOS {
                true => {
                    format!("{videos} videos with this class were read, expected at least {LEAST_VIDEOS}")
                }
                false => "its scores are not higher in videos with this class".to_owned(),
            };
            fit.notes.push(format!(
                "the weak labels tell no {modality} threshold of {} of {} classes, which keep theirs; class `{}` keeps {}: \
                 {reason}",
                kept.len(),
                classes.len(),
                classes[*class],
                thresholds[*class]
            ));
        }
    }
    fit
}

/// The threshold above which this share of the scores is. Returns `None` without scores.
///
/// The result is in the middle between the lowest score above and the highest score below. If no score is below, it is 1 less than
/// the lowest score.
///
/// Source: quantile matching to a prior, a known way to threshold scores without labels. VALOR (arXiv 2305.17343) chooses its
/// thresholds on val instead; the shares come from the user (grade D).
///
/// ```
/// use vaplan::label::fit::quantile;
/// assert_eq!(quantile(vec![4.0, 1.0, 3.0, 2.0], 0.25), Some(3.5));
/// assert_eq!(quantile(vec![4.0, 1.0, 3.0, 2.0], 0.5), Some(2.5));
/// assert_eq!(quantile(Vec::new(), 0.5), None);
/// ```
pub fn quantile(mut scores: Vec<f32>, share: f64) -> Option<f64> {
    scores.sort_by(f32::total_cmp);
    let above = ((share * scores.len() as f64).round() as usize).clamp(1, scores.len().max(1));
    let at = scores.len().checked_sub(above)?;
    let lowest = f64::from(*scores.get(at)?);
    Some(match at.checked_sub(1) {
        Some(before) => 0.5 * (f64::from(scores[before]) + lowest),
        None => lowest - 1.0,
    })
}

/// The scores of every class in these shards. Videos that cannot be read or scored are left out: labelling reports them.
fn scores<'a>(
    shards: impl Iterator<Item = &'a PlannedShard>,
    (prompts, rule): (&PromptEmbeddings, Rule),
    videos: &WeakVideos<'_>,
) -> Vec<ClassScores> {
    let mut found = vec![ClassScores::default(); prompts.classes()];
    for planned in shards {
        planned.shard.read(BATCH_ROWS, &mut |event| {
            if let FeatureEvent::Batch(batch) = event
                && batch.width == prompts.width()
            {
                add(&batch, (prompts, rule), videos, &mut found);
            }
            ControlFlow::Continue(())
        });
    }
    found
}

fn add(
    batch: &FeatureBatch,
    (prompts, rule): (&PromptEmbeddings, Rule),
    WeakVideos {
        videos,
        empty_is_unknown,
    }: &WeakVideos<'_>,
    found: &mut [ClassScores],
) {
    let classes = prompts.classes();
    let (cosines, rejected) = prompts.cosines(&batch.data);
    let mut row = 0;
    let mut values = vec![0.0; classes];
    for span in &batch.videos {
        let rows = row..row + span.segments as usize;
        row = rows.end;
        let Meaning::Video(position) = videos.meaning(&span.key) else {
            continue;
        };
        if rejected.iter().any(|(bad, _)| rows.contains(bad)) {
            continue;
        }
        let weak = videos.at(position).weak;
        // Without a weak label, nothing is known of any class, and no class counts as absent.
        if *empty_is_unknown && weak.is_empty() {
            continue;
        }
        let has = |class: usize| weak.binary_search(&ClassId(class as u32)).is_ok();
        (0..classes)
            .filter(|class| has(*class))
            .for_each(|class| found[class].videos += 1);
        for row in rows {
            rule.score(&cosines[row * classes..(row + 1) * classes], &mut values);
            for (class, score) in values.iter().enumerate() {
                let point = as_point(rule, *score, classes);
                match has(class) {
                    true => found[class].with.push(point as f32),
                    false => found[class].without.add(point),
                }
            }
        }
    }
}

/// The value whose distribution is fitted: ln(q · C) of a softmax score q over C classes, and a logit as it is.
///
/// The probability of a softmax with κ = 1 is nearly the exponential of the cosine, so that its logarithm has the
/// distribution of the cosines.
fn as_point(rule: Rule, score: f64, classes: usize) -> f64 {
    match rule {
        Rule::Softmax { .. } => (score * classes as f64).max(f64::MIN_POSITIVE).ln(),
        Rule::Logit { .. } => score,
    }
}

/// The inverse of [`as_point`], as a user gives a threshold.
fn as_threshold(rule: Rule, point: f64) -> f64 {
    match rule {
        Rule::Softmax { .. } => point.exp(),
        Rule::Logit { .. } => point,
    }
}

/// A threshold with four decimals, so that tables and files stay readable.
fn rounded(threshold: f64) -> f64 {
    (threshold * 1e4).round() / 1e4
}
