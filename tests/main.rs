//! End-to-end tests: one binary, one file per subcommand.
#![allow(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

mod bad_input_features;
mod bad_input_text;
mod eval;
mod label;
mod label_faults;
mod plg_golden;
mod query;
mod sample;
mod show;
mod support;
