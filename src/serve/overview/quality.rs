//! Scores of the labels where truth is known, and what other thresholds would give.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use vaplan_dataflows::VideoId;
use vaplan_schemas::rows::{LabelTrack, ScoreTrack, Split, VideoRow};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Labels, Scores, Table, Truth, Videos};
use vaplan_schemas::{ClassId, Modality};

use super::epochs::EpochScoreReader;
use crate::error::LabelError;
use crate::eval::{
    DenseTruth, EvalError, EvalScores, Evaluator, PredictedLabels, Protocol, VideoParse, evaluate,
    predictions,
};
use crate::serve::index::ReviewIndex;
use crate::world::World;

/// Largest number of videos of a split that are scored, evenly spread by a hash of their names. LLP's splits are smaller.
pub const MOST_VIDEOS: usize = 2_000;
/// Number of thresholds of a sweep.
const STEPS: usize = 41;

/// Scores of the labels of a split.
#[derive(Clone, Debug, Serialize)]
pub struct SplitQuality {
    /// Split.
    pub split: Split,
    /// Number of videos that were scored.
    pub videos: usize,
    /// Number of videos of the split.
    pub videos_in_all: usize,
    /// Scores of PLG, then of the labels, then of the predictions of each epoch.
    pub stages: Vec<StageQuality>,
}

/// What is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QualityStage {
    /// The labels before denoising: scores above thresholds.
    Plg,
    /// The labels of the version, with flips and user labels.
    Labels,
    /// The predictions of an epoch of the parser.
    Parser,
}

/// Scores of one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageQuality {
    /// What is scored.
    pub stage: QualityStage,
    /// Epoch of the predictions.
    pub epoch: Option<u64>,
    /// How predictions became labels.
    pub protocol: Protocol,
    /// Number of videos with labels or predictions. The other videos count as videos without events.
    pub videos: usize,
    /// Scores over all classes, in percent.
    pub scores: EvalScores,
    /// Segment-level F-score of the audio labels of each class, in the order of the classes, in percent to 2 decimals. `None` if
    /// the class is neither labelled nor true in any video.
    pub audio: Vec<Option<f64>>,
    /// Like `audio`, of the visual labels.
    pub visual: Vec<Option<f64>>,
}

impl StageQuality {
    /// Scores labels, one entry per video of the truth. `None` if no video has labels.
    pub(super) fn of(
        stage: QualityStage,
        truth: &DenseTruth,
        predicted: &[PredictedLabels],
    ) -> Option<StageQuality> {
        // The only error is that no video has labels: then there is nothing to score.
        let report = evaluate(truth, predicted, true).ok()?;
        let classes = report.per_class.unwrap_or_default();
        let rounded = |score: Option<f64>| score.map(|score| (100.0 * score).round() / 100.0);
        Some(StageQuality {
            stage,
            epoch: None,
            protocol: report.protocol,
            videos: predicted.iter().filter(|own| own.segments().is_some()).count(),
            scores: report.scores,
            audio: classes.iter().map(|own| rounded(own.scores.audio)).collect(),
            visual: classes.iter().map(|own| rounded(own.scores.visual)).collect(),
        })
    }
}

/// Thresholds tried on the videos of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThresholdSweep {
    /// Modality of the thresholds.
    pub modality: Modality,
    /// Split of the videos.
    pub split: Split,
    /// Number of videos.
    pub videos: usize,
    /// Smallest and largest threshold of the classes today, as the user gives them.
    pub today: [f64; 2],
    /// The thresholds, each used for all classes.
    pub steps: Vec<SweepStep>,
}

/// One threshold of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SweepStep {
    /// Threshold, as the user gives it.
    pub threshold: f64,
    /// Share of the labels that PLG would set, in percent.
    pub set: f64,
    /// Segment-level F-score of the modality, in percent. `None` without truth.
    pub score: Option<f64>,
}

/// The scores of each video, by class.
type ScoresByVideo = BTreeMap<Arc<str>, Vec<(ClassId, Vec<f64>)>>;

/// The rows of the videos that are scored.
struct Sample {
    split: Split,
    videos: Vec<VideoRow>,
    in_all: usize,
    filter: Filter,
    truth: Option<DenseTruth>,
}

/// Reads the scores of every split with truth, and a sweep of each modality: on `val` if it has truth, otherwise on
/// `test`, otherwise on the videos of the largest split. `epochs` keeps the scores of predictions.
///
/// # Errors
/// Returns [`LabelError`] if a table cannot be read.
pub fn read(
    snapshot: &Snapshot,
    index: &ReviewIndex,
    epochs: &EpochScoreReader,
) -> Result<(Vec<SplitQuality>, Vec<ThresholdSweep>), LabelError> {
    let world = World::read(snapshot)?;
    let has_truth = !snapshot.files(Truth::NAME)?.is_empty();
    let mut quality = Vec::new();
    let mut swept: Option<Sample> = None;
    for split in [Split::Val, Split::Test, Split::Train] {
        if !has_truth {
            break;
        }
        let Some(sample) = Sample::read(snapshot, index, split)? else {
            continue;
        };
        if sample.truth.is_some() {
            quality.extend(sample.quality(snapshot, &world, epochs)?);
            swept = swept.or(Some(sample));
        }
    }
    if swept.is_none() {
        let of = |split| {
            (0..index.len())
                .filter(|at| index.video(*at).split == split)
                .count()
        };
        let largest = Split::ALL.into_iter().max_by_key(|split| of(*split));
        swept = largest
            .map(|split| Sample::read(snapshot, index, split))
            .transpose()?
            .flatten();
    }
    let sweeps = match swept {
        Some(sample) => sample.sweeps(snapshot, &world)?,
        None => Vec::new(),
    };
    quality.sort_by_key(|own| own.split);
    Ok((quality, sweeps))
}

impl Sample {
    fn read(snapshot: &Snapshot, index: &ReviewIndex, split: Split) -> Result<Option<Sample>, LabelError> {
        let of_split = (0..index.len()).filter(|at| index.video(*at).split == split);
        let mut names: Vec<(VideoId, &str)> = of_split
            .map(|at| (VideoId::of(index.name(at)), index.name(at)))
            .collect();
        let in_all = names.len();
        if in_all == 0 {
            return Ok(None);
        }
        names.sort_unstable();
        names.truncate(MOST_VIDEOS);
        let filter = Filter::videos(names.iter().map(|(_, name)| Arc::from(*name)));
        let videos: Vec<VideoRow> = snapshot
            .scan::<Videos>(&filter)?
            .into_iter()
            .map(|found| found.row)
            .collect();
        let rows = snapshot
            .scan::<Truth>(&filter)?
            .into_iter()
            .map(|found| found.row);
        let names = videos.iter().map(|row| row.video.clone());
        let truth = match DenseTruth::of_rows(index.classes.clone(), split, names, rows) {
            Ok(truth) => Some(truth),
            Err(EvalError::NoVideos { .. } | EvalError::NoTruth { .. }) => None,
            Err(error) => return Err(world_error(snapshot, &error)),
        };
        Ok(Some(Sample {
            split,
            videos,
            in_all,
            filter,
            truth,
        }))
    }

    fn quality(
        &self,
        snapshot: &Snapshot,
        world: &World,
        epochs: &EpochScoreReader,
    ) -> Result<Option<SplitQuality>, LabelError> {
        let Some(truth) = &self.truth else {
            return Ok(None);
        };
        let labels: Vec<LabelTrack> = snapshot
            .scan::<Labels>(&self.filter)?
            .into_iter()
            .map(|found| found.row)
            .collect();
        let generated: Vec<LabelTrack> = snapshot
            .scan::<Scores>(&self.filter)?
            .into_iter()
            .filter_map(|found| generated(found.row, world))
            .collect();
        let mut stages = Vec::new();
        for (stage, tracks) in [(QualityStage::Plg, generated), (QualityStage::Labels, labels)] {
            let predicted = predictions::of_tables(truth, &self.videos, &tracks)
                .map_err(|error| world_error(snapshot, &error))?;
            stages.extend(StageQuality::of(stage, truth, &predicted));
        }
        stages.extend(epochs.read(snapshot, world, truth, &self.filter)?);
        Ok((!stages.is_empty()).then_some(SplitQuality {
            split: self.split,
            videos: truth.videos.len(),
            videos_in_all: self.in_all,
            stages,
        }))
    }

    fn sweeps(&self, snapshot: &Snapshot, world: &World) -> Result<Vec<ThresholdSweep>, LabelError> {
        let mut by_modality: [ScoresByVideo; 2] = Default::default();
        for found in snapshot.scan::<Scores>(&self.filter)? {
            let row = found.row;
            if let Some(class) = world.class_id(&row.class) {
                let own = by_modality[row.modality.index()].entry(row.video).or_default();
                own.push((class, row.score));
            }
        }
        let sweep = |modality: Modality| self.sweep(world, modality, &by_modality[modality.index()]);
        Ok(Modality::ALL.into_iter().filter_map(sweep).collect())
    }

    fn sweep(&self, world: &World, modality: Modality, tracks: &ScoresByVideo) -> Option<ThresholdSweep> {
        let own = world.settings.of(modality);
        let classes = world.classes.len();
        let mut scores: Vec<f64> = tracks
            .values()
            .flatten()
            .flat_map(|(_, scores)| scores)
            .copied()
            .collect();
        scores.retain(|score| score.is_finite());
        scores.sort_by(f64::total_cmp);
        let (last, count) = (scores.len().checked_sub(1)?, scores.len());
        // A score is `unit` times the threshold that a user gives.
        let unit = own.rule.score_threshold(1.0, classes);
        let today = own.thresholds.iter().copied();
        let today = [
            today.clone().fold(f64::INFINITY, f64::min),
            today.fold(f64::NEG_INFINITY, f64::max),
        ];
        let low = (scores[last / 50] / unit).min(today[0]);
        let high = (scores[last - last / 50] / unit).max(today[1]);
        let steps = (0..STEPS).map(|step| {
            let threshold = low + (high - low) * step as f64 / (STEPS - 1) as f64;
            let cut = own.rule.score_threshold(threshold, classes);
            let set = count - scores.partition_point(|score| *score <= cut);
            SweepStep {
                threshold,
                set: 100.0 * set as f64 / count as f64,
                score: self.score(modality, tracks, cut),
            }
        });
        Some(ThresholdSweep {
            modality,
            split: self.split,
            videos: self.videos.len(),
            today,
            steps: steps.collect(),
        })
    }

    /// The segment-level F-score of a modality if all its classes have this threshold.
    fn score(&self, modality: Modality, tracks: &ScoresByVideo, cut: f64) -> Option<f64> {
        let truth = self.truth.as_ref()?;
        let classes = truth.classes.len();
        let mut evaluator = Evaluator::new(classes);
        for video in &truth.videos {
            let at = self
                .videos
                .binary_search_by(|row| row.video.cmp(&video.name))
                .ok()?;
            let segments = self.videos[at].segments as usize;
            let mut parse = VideoParse::new(classes, segments);
            let matrix = match modality {
                Modality::Audio => &mut parse.audio,
                Modality::Visual => &mut parse.visual,
            };
            for (class, scores) in tracks.get(&video.name).into_iter().flatten() {
                for (segment, score) in scores.iter().enumerate().take(segments) {
                    matrix.put(class.index(), segment, *score > cut);
                }
            }
            evaluator.add(&parse, &video.parse(classes, segments));
        }
        let level = evaluator.scores()?.segment;
        Some(match modality {
            Modality::Audio => level.audio,
            Modality::Visual => level.visual,
        })
    }
}

/// The labels that PLG gives a track; `None` if its class is unknown.
fn generated(track: ScoreTrack, world: &World) -> Option<LabelTrack> {
    let class = world.class_id(&track.class)?;
    let threshold = world.settings.of(track.modality).score_threshold(class);
    Some(LabelTrack::plg(
        track.video,
        track.modality,
        track.class,
        track.score,
        threshold,
    ))
}

fn world_error(snapshot: &Snapshot, error: &EvalError) -> LabelError {
    LabelError::World {
        version: snapshot.version().version,
        problem: error.to_string(),
    }
}
