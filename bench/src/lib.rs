//! Bench data and the programs that bench/compare times.

pub mod eval_data;
