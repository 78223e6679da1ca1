//! `vaplan eval`, and the evaluator behind it.

mod golden;
mod oracle;
