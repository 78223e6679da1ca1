//! Models: ONNX exports of CLIP and CLAP, found, checked and run.
//!
//! | module | what |
//! |---|---|
//! | [`folder`] | a folder of files, and what its `vaplan.toml` says of them |
//! | [`session`] | ONNX to a session, with the hash of its bytes |
//! | `ports` | which input takes what, which output is meant |
//! | [`encoder`] | batches of media, and texts, to embeddings of unit length |
//! | [`pull`](mod@pull) | public exports, fetched from the Hugging Face hub |

pub mod encoder;
pub mod folder;
mod ports;
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

/// What keeps a model from being used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// There is no ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Its tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A folder without a file that is needed, or with a `vaplan.toml` that cannot be used.
    #[error("model folder `{path}`: {problem}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// A model that is no ONNX, or takes or gives something else than is known here.
    #[error("model `{path}`: {problem}")]
    Model {
        /// Its file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// The model did not run.
    #[error("model `{path}` failed on {what}")]
    Run {
        /// Its file.
        path: PathBuf,
        /// What it was given.
        what: String,
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// An embedding that is no direction.
    #[error("model `{path}` gave an embedding of {what} that {problem}, expected a direction")]
    Embedding {
        /// Its file.
        path: PathBuf,
        /// What it was given.
        what: String,
        /// "is all zeros", "holds NaN".
        problem: &'static str,
    },
}
