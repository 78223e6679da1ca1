//! SQL over one store version, run by DataFusion.
//!
//! | module | contents |
//! |---|---|
//! | [`session`] | the tables of one store version and the view `events`, read-only |
//! | `words` | SQL text as statements, in which `offset` needs no quotes |
//! | `overflow` | errors for whole numbers that overflow |
//! | `former` | tables over files of programs before the tables of tracks |
//! | `segments` | tables with one row per segment, over tables of tracks |
//! | [`output`] | an answer as a text table, CSV, JSON or Parquet |
//! | [`QueryError`] | why a query has no answer |

mod error;
mod files;
mod former;
pub mod output;
mod overflow;
mod segments;
pub mod session;
mod words;

pub use error::QueryError;
pub use output::AnswerFormat;
pub use session::{AnswerRows, QuerySession};
