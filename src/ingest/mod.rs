//! Annotations, features and text embeddings, read with every check at the border.
//!
//! | module | what |
//! |---|---|
//! | [`annotations`] | weak labels and dense truth of an LLP-style folder |
//! | [`npy`] | npy files, checked against the file's size before any allocation |
//! | [`features`] | npy folders and Parquet shards as batches of segment features |
//! | [`text`] | class text embeddings |
//! | [`label_folder`] | VALOR-style label folders |

pub mod annotations;
pub mod features;
pub mod label_folder;
pub mod npy;
pub mod text;
