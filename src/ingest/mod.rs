//! Annotations, features and text embeddings, read with every check at the border.
//!
//! | module | what |
//! |---|---|
//! | [`annotations`] | weak labels and dense truth of an LLP-style folder |
//! | [`changes`] | rows of a change, and the files that hold them |
//! | [`npy`] | npy files, checked against the file's size before any allocation |
//! | [`features`] | npy folders and Parquet shards as batches of segment features |
//! | [`shards`] | writes feature shards |
//! | [`text`] | class text embeddings |
//! | [`label_folder`] | VALOR-style label folders |
//! | [`error`] | what can go wrong, with file, place, value and what was expected |

pub mod annotations;
pub mod changes;
pub mod error;
pub mod features;
mod floats;
pub mod label_folder;
pub mod npy;
mod open;
mod parquet;
mod place;
pub(crate) mod seen;
pub mod shards;
pub(crate) mod sheet;
pub mod text;

pub use error::IngestError;
pub use open::open_regular;
pub(crate) use parquet::texts as parquet_texts;
pub use place::absolute;

/// The folder of golden data, or a line on standard error that `test` was skipped.
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
