//! Reads annotations, features and text embeddings, and checks every input before the rest of the program uses it.
//!
//! | module | contents |
//! |---|---|
//! | [`annotations`] | weak labels and dense truth of an LLP-style folder |
//! | [`changes`] | rows of a change, and the files that hold them |
//! | [`npy`] | npy files, checked against the size of the file before any allocation |
//! | [`features`] | npy folders and Parquet shards as batches of segment features |
//! | [`shards`] | writes feature shards |
//! | [`text`] | text embeddings of the classes |
//! | [`label_folder`] | VALOR-style label folders |
//! | [`error`] | errors, with file, place, value found and value expected |

pub mod annotations;
pub mod changes;
pub mod encoded;
pub mod error;
pub mod features;
mod floats;
pub mod label_folder;
pub mod npy;
mod open;
mod parquet;
mod place;
pub(crate) mod remote;
pub(crate) mod seen;
pub mod shards;
pub(crate) mod sheet;
pub mod text;

pub use error::IngestError;
pub use open::open_regular;
pub(crate) use parquet::texts as parquet_texts;
pub use place::absolute;

/// The folder with golden data. If it does not exist, writes a line to standard error that `test` was skipped.
#[cfg(test)]
pub(crate) fn shared(test: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("VAPLAN_SHARED").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        std::path::PathBuf::from,
    );
    if path.join("golden").is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {test} needs ../shared");
    None
}
