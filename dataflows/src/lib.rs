//! The label logic of vaplan, as operators on timely and differential-dataflow.
//!
//! ```text
//! segment batches ── similarity ── scored ─┐                    cutoffs ─┐
//!                                          ├─ admit ─┬─ admitted ── threshold ── labels ─┬─ labels
//! weak labels ─────────────────────────────┘         └─ faults                           ├─ audio_visual
//!                                                            previous labels ── changes ─┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`records`] | what flows: one record per video and modality, exact and totally ordered |
//! | [`rule`] | rules `softmax` and `logit`, from cosines to what is compared with a cutoff |
//! | [`mod@similarity`] | batched matrix product of segments and prompts, outside differential |
//! | [`mod@admit`] | which features of a video count: missing, doubled, unequal length, weak-label filter |
//! | [`mod@threshold`] | score tracks to bit tracks |
//! | [`labels`] | bit tracks to one record per video and modality, and the meet of the two |
//! | [`mod@changes`] | what a version changed |
//! | [`graph`] | all of it, one function from collections to collections |
//!
//! Nothing here knows a model, a file or SQL; the time is the store version, totally ordered.

pub mod admit;
pub mod changes;
pub mod graph;
pub mod labels;
pub mod records;
pub mod rule;
pub mod similarity;
pub mod threshold;

// The versions whose types our signatures name.
pub use differential_dataflow;
pub use timely;

pub use records::{Bits, Candidate, Cosine, LabelRecord, Score, ScoreRecord, VideoId};
