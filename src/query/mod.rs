//! SQL over a store version, by DataFusion.
//!
//! | module | what |
//! |---|---|
//! | [`session`] | the tables of one store version and the view `events`, read-only |
//! | [`output`] | rows as a table for people, CSV, JSON or Parquet, streamed |
//! | [`prompt`] | the interactive prompt, and what its lines mean |
//! | [`QueryError`] | what can go wrong |

mod error;
mod files;
pub mod output;
pub mod prompt;
pub mod session;

pub use error::QueryError;
pub use output::Format;
pub use session::{Rows, Session};
