//! Finds, checks and runs the ONNX exports of CLIP and CLAP, and classifiers of sound.
//!
//! | module | purpose |
//! |---|---|
//! | [`folder`] | finds the files of a model folder, and reads its `vaplan.toml` |
//! | [`session`] | opens an ONNX file as a session, and computes the hash of its bytes |
//! | `ports` | finds out what each input of a session takes, and which output has the embeddings |
//! | [`encoder`] | computes embeddings of unit length, or scores, from batches of media |
//! | [`text`] | computes embeddings of unit length from texts |
//! | [`scores`] | writes a classifier's scores in the place of embeddings |
//! | [`pull`](mod@pull) | fetches public exports from the Hugging Face hub |

pub mod encoder;
pub mod folder;
mod ports;
mod preprocessor;
pub mod pull;
pub mod scores;
pub mod session;
#[cfg(test)]
mod tests;
pub mod text;

use std::path::PathBuf;

pub use encoder::Encoder;
pub use folder::{ModelFolder, ModelKind};
pub use session::{Device, SessionOptions};
pub use text::TextEncoder;

use super::runtime::RuntimeError;
use super::tokenizer::TokenizerError;

/// The reason why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// ONNX Runtime cannot be loaded or started.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The tokenizer of the model cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model folder lacks a file, or its `vaplan.toml` cannot be used.
    #[error("model folder `{path}`: {problem}")]
    Folder {
        /// Path of the model folder.
        path: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },
    /// The file is not an ONNX model, or the model has inputs or outputs that vaplan does not know.
    #[error("model `{path}`: {problem}")]
    Model {
        /// File of the model.
        path: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },
    /// ONNX Runtime failed while it ran the model.
    #[error("model `{path}` failed on {what}")]
    Run {
        /// File of the model.
        path: PathBuf,
        /// The segments or the text that the model was run on.
        what: String,
        /// The error of ONNX Runtime.
        #[source]
        source: ort::Error,
    },
    /// The embedding has no direction: it is all zeros, or it has values that are not finite.
    #[error("model `{path}` gave an embedding of {what} that {problem}, expected a direction")]
    Embedding {
        /// File of the model.
        path: PathBuf,
        /// The segments or the text that the model was run on.
        what: String,
        /// What is wrong with the embedding, such as "is all zeros" or "holds NaN or infinity".
        problem: &'static str,
    },
}
