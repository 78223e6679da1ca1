//! Several processes that share one run.

#[cfg(feature = "encode")]
mod encode;
mod environment;
mod label;
mod network;
#[cfg(feature = "train")]
mod predict;
pub(crate) mod processes;
mod relabel;
mod resident;
mod secret;
