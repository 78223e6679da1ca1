//! `vaplan eval`, and the evaluator behind it.

mod command;
mod golden;
mod oracle;
mod store;
mod tables;
