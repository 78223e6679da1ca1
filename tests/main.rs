//! End-to-end tests: one binary, one file per subcommand.
#![allow(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

mod eval;
mod show;
mod support;
