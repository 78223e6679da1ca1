//! One video with everything that its page shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use vaplan_dataflows::VideoId;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{
    ClassRow, FlipReason, LabelRule, LabelTrack, PredictionTrack, RejectRow, ScoreTrack, Severity, Split,
    TruthRow, VideoRow,
};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Classes, Labels, Rejects, Scores, Truth, Videos};

use super::index::read::IndexBasis;
use crate::error::LabelError;

/// A video of a store version.
///
/// Labels, rules and truth are text with one character per segment, so that a long video stays a small answer: `1` and `0`;
/// `g` for rule `plg`, `d` for `pld` and `u` for `user`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownVideo {
    /// Store version.
    pub version: u64,
    /// Full name.
    pub video: Arc<str>,
    /// Split.
    pub split: Split,
    /// Number of segments.
    pub segments: u32,
    /// Length of a segment in seconds.
    pub segment_seconds: f64,
    /// Weak label.
    pub weak_labels: Vec<Arc<str>>,
    /// Epoch of the predictions.
    pub epoch: Option<u64>,
    /// Tracks in the order of the classes, audio before visual.
    pub tracks: Vec<ShownTrack>,
    /// Modalities without labels, each with the reasons.
    pub missing: Vec<(Modality, Vec<String>)>,
}

/// One modality and class of a video.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownTrack {
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Label of each segment.
    pub labels: String,
    /// Rule that set each label.
    pub rules: String,
    /// Score of each segment, to 6 digits.
    pub scores: Vec<f64>,
    /// The number that scores are compared with.
    pub threshold: Option<f64>,
    /// Probability of each segment from the parser, to 3 decimals; a value that is not a number is null. `None` without
    /// predictions.
    pub probabilities: Option<Vec<Option<f64>>>,
    /// Truth of each segment. `None` if the video has no true event.
    pub truth: Option<String>,
    /// Why PLD flipped labels.
    pub flips: Vec<ShownReason>,
}

/// Why PLD flipped the label of a segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownReason {
    /// Segment.
    pub segment: u32,
    /// Epoch of the predictions.
    pub epoch: u64,
    /// Forward loss.
    pub loss: Option<f64>,
    /// Mean of the `k` smallest losses.
    pub base: Option<f64>,
    /// Factor on the base.
    pub alpha: Option<f64>,
    /// Number of losses in the base.
    pub k: Option<u32>,
}

impl ShownReason {
    fn new(segment: u32, reason: &FlipReason) -> ShownReason {
        ShownReason {
            segment,
            epoch: reason.epoch,
            loss: reason.loss,
            base: reason.limit.map(|limit| limit.base),
            alpha: reason.limit.map(|limit| limit.alpha),
            k: reason.limit.map(|limit| limit.k),
        }
    }
}

/// Reads a video of a version. Returns `None` if the version does not have the video.
///
/// # Errors
/// Returns [`LabelError`] if a table cannot be read.
pub fn read(snapshot: &Snapshot, name: &str) -> Result<Option<ShownVideo>, LabelError> {
    let mut rows = snapshot.read_video::<Videos>(name)?;
    let Some(row) = rows.pop() else {
        return Ok(None);
    };
    let filter = Filter::videos([row.video.clone()]);
    let basis = IndexBasis::read(snapshot)?;
    let predictions = basis.predictions(snapshot, &filter)?;
    let truth = snapshot.scan::<Truth>(&filter)?;
    let truth: Vec<TruthRow> = truth.into_iter().map(|found| found.row).collect();
    let id = VideoId::of(&row.video);
    let mut scores: BTreeMap<(Modality, Arc<str>), ScoreTrack> = snapshot
        .read_video::<Scores>(name)?
        .into_iter()
        .map(|track| ((track.modality, track.class.clone()), track))
        .collect();
    let thresholds: BTreeMap<(Modality, Arc<str>), f64> = snapshot
        .read::<Classes>()?
        .into_iter()
        .map(
            |ClassRow {
                 modality,
                 class,
                 score_threshold,
                 ..
             }| ((modality, class), score_threshold),
        )
        .collect();
    let mut tracks: Vec<(u32, ShownTrack)> = Vec::new();
    for track in snapshot.read_video::<Labels>(name)? {
        let key = (track.modality, track.class.clone());
        let class = basis.position(&track.class);
        let prediction = predictions
            .get(&(id, track.modality))
            .zip(class.and_then(|class| basis.column(class)));
        let scores = scores.remove(&key).map(|track| track.score);
        let shown = ShownTrack {
            threshold: thresholds.get(&key).copied(),
            ..shown(track, scores, prediction, &truth)
        };
        tracks.push((class.unwrap_or(u32::MAX), shown));
    }
    tracks.sort_by(|a, b| (a.0, &a.1.class, a.1.modality).cmp(&(b.0, &b.1.class, b.1.modality)));
    let missing = missing(snapshot, &row, &tracks)?;
    Ok(Some(ShownVideo {
        version: snapshot.version().version,
        video: row.video,
        split: row.split,
        segments: row.segments,
        segment_seconds: row.segment_seconds,
        weak_labels: row.weak_labels,
        epoch: basis.epoch(),
        tracks: tracks.into_iter().map(|(_, track)| track).collect(),
        missing,
    }))
}

fn shown(
    track: LabelTrack,
    scores: Option<Vec<f64>>,
    prediction: Option<(&PredictionTrack, usize)>,
    truth: &[TruthRow],
) -> ShownTrack {
    let own: Vec<&TruthRow> = truth
        .iter()
        .filter(|event| event.modality == track.modality && event.class == track.class)
        .collect();
    let happens = |segment: usize| {
        own.iter()
            .any(|event| (event.onset..event.offset).contains(&(segment as u32)))
    };
    let probabilities = prediction.and_then(|(prediction, column)| {
        let classes = prediction.classes as usize;
        let own = prediction.probability.iter().skip(column).step_by(classes);
        let finite = |value: &f32| value.is_finite().then(|| (f64::from(*value) * 1e3).round() / 1e3);
        (column < classes).then(|| own.map(finite).collect())
    });
    ShownTrack {
        modality: track.modality,
        labels: bits(track.labels.iter().copied()),
        rules: track.rules.iter().map(|rule| letter(*rule)).collect(),
        scores: scores
            .unwrap_or(track.scores)
            .into_iter()
            .map(six_digits)
            .collect(),
        threshold: track.threshold,
        probabilities,
        truth: (!truth.is_empty()).then(|| bits((0..track.labels.len()).map(happens))),
        flips: track
            .flips
            .iter()
            .map(|(segment, why)| ShownReason::new(*segment, why))
            .collect(),
        class: track.class,
    }
}

fn bits(values: impl Iterator<Item = bool>) -> String {
    values.map(|value| if value { '1' } else { '0' }).collect()
}

fn letter(rule: LabelRule) -> char {
    match rule {
        LabelRule::Plg => 'g',
        LabelRule::Import => 'i',
        LabelRule::Pld => 'd',
        LabelRule::User => 'u',
    }
}

/// Rounds to 6 significant digits: enough to draw a curve and to read a number, at half the size. A score that is not a
/// number becomes 0, because JSON has no such number.
fn six_digits(value: f64) -> f64 {
    match value.is_finite() {
        true => format!("{value:.5e}").parse().expect("it was a number"),
        false => 0.0,
    }
}

/// The modalities in which the video has a weak label and no labels, with the reasons of its rejected rows.
fn missing(
    snapshot: &Snapshot,
    video: &VideoRow,
    tracks: &[(u32, ShownTrack)],
) -> Result<Vec<(Modality, Vec<String>)>, LabelError> {
    let mut missing = Vec::new();
    for modality in Modality::ALL {
        let has = tracks.iter().any(|(_, track)| track.modality == modality);
        if video.weak_labels.is_empty() || has {
            continue;
        }
        let own = |row: &RejectRow| {
            let of_video = row.video.as_deref() == Some(&*video.video);
            of_video && row.severity == Severity::Reject && row.modality.is_none_or(|own| own == modality)
        };
        let rows = snapshot.read::<Rejects>()?.into_iter().filter(own);
        missing.push((modality, rows.map(|row| row.reason).collect()));
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_six_digits() {
        assert_eq!(six_digits(0.041_234_567_8), 0.041_234_6);
        assert_eq!(six_digits(-21.534_999_9), -21.535);
        assert_eq!(six_digits(1e-300), 1e-300);
        assert_eq!((six_digits(f64::NAN), six_digits(0.0)), (0.0, 0.0));
    }
}
