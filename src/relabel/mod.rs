//! `vaplan relabel`: makes any change of a store at the cost of the data that the change touches, and estimates that
//! cost.
//!
//! [`world`](crate::world) defines what a change means and what it touches. [`engine`](crate::engine) makes the
//! change.

pub mod estimate;

pub use crate::engine::change::{RelabelRequest, RelabelSummary, run};
