//! End-to-end tests: one binary, one file per subcommand.
#![allow(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

mod audit;
#[cfg(feature = "train")]
mod ave;
mod bad_input_features;
mod bad_input_text;
mod calibrate;
mod candidates;
mod cases;
mod cluster;
mod demo;
mod denoise;
mod denoise_gain;
mod denoise_json;
mod descriptors;
mod docs_queries;
#[cfg(feature = "encode")]
mod encode;
mod eval;
mod export;
mod feature_forms;
mod fit;
mod imported;
mod label;
mod label_faults;
mod log;
mod object_store;
mod old_store;
mod open_events;
mod open_outside;
mod panics;
#[cfg(all(feature = "encode", feature = "train"))]
mod parse;
mod passes;
mod patched;
mod pictures;
mod pld_golden;
mod plg_golden;
#[cfg(feature = "train")]
mod predict;
mod query;
mod query_answers;
mod relabel;
#[cfg(feature = "train")]
mod run;
mod sample;
mod serve;
mod session;
mod show;
mod small_store;
#[cfg(feature = "train")]
mod start;
mod store_paths;
mod support;
mod synth;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "train")]
mod transformer;
mod upkeep;
mod variants;
mod watch;
