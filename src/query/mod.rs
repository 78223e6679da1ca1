//! SQL over one store version, run by DataFusion.
//!
//! | module | contents |
//! |---|---|
//! | [`session`] | the tables of one store version and the view `events`, read-only |
//! | `segments` | tables with one row per segment, over tables of tracks |
//! | [`output`] | an answer as a text table, CSV, JSON or Parquet |
//! | [`QueryError`] | why a query has no answer |

mod error;
mod files;
pub mod output;
mod segments;
pub mod session;

pub use error::QueryError;
pub use output::AnswerFormat;
pub use session::{AnswerRows, QuerySession};
