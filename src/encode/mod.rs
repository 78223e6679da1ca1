//! Encoders (CLIP, CLAP) by ONNX Runtime.
//!
//! | module | what |
//! |---|---|
//! | [`runtime`](mod@runtime) | finds the ONNX Runtime library and loads it, once per process |

pub mod runtime;

pub use runtime::{RuntimeError, runtime};
