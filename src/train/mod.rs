//! Training of the parser on pseudo labels, and prediction with what was trained.
//!
//! ```text
//! store at a version ── videos, labels ──┐
//! features ── pooled, cached, mapped ────┴─ batches ── trainer ── epoch ──┬─ predict ── validate ──▶ epochs
//!                                                                         └─ predictions ─────────▶ predictions
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | how: a TOML file over the defaults, flags over both |
//! | [`features`] | features pooled to a row a segment, in mapped files |
//! | [`data`] | videos, labels and features as batches |
//! | [`trainer`] | a network in training, epoch by epoch |
//! | [`predict`] | probabilities of videos |
//! | [`validate`] | their scores by both protocols |
//! | [`record`] | epochs and predictions as store versions |
//! | [`course`] | one training, epoch by epoch, with its checkpoints |
//! | [`ablate`] | the paper's ablation, over seeds |
//! | [`apply`] | a checkpoint on features, without a training |
//! | [`run`](mod@run) | the whole: resumed, recorded, the best kept |

pub mod ablate;
pub mod apply;
pub mod course;
pub mod data;
pub mod error;
pub mod features;
pub mod predict;
pub mod record;
pub mod run;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod trainer;
pub mod validate;

use std::path::PathBuf;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{EpochRow, RejectRow};

pub use data::{Dataset, FeaturePaths};
pub use error::TrainError;
pub use run::run;
pub use settings::{Gate, Supervision, TrainSettings};
pub use trainer::Trainer;

/// What is asked of a training.
#[derive(Clone, Debug)]
pub struct Request {
    /// Store to read labels from and to write epochs to.
    pub store: PathBuf,
    /// Version whose labels are learnt; none: the latest.
    pub version: Option<StoreVersion>,
    /// Features.
    pub features: FeaturePaths,
    /// How.
    pub settings: TrainSettings,
    /// Threads of libtorch; results are the same, bit for bit, only for the same number.
    pub threads: usize,
    /// Where to compute.
    pub device: tch::Device,
    /// Folder of the checkpoints.
    pub out: PathBuf,
    /// What was asked, as a command line, for the `versions` table.
    pub command: String,
}

/// What a training tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress {
    /// So many more videos' features were read.
    Read {
        /// Videos.
        videos: u64,
    },
    /// Another process writes to the store.
    Waiting(String),
    /// All is read.
    Planned {
        /// Epochs asked for.
        epochs: u64,
        /// Of these, done by a run before.
        done: u64,
        /// Videos of an epoch.
        videos: u64,
    },
    /// A step was made.
    Step(trainer::Step),
    /// An epoch is in the store.
    Epoch {
        /// As there.
        row: Box<EpochRow>,
        /// What the best is chosen by; none: there is nothing to choose by.
        score: Option<f64>,
        /// It is the best so far.
        better: bool,
    },
}

/// What a training did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Epochs done.
    pub epochs: u64,
    /// Of these, done by a run before.
    pub resumed: Option<u64>,
    /// Number in the store of the best epoch, and its score.
    pub best: Option<(u64, Option<f64>)>,
    /// Videos learnt from.
    pub videos: usize,
    /// Train videos without labels or features.
    pub left_out: usize,
    /// Features that could not be used.
    pub rejects: Vec<RejectRow>,
    /// The best epoch's weights.
    pub checkpoint: PathBuf,
}
