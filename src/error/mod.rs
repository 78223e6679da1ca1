//! Errors of the engine.

pub mod cluster;
mod engine;

pub use engine::LabelError;

pub(crate) use crate::chain::chain;
