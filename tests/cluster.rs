//! Several processes that share one run.

mod label;
mod network;
mod processes;
mod relabel;
mod secret;
