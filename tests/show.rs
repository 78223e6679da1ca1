//! `vaplan show`, and the timeline behind it.

mod command;
mod looks;
