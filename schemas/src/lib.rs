//! Tables, typed rows and the store of vaplan.
//!
//! | module | what |
//! |---|---|
//! | [`ids`] | the names that every table shares: [`Modality`], [`ClassId`], [`StoreVersion`], hash buckets |
//! | [`rows`] | one typed row per table; past this border no code holds raw columns |
//! | [`tables`] | one file per table: its schema, order and checks |
//! | [`contain`] | a panic of one piece of work as a value |
//! | [`parquet_file`] | Parquet files: encoding, and reading with every panic contained |
//! | [`store`] | the Delta tables of a store, moved together as one store version |
//! | [`error`] | what can go wrong, with file, row, value and what was expected |

pub mod contain;
pub mod error;
pub mod ids;
pub mod parquet_file;
mod reject;
pub mod rows;
pub mod store;
pub mod tables;

pub use error::{StoreError, TableError};
pub use ids::{ClassId, Modality, StoreVersion, bucket_of};
