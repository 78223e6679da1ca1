//! `vaplan relabel`: any change of a store, at the cost of what it touches; and an estimate of that cost.
//!
//! [`world`](crate::world) says what a change means and what it touches, [`engine`](crate::engine) makes it.

pub mod estimate;

pub use crate::engine::change::{RelabelRequest, RelabelSummary, run};
