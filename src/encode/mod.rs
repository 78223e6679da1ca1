//! Encoders (CLIP, CLAP) by ONNX Runtime: from media to features.
//!
//! | module | what |
//! |---|---|
//! | [`runtime`](mod@runtime) | finds the ONNX Runtime library and loads it, once per process |
//! | [`model`] | ONNX exports of CLIP and CLAP, found, checked and run |
//! | [`tokenizer`] | text to ids |
//! | [`image`] | pictures to pixels |
//! | [`sound`] | sound to log-mel features |
//! | [`media`] | videos, folders of frames and sound files |
//! | [`prompts`] | what stands for a class in text |
//! | [`cache`] | embeddings by content, kept for ever |
//! | [`error`] | what can go wrong |

pub mod cache;
pub mod error;
pub mod image;
pub mod media;
pub mod model;
pub mod prompts;
pub mod runtime;
pub mod sound;
pub mod tokenizer;

pub use error::{EncodeError, MediaError};
pub use runtime::{RuntimeError, runtime};
