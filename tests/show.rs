//! `vaplan show`, and the timeline behind it.

mod looks;
