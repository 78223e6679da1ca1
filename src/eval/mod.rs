//! Scores labels against dense truth, as the public evaluator of audio-visual video parsing does.
//!
//! | module | contents |
//! |---|---|
//! | [`matrix`] | labels of one video and modality as bits: classes by segments |
//! | [`metric`] | F-scores per segment and per event, of A, V, AV, Type@AV and Event@AV |
//! | [`truth`] | dense truth of a split, from a folder or a store |
//! | [`predictions`] | labels of a split, from a store or from folders |
//! | [`store`] | truth and labels of a store version |
//! | [`mod@localize`] | segment accuracy of AVE |
//! | [`report`] | the scores of a split, as JSON or as a table |
//! | [`error`] | the reasons why labels cannot be scored |

pub mod error;
pub mod localize;
pub mod matrix;
pub mod metric;
pub mod predictions;
pub mod report;
pub mod store;
pub mod truth;

pub use error::EvalError;
pub use localize::{Localization, Task, localize};
pub use matrix::BitMatrix;
pub use metric::{ClassFScores, EvalScores, Evaluator, Level, VideoParse};
pub use report::{EvalReport, PredictedLabels, Protocol, evaluate};
pub use truth::{DenseTruth, TruthEvent, TruthVideo};
