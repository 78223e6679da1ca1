//! `vaplan calibrate`: chooses the thresholds, and K, α and guard of PLD, that score best on videos with dense truth.
//!
//! ```text
//! scores, truth of a split ─┬─ search: repeated sweeps ─▶ thresholds ─┬─ pld: grid ─▶ K, α, guard
//! predictions of an epoch ──┘                                         │
//!                           └─ folds: choose without one fold, score on this fold ─▶ held-out scores
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`sample`] | scores, truth and predictions of the videos of a split |
//! | [`sweep`](mod@sweep) | all thresholds of a modality or class in one pass over sorted scores |
//! | [`search`](mod@search) | repeated sweeps until no sweep improves the metric |
//! | [`curve`], [`plot`] | the metric over the threshold, and its picture |
//! | [`pld`] | K, α and guard, by a grid search |
//! | [`gate`] | whether an epoch improves the labels, and by which rule |
//!
//! Labels are computed from scores and thresholds, and from PLD if it is wanted. User labels are not considered.

pub mod curve;
pub mod gate;
pub mod pld;
pub mod plot;
pub mod sample;
pub mod search;
pub mod sweep;

use std::path::PathBuf;

use vaplan_dataflows::DenoisingRule;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::{Modality, StoreVersion};

use crate::choice::Choice;
use crate::error::LabelError;
use crate::eval::{EvalError, Evaluator, Level};
use crate::world::settings::LabelSettings;
use crate::world::{Both, World};
use sample::{CalibrationSample, CalibrationVideo};

/// Segment-level score that calibration maximises, defined as in [`crate::eval`]: the mean of the F-scores of the
/// videos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CalibrationMetric {
    /// A for audio thresholds and V for visual thresholds.
    #[default]
    Own,
    /// AV.
    AudioVisual,
    /// Type@AV, the mean of A, V and AV.
    TypeAv,
    /// Event@AV, A and V counted together.
    EventAv,
}

impl Choice for CalibrationMetric {
    const WHAT: &'static str = "metric";
    const ALL: &'static [(CalibrationMetric, &'static str, &'static str)] = &[
        (
            CalibrationMetric::Own,
            "own",
            "A for audio thresholds and V for visual thresholds",
        ),
        (CalibrationMetric::AudioVisual, "audio-visual", "AV"),
        (
            CalibrationMetric::TypeAv,
            "type-av",
            "Type@AV, the mean of A, V and AV",
        ),
        (
            CalibrationMetric::EventAv,
            "event-av",
            "Event@AV, A and V counted together",
        ),
    ];
}

impl CalibrationMetric {
    /// The name that a person reads.
    pub fn title(self) -> &'static str {
        match self {
            CalibrationMetric::Own => "F",
            CalibrationMetric::AudioVisual => "F of AV",
            CalibrationMetric::TypeAv => "Type@AV",
            CalibrationMetric::EventAv => "Event@AV",
        }
    }

    /// Value of the metric, in percent, that is maximised for the thresholds of `modality`.
    pub fn of(self, level: &Level, modality: Modality) -> f64 {
        match (self, modality) {
            (CalibrationMetric::Own, Modality::Audio) => level.audio,
            (CalibrationMetric::Own, Modality::Visual) => level.visual,
            (CalibrationMetric::AudioVisual, _) => level.audio_visual,
            (CalibrationMetric::TypeAv, _) => level.type_av,
            (CalibrationMetric::EventAv, _) => level.event_av,
        }
    }
}

/// Request to choose thresholds on the videos of a split.
#[derive(Clone, Debug)]
pub struct CalibrateRequest {
    /// Store to read.
    pub store: PathBuf,
    /// Store version to read. `None` is the latest.
    pub version: Option<StoreVersion>,
    /// Split to calibrate on; it must have dense truth.
    pub split: Split,
    /// Thresholds to choose, and the metric to maximise.
    pub how: CalibrationGoal,
    /// Epoch whose predictions determine K, α and guard. `None` is the best epoch that predicted the split; if no
    /// epoch predicted the split, K, α and guard are not chosen.
    pub epoch: Option<u64>,
    /// Number of cross-validation folds, from 2 to the number of videos.
    pub folds: usize,
}

/// Thresholds to choose, and the metric to maximise.
#[derive(Clone, Debug)]
pub struct CalibrationGoal {
    /// Modalities whose thresholds are chosen.
    pub modalities: Vec<Modality>,
    /// Whether each class has a threshold of its own. Otherwise all classes of a modality share one.
    pub per_class: bool,
    /// Metric to maximise.
    pub metric: CalibrationMetric,
}

/// Thresholds and PLD parameters that calibration chose.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibratedSettings {
    /// Rules and thresholds.
    pub settings: LabelSettings,
    /// K, α and guard of each modality. `None` if no flip improves the metric or no predictions exist.
    pub pld: Both<Option<DenoisingRule>>,
}

/// Result of a calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationReport {
    /// Settings chosen on all videos of the split.
    pub choice: CalibratedSettings,
    /// Epoch whose predictions determined K, α and guard. `None` if no epoch predicted the split.
    pub epoch: Option<u64>,
    /// Number of videos of the split.
    pub videos: usize,
    /// Scores with the store's thresholds, without PLD.
    pub now: Level,
    /// Scores with the chosen thresholds, without PLD.
    pub thresholds: CalibrationGain,
    /// Scores with the chosen thresholds and PLD. `None` without predictions.
    pub pld: Option<CalibrationGain>,
}

/// Scores of the chosen settings.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct CalibrationGain {
    /// Scores on the videos that the settings were chosen on.
    pub in_sample: Level,
    /// Scores on each fold with settings that were chosen on the other folds.
    pub held_out: Level,
}

/// The reason why thresholds cannot be chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// The split has no videos or no dense truth.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The store cannot be read.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The scores of a video, modality and class have another length than the video.
    #[error("table `scores`, video `{video}`: a track of {found} segments, expected {expected}")]
    Length {
        /// Full name of the video.
        video: String,
        /// Number of scores found.
        found: usize,
        /// Number of segments of the video.
        expected: usize,
    },
    /// The number of folds is below 2, so that no other videos remain to choose on, or above the number of videos, so
    /// that a fold would be empty.
    #[error("{folds} folds, expected 2 to {videos}, the number of videos of the split")]
    Folds {
        /// Folds that were requested.
        folds: usize,
        /// Videos of the split.
        videos: usize,
    },
}

/// Chooses the thresholds, and K, α and guard of PLD, that score best on the videos of a split.
///
/// # Errors
/// - Returns [`CalibrateError::Eval`] if the split has no videos or no dense truth.
/// - Returns [`CalibrateError::Label`] if the store cannot be read or lacks the requested epoch.
/// - Returns [`CalibrateError::Length`] if the scores of a video have another length than the video.
/// - Returns [`CalibrateError::Folds`] if the number of folds is not between 2 and the number of videos.
pub fn run(request: &CalibrateRequest) -> Result<CalibrationReport, CalibrateError> {
    Ok(run_with_curves(request, false)?.0)
}

/// Does the work of [`run`]. If `curves` is set, also computes the metric over the threshold of each modality.
///
/// # Errors
/// Returns the errors of [`run`].
pub fn run_with_curves(
    request: &CalibrateRequest,
    curves: bool,
) -> Result<(CalibrationReport, Vec<curve::CalibrationCurve>), CalibrateError> {
    let store = Store::open(&request.store).map_err(LabelError::from)?;
    let snapshot: Snapshot = store.at_version(request.version).map_err(LabelError::from)?;
    let world = World::read(&snapshot)?;
    let sample = CalibrationSample::read(&snapshot, &world, request.split, request.epoch)?;
    // If the store denoises no modality, choose PLD for the visual modality, the default of docs/method.md (grade P).
    let denoised = |modality: &Modality| match world.denoising.iter().any(Option::is_some) {
        true => world.denoising[modality.index()].is_some(),
        false => *modality == Modality::Visual,
    };
    let denoised = request.how.modalities.iter().copied().filter(denoised);
    let denoised: Vec<Modality> = denoised.collect();
    let report = of_sample(&sample, &world.settings, &denoised, &request.how, request.folds)?;
    let videos: Vec<&CalibrationVideo> = sample.videos.iter().collect();
    let curves = match curves {
        true => curve::curves(&videos, &world.settings, &request.how, &report),
        false => Vec::new(),
    };
    Ok((report, curves))
}

/// Chooses the thresholds, and K, α and guard of PLD for the modalities `denoised`, that score best on the videos of a
/// sample. `now` are the settings before; only the thresholds of the modalities of `how` change.
///
/// # Errors
/// Returns [`CalibrateError::Folds`] if the number of folds is not between 2 and the number of videos.
pub fn of_sample(
    sample: &CalibrationSample,
    now: &LabelSettings,
    denoised: &[Modality],
    how: &CalibrationGoal,
    folds: usize,
) -> Result<CalibrationReport, CalibrateError> {
    let videos: Vec<&CalibrationVideo> = sample.videos.iter().collect();
    let count = videos.len();
    if !(2..=count).contains(&folds) {
        return Err(CalibrateError::Folds { folds, videos: count });
    }
    let choose = |videos: &[&CalibrationVideo]| {
        let settings = search::search(videos, now, how);
        let pld = match sample.epoch {
            Some(_) => pld::best(videos, &settings, denoised, how.metric),
            None => [None, None],
        };
        CalibratedSettings { settings, pld }
    };
    let choice = choose(&videos);
    let plain = [None, None];
    let level =
        |settings: &LabelSettings, pld: &Both<Option<DenoisingRule>>| pld::level(&videos, settings, pld);
    let mut held = [
        Evaluator::new(now.audio.thresholds.len()),
        Evaluator::new(now.audio.thresholds.len()),
    ];
    for fold in 0..folds {
        let (own, others): (Vec<_>, Vec<_>) = videos
            .iter()
            .enumerate()
            .partition(|(nth, _)| nth % folds == fold);
        let others: Vec<&CalibrationVideo> = others.into_iter().map(|(_, video)| *video).collect();
        let choice = choose(&others);
        for (_, video) in own {
            held[0].add(&video.labels(&choice.settings, &plain), &video.truth);
            held[1].add(&video.labels(&choice.settings, &choice.pld), &video.truth);
        }
    }
    let segment = |held: &Evaluator| held.scores().expect("there are videos").segment;
    let [thresholds, with_pld] = held.each_ref().map(segment);
    Ok(CalibrationReport {
        now: level(now, &plain),
        thresholds: CalibrationGain {
            in_sample: level(&choice.settings, &plain),
            held_out: thresholds,
        },
        pld: sample.epoch.map(|_| CalibrationGain {
            in_sample: level(&choice.settings, &choice.pld),
            held_out: with_pld,
        }),
        epoch: sample.epoch,
        videos: count,
        choice,
    })
}
