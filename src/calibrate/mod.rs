//! `vaplan calibrate`: thresholds, and K, α and guard of PLD, that score best on videos with dense truth.
//!
//! ```text
//! scores, truth of a split ─┬─ search ─ sweep by sweep ─▶ thresholds ─┬─ pld ─ grid ─▶ K, α, guard
//! predictions of an epoch ──┘                                         │
//!                           └─ folds ─ the same without a fold, scored on it ─▶ what it is worth elsewhere
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`sample`] | scores, truth and predictions of a split's videos |
//! | [`sweep`](mod@sweep) | all thresholds of a modality or class in one pass over sorted scores |
//! | [`search`](mod@search) | sweeps until none gains |
//! | [`pld`] | K, α and guard, by a grid |
//!
//! Labels are what scores and thresholds say, and PLD where it is asked for: what persons set does not count.

pub mod pld;
pub mod sample;
pub mod search;
pub mod sweep;

use std::path::PathBuf;

use vaplan_dataflows::Pld;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::{Modality, StoreVersion};

use crate::error::LabelError;
use crate::eval::{EvalError, Evaluator, Level};
use crate::world::settings::Settings;
use crate::world::{Both, World, at};
use sample::{Sample, Video};

/// What is maximised: a segment-level score as `eval` has it, the mean of the videos' F-scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Metric {
    /// A for audio thresholds, V for visual ones: each modality for itself.
    #[default]
    Own,
    /// AV.
    AudioVisual,
    /// Type@AV, the mean of A, V and AV.
    TypeAv,
    /// Event@AV, A and V counted together.
    EventAv,
}

impl Metric {
    /// As the command line names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Metric::Own => "own",
            Metric::AudioVisual => "audio-visual",
            Metric::TypeAv => "type-av",
            Metric::EventAv => "event-av",
        }
    }

    /// What counts of the scores, when thresholds of a modality are chosen.
    pub fn of(self, level: &Level, modality: Modality) -> f64 {
        match (self, modality) {
            (Metric::Own, Modality::Audio) => level.audio,
            (Metric::Own, Modality::Visual) => level.visual,
            (Metric::AudioVisual, _) => level.audio_visual,
            (Metric::TypeAv, _) => level.type_av,
            (Metric::EventAv, _) => level.event_av,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Store to read.
    pub store: PathBuf,
    /// Version of it; none: the latest.
    pub version: Option<StoreVersion>,
    /// Split with dense truth.
    pub split: Split,
    /// How.
    pub how: How,
    /// Epoch whose predictions K, α and guard are chosen by; none: the best that predicted the split, if one did.
    pub epoch: Option<u64>,
    /// Into how many parts videos are cut to see what is gained on others; at least 2.
    pub folds: usize,
}

/// What is chosen, and by what.
#[derive(Clone, Debug)]
pub struct How {
    /// Whose thresholds.
    pub modalities: Vec<Modality>,
    /// A threshold for each class, not one for all.
    pub per_class: bool,
    /// What is maximised.
    pub metric: Metric,
}

/// Thresholds, and PLD by them.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Rules and thresholds.
    pub settings: Settings,
    /// K, α and guard; none: flipping gains nothing, or there are no predictions.
    pub pld: Both<Option<Pld>>,
}

/// What was chosen, and what it is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Chosen by all videos.
    pub choice: Choice,
    /// Epoch that K, α and guard are for; none: no epoch predicted the split.
    pub epoch: Option<u64>,
    /// Videos of the split.
    pub videos: usize,
    /// With the store's thresholds, without PLD.
    pub now: Level,
    /// With the thresholds that were chosen, on the videos they were chosen by.
    pub thresholds: Gain,
    /// And with PLD; none: there are no predictions.
    pub pld: Option<Gain>,
}

/// What a choice is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// On the videos it was made by.
    pub in_sample: Level,
    /// Of each fold by a choice made without it.
    pub held_out: Level,
}

/// What keeps thresholds from being chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// There is no truth or no label to compare.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The store cannot be read.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A track that is not as long as its video.
    #[error("table `scores`, video `{video}`: a track of {found} segments, expected {expected}")]
    Length {
        /// Video.
        video: String,
        /// Segments of the track.
        found: usize,
        /// Segments of the video.
        expected: usize,
    },
    /// Nothing is held out.
    #[error("{folds} folds of {videos} videos, expected 2 or more, and no more than videos")]
    Folds {
        /// Asked for.
        folds: usize,
        /// Of the split.
        videos: usize,
    },
}

/// Chooses thresholds by the videos of a split.
///
/// # Errors
/// [`CalibrateError`].
pub fn run(request: &Request) -> Result<Report, CalibrateError> {
    let store = Store::open(&request.store).map_err(LabelError::from)?;
    let snapshot: Snapshot = store.at_version(request.version).map_err(LabelError::from)?;
    let world = World::read(&snapshot)?;
    let sample = Sample::read(&snapshot, &world, request.split, request.epoch)?;
    let videos: Vec<&Video> = sample.videos.iter().collect();
    let (folds, count) = (request.folds, videos.len());
    if !(2..=count).contains(&folds) {
        return Err(CalibrateError::Folds { folds, videos: count });
    }
    let how = &request.how;
    // Visual by default, as METHOD has it (grade P).
    let denoised = |modality: &Modality| match world.denoising.iter().any(Option::is_some) {
        true => world.denoising[at(*modality)].is_some(),
        false => *modality == Modality::Visual,
    };
    let denoised: Vec<Modality> = how.modalities.iter().copied().filter(denoised).collect();
    let choose = |videos: &[&Video]| {
        let settings = search::search(videos, &world.settings, how);
        let pld = match sample.epoch {
            Some(_) => pld::best(videos, &settings, &denoised, how.metric),
            None => [None, None],
        };
        Choice { settings, pld }
    };
    let choice = choose(&videos);
    let plain = [None, None];
    let level = |settings: &Settings, pld: &Both<Option<Pld>>| pld::level(&videos, settings, pld);
    let mut held = [
        Evaluator::new(world.classes.len()),
        Evaluator::new(world.classes.len()),
    ];
    for fold in 0..folds {
        let (own, others): (Vec<_>, Vec<_>) = videos
            .iter()
            .enumerate()
            .partition(|(nth, _)| nth % folds == fold);
        let others: Vec<&Video> = others.into_iter().map(|(_, video)| *video).collect();
        let choice = choose(&others);
        for (_, video) in own {
            held[0].add(&video.labels(&choice.settings, &plain), &video.truth);
            held[1].add(&video.labels(&choice.settings, &choice.pld), &video.truth);
        }
    }
    let segment = |held: &Evaluator| held.scores().expect("there are videos").segment;
    let [thresholds, with_pld] = held.each_ref().map(segment);
    Ok(Report {
        now: level(&world.settings, &plain),
        thresholds: Gain {
            in_sample: level(&choice.settings, &plain),
            held_out: thresholds,
        },
        pld: sample.epoch.map(|_| Gain {
            in_sample: level(&choice.settings, &choice.pld),
            held_out: with_pld,
        }),
        epoch: sample.epoch,
        videos: count,
        choice,
    })
}
