//! SQL over one store version, run by DataFusion.
//!
//! | module | contents |
//! |---|---|
//! | [`session`] | the tables of one store version and the view `events`, read-only |
//! | [`output`] | an answer as a text table, CSV, JSON or Parquet |
//! | [`QueryError`] | why a query has no answer |

mod error;
mod files;
pub mod output;
pub mod session;

pub use error::QueryError;
pub use output::AnswerFormat;
pub use session::{AnswerRows, QuerySession};
