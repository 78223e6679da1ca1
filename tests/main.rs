//! End-to-end tests: one binary, one file per subcommand.
#![allow(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

#[cfg(feature = "train")]
mod ave;
mod bad_input_features;
mod bad_input_text;
mod calibrate;
mod cluster;
mod demo;
mod denoise;
mod descriptors;
mod docs_queries;
#[cfg(feature = "encode")]
mod encode;
mod eval;
mod label;
mod label_faults;
mod log;
mod open_outside;
mod patched;
mod pld_golden;
mod plg_golden;
mod query;
mod query_answers;
mod relabel;
#[cfg(feature = "train")]
mod run;
mod sample;
mod show;
mod small_store;
mod support;
mod synth;
#[cfg(feature = "train")]
mod train;
mod upkeep;
mod watch;
