//! vaplan turns weakly labelled video into segment-level labels, and keeps them right as things change.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test's unwrap is its assertion"))]

pub mod calibrate;
pub mod choice;
pub mod cli;
pub mod denoise;
#[cfg(feature = "encode")]
pub mod encode;
pub mod engine;
pub mod error;
pub mod eval;
pub mod ingest;
pub mod label;
#[cfg(feature = "train")]
pub mod network;
#[cfg(feature = "query")]
pub mod query;
pub mod relabel;
#[cfg(feature = "train")]
pub mod run;
pub mod show;
pub mod synth;
#[cfg(feature = "train")]
pub mod train;
pub mod watch;
pub mod world;
