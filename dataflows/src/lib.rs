//! The label logic of vaplan, as operators on timely and differential-dataflow.
//!
//! ```text
//! segment batches ── similarity ── scored ─┐                    cutoffs ─┐
//!                                          ├─ admit ─┬─ admitted ── threshold ─┐
//! weak labels ─────────────────────────────┘         └─ faults                 ├─ labels ─┬─ labels, audio_visual
//! predictions ─┬─ denoise ─────────────────────────────────────────────────────┤          ├─ faults
//! K, α, guard ─┘                                                               │          └─ changes
//! marks of a person ───────────────────────────────────────────────────────────┘          │   │
//!                                                                      previous labels ───┼───┘
//! predictions, a step later ◀─────────────── train ◀─ where someone learns ───────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`records`] | what flows: one record per video and modality, exact and totally ordered |
//! | [`bits`] | a bit per segment |
//! | [`prediction`] | what a trained model says of a video and modality |
//! | [`mod@fault`] | why a row of the input has no effect |
//! | [`mod@decide`] | the one definition of a label: pure functions that every path calls |
//! | [`rule`] | rules `softmax` and `logit`, from cosines to what is compared with a cutoff |
//! | [`mod@similarity`] | batched matrix product of segments and prompts, outside differential |
//! | [`mod@admit`] | which features of a video count: missing, doubled, unequal length, weak-label filter |
//! | [`mod@threshold`] | score tracks to bit tracks |
//! | [`pld`] | forward losses, their base, and which labels flip |
//! | [`mod@denoise`] | which predictions PLD goes by |
//! | [`marks`] | what a person set |
//! | [`mod@labels`] | bit tracks, predictions and marks to one record per video and modality, and the meet of the two |
//! | [`mod@changes`] | what a version changed |
//! | [`mod@train`] | label changes to a learner off the workers' threads, its predictions back |
//! | [`graph`], [`feed`] | all of it, one function from collections to collections; where rows are handed in |
//! | [`workers`] | worker threads that end together when one of them panics |
//! | [`mod@session`] | the graph kept in memory: a version's changes in, what they change out |
//!
//! Nothing here knows a model, a file or SQL; the time is the store version, totally ordered.

pub mod admit;
pub mod bits;
pub mod changes;
pub mod decide;
pub mod denoise;
pub mod fault;
pub mod feed;
pub mod graph;
pub mod labels;
pub mod marks;
pub mod pld;
pub mod prediction;
pub mod records;
pub mod rule;
pub mod score;
pub mod session;
pub mod similarity;
pub mod threshold;
pub mod train;
pub mod workers;

// The versions whose types our signatures name.
pub use differential_dataflow;
pub use timely;

pub use fault::{Fault, MarkFault};
pub use marks::{Mark, Marks};
pub use pld::Pld;
pub use prediction::{Prediction, Probability};
pub use records::{
    Bits, Candidate, Cosine, Denoised, FeatureHash, Flip, LabelRecord, Score, ScoreRecord, SetBy, Track,
    VideoId,
};
pub use session::GraphSession;
