//! The tables, typed rows and store of vaplan.
//!
//! | module | content |
//! |---|---|
//! | [`ids`] | the identifiers that all tables share: [`Modality`], [`ClassId`], [`StoreVersion`], hash buckets |
//! | [`rows`] | one typed row per table; code outside this crate uses these types and no raw columns |
//! | [`tables`] | one file per table: its schema, order and checks |
//! | [`contain`] | turns a panic of one piece of work into an error value |
//! | [`parquet_file`] | Parquet files: encoding, and reading with every panic contained |
//! | [`storage`] | the files of a store: on a local disk, or in an object store |
//! | [`store`] | the Delta tables of a store, committed together as one store version |
//! | [`error`] | the errors, each with the file, row, value found and value expected |

pub mod contain;
pub mod error;
pub mod ids;
pub mod parquet_file;
mod reject;
pub mod rows;
pub mod spill;
pub mod storage;
pub mod store;
pub mod tables;

pub use error::{ObjectError, StoreError, TableError};
pub use ids::{ClassId, Modality, StoreVersion, bucket_of};
