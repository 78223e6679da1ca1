//! Errors of the engine.

pub mod cluster;
mod engine;

pub use engine::LabelError;

pub use crate::chain::chain;
