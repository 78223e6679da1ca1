//! Several processes that share one run.

#[cfg(feature = "encode")]
mod encode;
mod label;
mod network;
#[cfg(feature = "train")]
mod predict;
mod processes;
mod relabel;
mod resident;
mod secret;
