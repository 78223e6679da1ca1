//! Several processes that share one run.

#[cfg(feature = "encode")]
mod encode;
mod label;
mod network;
mod processes;
mod relabel;
mod secret;
