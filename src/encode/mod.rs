//! Computes features from media with encoders (CLIP, CLAP) that run in ONNX Runtime.
//!
//! ```text
//! media ── read (decode, cut, prepare) ── encode (sessions) ── keep ──▶ cache ── write ──▶ feature shards
//! prompts ── text embeddings ─────────────────────────────────────────▶ cache ── write ──▶ *_text.parquet
//! ```
//!
//! | module | purpose |
//! |---|---|
//! | [`mod@run`] | runs a whole encoding run |
//! | [`plan`] | finds the models, media and prompts of a request, and computes the hash of the request |
//! | [`runtime`](mod@runtime) | finds the ONNX Runtime library and loads it, once per process |
//! | [`model`] | finds, checks and runs the ONNX exports of CLIP and CLAP |
//! | [`tokenizer`] | turns text into token ids |
//! | [`image`] | turns pictures into the pixels that a vision model takes |
//! | [`sound`] | turns sound into log-mel features |
//! | [`media`] | reads videos, folders of frames and sound files |
//! | [`prompts`], [`text`] | make the prompts of each class, and their text embeddings |
//! | [`read`] | reads the media of a group of videos into batches of prepared segments |
//! | [`batch`] | gathers segments of several videos into batches of one size |
//! | [`operator`] | the timely operator that encodes batches |
//! | [`flow`] | the dataflow of encoding |
//! | [`cache`] | keeps embeddings on disk, by content |
//! | [`cluster`] | encodes media as one of several processes |
//! | [`mod@write`] | writes feature files from the cache |
//! | [`embed`] | encodes media into memory, for `parse` |
//! | [`streamed`] | scores the media of a store while they are encoded, and commits early versions |
//! | [`store`] | encodes media into the folder of a store, for `label` |
//! | [`error`] | the error types |

pub mod batch;
pub mod cache;
pub mod cluster;
pub mod embed;
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
pub mod streamed;
mod sum;
pub mod text;
pub mod tokenizer;
pub mod write;

pub use error::{EncodeError, MediaError};
pub use run::{EncodeListener, EncodeProgress, EncodeRequest, EncodeSummary, run};
pub use runtime::{RuntimeError, runtime};
pub use store::{EncodedMedia, into_store};
pub use streamed::StreamedLabelling;
