//! The label logic of vaplan, as operators on timely and differential-dataflow.
//!
//! ```text
//! segment batches ── similarity ── scored ─┐                    thresholds ─┐
//!                                          ├─ admit ─┬─ admitted ── threshold ─┐
//! weak labels ─────────────────────────────┘         └─ rejections             ├─ labels ─┬─ labels
//! predictions ─┬─ denoise ─────────────────────────────────────────────────────┤          ├─ rejections
//! rules ───────┘                                                               │          └─ changes
//! user labels ─────────────────────────────────────────────────────────────────┘          │   │
//!                                                                      previous labels ───┼───┘
//! predictions, one version later ◀────────── train ◀─ if the graph has a learner ─────────┘
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`records`] | the records of the dataflow: one per video and modality, exact and totally ordered |
//! | [`bits`] | one bit per segment |
//! | [`prediction`] | the probabilities of a trained parser for one video and modality |
//! | [`mod@rejection`] | why a row of the input has no effect |
//! | [`mod@decide`] | the one definition of a label: pure functions that every path calls |
//! | [`rule`] | the rules `softmax` and `logit`, which turn cosines into scores |
//! | [`mod@similarity`] | the batched matrix product of segments and prompts, outside differential |
//! | [`mod@admit`] | which features of a video count, and why the other features are rejected |
//! | [`mod@threshold`] | operator: scores and thresholds to PLG labels |
//! | [`flips`] | what a denoising rule reads of one track, and its decision |
//! | [`pld`] | rule `pld`: forward losses, their base, and the labels to flip |
//! | [`bounds`] | rule `bounds`: one bound of the probability for each direction of a flip |
//! | [`margin`] | rule `margin`: the margin of the score and the logit of the parser add up |
//! | [`denoising`] | the registry of denoising rules |
//! | [`mod@denoise`] | operator: predictions and the denoising rule of their modality |
//! | [`dense`] | PLG and PLD on dense matrices, for callers without a store |
//! | [`mod@user_labels`] | labels that a person set |
//! | [`mod@labels`] | operator: PLG labels, predictions and user labels to one record per video and modality |
//! | [`placement`] | which worker holds the records of a video |
//! | [`mod@outcome`] | the outputs by video: the container between the graph and the tables |
//! | [`mod@changes`] | the labels that a version changed |
//! | [`mod@train`] | operator: label changes to a learner in its own thread, and the learner's predictions back |
//! | [`graph`], [`feed`] | the whole graph as one function of collections; the inputs where rows enter it |
//! | [`workers`] | worker threads that all end when one of them panics |
//! | [`mod@session`] | the graph kept in memory: input changes of a version in, output changes out |
//!
//! This crate knows no model, no file and no SQL. The time of its dataflows is a version number, which is totally
//! ordered.

pub mod admit;
pub mod bits;
pub mod bounds;
pub mod candidates;
pub mod changes;
pub mod decide;
pub mod denoise;
pub mod denoising;
pub mod dense;
pub mod feed;
pub mod flips;
pub mod graph;
pub mod labels;
pub mod margin;
pub mod outcome;
pub mod placement;
pub mod pld;
pub mod prediction;
pub mod records;
pub mod rejection;
pub mod rule;
pub mod score;
pub mod session;
pub mod similarity;
pub mod threshold;
pub mod train;
pub mod user_labels;
pub mod workers;

// Public signatures name types of these two crates. The re-export gives callers the same crate versions.
pub use differential_dataflow;
pub use timely;

pub use candidates::CandidateRule;
pub use denoising::DenoisingRule;
pub use prediction::{Prediction, Probability};
pub use records::{
    Bits, Candidate, Cosine, Denoised, FeatureHash, Flip, LabelRecord, Score, ScoreRecord, SetBy, Track,
    VideoId,
};
pub use rejection::{Rejection, UserLabelRejection};
pub use session::GraphSession;
pub use user_labels::{UserLabelRecord, UserLabelTrack};
