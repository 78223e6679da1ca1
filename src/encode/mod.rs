//! Encoders (CLIP, CLAP) by ONNX Runtime: from media to features.
//!
//! ```text
//! media ── read (decode, cut, prepare) ── encode (sessions) ── keep ──▶ cache ── write ──▶ feature shards
//! prompts ── text embeddings ─────────────────────────────────────────▶ cache ── write ──▶ *_text.parquet
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`mod@run`] | all of it |
//! | [`plan`] | what is asked, opened, and a name for it |
//! | [`runtime`](mod@runtime) | finds the ONNX Runtime library and loads it, once per process |
//! | [`model`] | ONNX exports of CLIP and CLAP, found, checked and run |
//! | [`tokenizer`] | text to ids |
//! | [`image`] | pictures to pixels |
//! | [`sound`] | sound to log-mel features |
//! | [`media`] | videos, folders of frames and sound files |
//! | [`prompts`], [`text`] | what stands for a class in text, and its embedding |
//! | [`read`] | from the media of a group of videos to batches of prepared segments |
//! | [`batch`] | segments of several videos, gathered to batches of one size |
//! | [`operator`] | the operator that encodes |
//! | [`flow`] | the dataflow |
//! | [`cache`] | embeddings by content, kept for ever |
//! | [`mod@write`] | from the cache to feature files |
//! | [`store`] | media straight into a store, for `label` |
//! | [`error`] | what can go wrong |

pub mod batch;
pub mod cache;
pub mod error;
pub mod flow;
pub mod image;
pub mod media;
pub mod model;
pub mod operator;
pub mod plan;
pub mod prompts;
pub mod read;
pub mod run;
pub mod runtime;
pub mod sound;
pub mod store;
mod sum;
pub mod text;
pub mod tokenizer;
pub mod write;

pub use error::{EncodeError, MediaError};
pub use run::{EncodeListener, EncodeProgress, EncodeRequest, EncodeSummary, run};
pub use runtime::{RuntimeError, runtime};
pub use store::{EncodedMedia, into_store};
