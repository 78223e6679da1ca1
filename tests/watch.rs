//! `vaplan watch`, end to end: the built program, a folder, signals and kills.

mod columns;
mod crash;
mod deliveries;
pub(crate) mod harness;
mod inbox;
mod lost;
mod stays;
#[cfg(feature = "train")]
mod training;
