//! Scores, dense truth and predictions of the videos of a split.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::decide::PlgTrack;
use vaplan_dataflows::flips::PredictedTrack;
use vaplan_dataflows::{DenoisingRule, Prediction, Score, VideoId};
use vaplan_schemas::rows::{ScoreTrack, Split};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Scores, Videos};
use vaplan_schemas::{ClassId, Modality};

use super::CalibrateError;
use crate::error::LabelError;
use crate::eval::{VideoParse, store};
use crate::world::epochs;
use crate::world::evidence::{counting, latest};
use crate::world::settings::LabelSettings;
use crate::world::{Both, World};

/// The videos of a split, for calibration.
#[derive(Clone, Debug)]
pub struct CalibrationSample {
    /// Videos in order of id. The id is a hash of the name, so that this order does not depend on the contents of the
    /// videos. Cross-validation assigns the folds by position in this order.
    pub videos: Vec<CalibrationVideo>,
    /// Epoch of the predictions. `None` if the videos have no predictions.
    pub epoch: Option<u64>,
}

/// Scores of classes, each of shape `[T]`.
pub type ClassScoreTracks = Vec<(ClassId, Vec<f64>)>;

/// A video with its scores, truth and predictions.
#[derive(Clone, Debug)]
pub struct CalibrationVideo {
    /// Hash of the full name.
    pub id: VideoId,
    /// Number T of segments.
    pub segments: usize,
    /// Scores of the classes of the weak label, each of shape `[T]`.
    pub tracks: Both<ClassScoreTracks>,
    /// Dense truth.
    pub truth: VideoParse,
    /// Predictions of the epoch.
    pub predictions: Both<Option<Arc<Prediction>>>,
}

impl CalibrationVideo {
    /// Scores of a class. `None` if the class is not in the weak label or has no scores.
    pub fn scores(&self, modality: Modality, class: ClassId) -> Option<&[f64]> {
        let mut tracks = self.tracks[modality.index()].iter();
        tracks.find(|(own, _)| *own == class).map(|(_, scores)| &**scores)
    }

    /// The labels that thresholds and PLD give the video.
    pub fn labels(&self, settings: &LabelSettings, pld: &Both<Option<DenoisingRule>>) -> VideoParse {
        let mut parse = VideoParse::new(self.truth.audio.classes(), self.segments);
        for modality in Modality::ALL {
            let prediction = self.predictions[modality.index()].as_ref();
            let prediction = prediction.filter(|own| own.segments() as usize == self.segments);
            let matrix = match modality {
                Modality::Audio => &mut parse.audio,
                Modality::Visual => &mut parse.visual,
            };
            for (class, scores) in &self.tracks[modality.index()] {
                // A score or threshold that is no number sets no label.
                let number = |value: f64, or: f64| {
                    Score::new(value)
                        .or(Score::new(or))
                        .expect("infinity is a number")
                };
                let threshold = number(settings.of(modality).score_threshold(*class), f64::INFINITY);
                let scores: Vec<Score> = scores
                    .iter()
                    .map(|score| number(*score, f64::NEG_INFINITY))
                    .collect();
                let rule = pld[modality.index()];
                let track = PlgTrack::new(*class, &scores, threshold, rule);
                let flipped = rule.zip(prediction.and_then(|own| own.of(*class)));
                let flipped = flipped.map(|(rule, probabilities)| {
                    let own = PredictedTrack {
                        labels: &track.label,
                        margins: track.margins.as_deref(),
                        probabilities,
                    };
                    rule.flips(own).flipped
                });
                let flipped = |segment| flipped.as_ref().is_some_and(|flipped| flipped.get(segment));
                for (segment, label) in track.label.iter().enumerate() {
                    matrix.put(class.index(), segment, label != flipped(segment));
                }
            }
        }
        parse
    }
}

impl CalibrationSample {
    /// Reads the videos of a store version with the predictions of `epoch`. If `epoch` is `None`, reads those of the
    /// best epoch that predicted the split; if no epoch did, the sample has no predictions.
    ///
    /// # Errors
    /// - Returns [`CalibrateError::Eval`] if the split has no videos or no dense truth.
    /// - Returns [`CalibrateError::Label`] if a table cannot be read, or if the epoch has no predictions of the
    ///   split.
    /// - Returns [`CalibrateError::Length`] if the scores of a video have another length than the video.
    pub fn read(
        snapshot: &Snapshot,
        world: &World,
        split: Split,
        epoch: Option<u64>,
    ) -> Result<CalibrationSample, CalibrateError> {
        CalibrationSample::with(snapshot, world, split, &|filter| {
            predictions(snapshot, world, split, epoch, filter)
        })
    }

    /// Reads the videos of a store version without predictions.
    ///
    /// # Errors
    /// Returns the errors of [`CalibrationSample::read`].
    pub fn without_predictions(
        snapshot: &Snapshot,
        world: &World,
        split: Split,
    ) -> Result<CalibrationSample, CalibrateError> {
        CalibrationSample::with(snapshot, world, split, &|_| Ok((None, EpochPredictions::new())))
    }

    fn with(
        snapshot: &Snapshot,
        world: &World,
        split: Split,
        predictions: &dyn Fn(&Filter) -> Result<FoundPredictions, LabelError>,
    ) -> Result<CalibrationSample, CalibrateError> {
        let truth = store::truth_of_snapshot(snapshot, split, None)?;
        let rows = snapshot.read::<Videos>().map_err(LabelError::from)?;
        let known: BTreeMap<&Arc<str>, usize> = rows
            .iter()
            .map(|row| (&row.video, row.segments as usize))
            .collect();
        let longest = truth.videos.iter().filter_map(|video| known.get(&video.name));
        let longest = longest.copied().max().unwrap_or(0);
        let filter = Filter::videos(truth.videos.iter().map(|video| video.name.clone()));
        let mut tracks: BTreeMap<VideoId, Both<ClassScoreTracks>> = BTreeMap::new();
        for found in snapshot.scan::<Scores>(&filter).map_err(LabelError::from)? {
            let ScoreTrack {
                video,
                modality,
                class,
                score,
                ..
            } = found.row;
            let expected = known.get(&video).copied().unwrap_or(0);
            if score.len() != expected {
                let (video, found) = (video.to_string(), score.len());
                return Err(CalibrateError::Length {
                    video,
                    found,
                    expected,
                });
            }
            if let Some(class) = world.class_id(&class) {
                let own = tracks.entry(VideoId::of(&video)).or_default();
                own[modality.index()].push((class, score));
            }
        }
        let (epoch, mut predictions) = predictions(&filter)?;
        let classes = world.classes.len();
        let video = |video: &crate::eval::TruthVideo| {
            let id = VideoId::of(&video.name);
            // A video without features gets the length of the longest video, as in `eval`.
            let own = known.get(&video.name).copied().filter(|segments| *segments > 0);
            let segments = own.unwrap_or(longest);
            CalibrationVideo {
                id,
                segments,
                tracks: tracks.remove(&id).unwrap_or_default(),
                truth: video.parse(classes, segments),
                predictions: predictions.remove(&id).unwrap_or_default(),
            }
        };
        let mut videos: Vec<CalibrationVideo> = truth.videos.iter().map(video).collect();
        videos.sort_by_key(|video| video.id);
        Ok(CalibrationSample { videos, epoch })
    }
}

/// The epoch of the predictions, and the predictions.
type FoundPredictions = (Option<u64>, EpochPredictions);

type EpochPredictions = BTreeMap<VideoId, Both<Option<Arc<Prediction>>>>;

fn predictions(
    snapshot: &Snapshot,
    world: &World,
    split: Split,
    epoch: Option<u64>,
    filter: &Filter,
) -> Result<FoundPredictions, LabelError> {
    let epoch = match epoch {
        Some(epoch) => Some(epoch),
        None => epochs::best(snapshot, split)?,
    };
    let Some(epoch) = epoch else {
        return Ok((None, EpochPredictions::new()));
    };
    let active = epochs::chosen(snapshot, world, epoch)?;
    let tracks = counting(snapshot, Some(&active), filter)?;
    if tracks.is_empty() {
        return Err(epochs::missing(snapshot, split, Some(epoch)));
    }
    let world = World {
        active: Some(active),
        ..world.clone()
    };
    let mut found = EpochPredictions::new();
    for (video, (modality, prediction)) in latest(tracks, &world, &|_| None) {
        found.entry(video).or_default()[modality.index()] = Some(prediction);
    }
    Ok((Some(epoch), found))
}
