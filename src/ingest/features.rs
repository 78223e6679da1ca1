//! Segment features, from npy folders and Parquet shards, as batches of whole videos.
//!
//! **npy folder**: `<key>.npy` is `(T, D)` of one video, as published for LLP (METHOD.md); the key is its full name or
//! its first 11 characters. **Parquet shards**: a row is a segment, in these columns:
//!
//! | column | type | what |
//! |---|---|---|
//! | `video` | text, dictionary or not | full name, or its first 11 characters |
//! | `segment` | any integer | from 0; rows of a video are together and in order |
//! | `feature` | fixed-size binary, or list of f16, f32 or f64 | D values |
//! | `modality` | text, optional | `audio` or `visual`; rows of the other modality are passed over |
//!
//! Fixed-size binary is packed little-endian f16 or f32: metadata `vaplan.dtype` (`f16` or `f32`) and `vaplan.width`
//! (D), of the column or of the file, say which. It reads ten times faster than a list
//! ([`shards`](super::shards) writes it).
//!
//! Symbolic links to regular files are followed, since data sets are often folders of links; FIFOs, folders, devices
//! and links to nowhere are rejected by name.

mod assemble;
mod shard;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;

use super::error::IngestError;
use super::seen::Seen;

/// Features of several whole videos of one modality, row-major `[rows, width]`.
///
/// Values are as on disk (f16 and f64 converted to f32), not yet checked for NaN, infinity or zero vectors: the
/// similarity operator does that in its one pass over them.
#[derive(Clone, Debug)]
pub struct FeatureBatch {
    /// Modality of every row.
    pub modality: Modality,
    /// D.
    pub width: usize,
    /// `[rows, width]`.
    pub data: Vec<f32>,
    /// Whose rows these are, in order; the segments add up to the rows.
    pub videos: Vec<VideoSpan>,
}

/// Consecutive rows of one video, segment 0 first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSpan {
    /// Name in the file: a full name, or its first 11 characters.
    pub key: Arc<str>,
    /// T.
    pub segments: u32,
    /// File it came from, as the user would name it.
    pub file: Arc<str>,
    /// First row within the file, from 0.
    pub row: u64,
}

/// A piece of input that is read, scored and staged as one: a Parquet file, or some hundred npy files.
#[derive(Clone, Debug)]
pub struct Shard {
    /// As the user would name it.
    pub name: String,
    modality: Modality,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Npy(Vec<PathBuf>),
    Parquet(PathBuf),
}

/// What reading a shard gives, in order.
#[derive(Debug)]
pub enum FeatureEvent {
    /// Rows.
    Batch(FeatureBatch),
    /// A row or video that could not be read; the rest of the shard goes on.
    ///
    /// One that names a video means that nothing of that video in this shard is right, be it in an earlier batch: its
    /// rows were not together.
    Reject(RejectRow),
}

/// All shards of one modality.
#[derive(Clone, Debug)]
pub struct FeatureInput {
    /// Modality of every shard.
    pub modality: Modality,
    /// In the order of their names.
    pub shards: Vec<Shard>,
}

/// npy files of a shard.
const NPY_FILES: usize = 128;

impl FeatureInput {
    /// The shards of several folders and files, in their order.
    ///
    /// # Errors
    /// As [`FeatureInput::open`].
    pub fn open_all(
        paths: &[PathBuf],
        modality: Modality,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<FeatureInput, IngestError> {
        let mut all = FeatureInput {
            modality,
            shards: Vec::new(),
        };
        for path in paths {
            all.shards
                .extend(FeatureInput::open(path, modality, wanted)?.shards);
        }
        Ok(all)
    }

    /// Finds the shards of a folder of npy files, of a folder of Parquet files, or of one Parquet file.
    ///
    /// `wanted` tells which keys are of use: an npy file of another key is not opened. Hidden files and those that
    /// begin with `_` are no shards.
    ///
    /// # Errors
    /// [`IngestError::Features`] for a folder of neither or both, [`IngestError::Kind`], [`IngestError::Io`]. A bad
    /// file in the folder is no error: reading its shard gives a reject.
    pub fn open(
        path: &Path,
        modality: Modality,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<FeatureInput, IngestError> {
        let problem = |problem: String| IngestError::Features {
            path: path.to_owned(),
            problem,
        };
        let meta = path.metadata().map_err(IngestError::io("read", path))?;
        let parquet = |path: PathBuf| Shard {
            name: path.display().to_string(),
            modality,
            source: Source::Parquet(path),
        };
        if !meta.is_dir() {
            // Refuses a FIFO and the like here, where it is all the input there is.
            super::open::open_regular(path)?;
            if path.extension().is_some_and(|extension| extension == "npy") {
                return Err(problem("is one npy file, expected a folder of them".to_owned()));
            }
            return Ok(FeatureInput {
                modality,
                shards: vec![parquet(path.to_owned())],
            });
        }
        let (mut npy, mut shards, mut others) = (Vec::new(), Vec::new(), 0_usize);
        for entry in std::fs::read_dir(path).map_err(IngestError::io("list", path))? {
            let name = entry.map_err(IngestError::io("list", path))?.file_name();
            let file = Path::new(&name);
            match file.extension().and_then(|extension| extension.to_str()) {
                // A video's name may begin with anything.
                Some("npy") => npy.push(path.join(&name)),
                Some("parquet")
                    if !name.as_encoded_bytes().starts_with(b".")
                        && !name.as_encoded_bytes().starts_with(b"_") =>
                {
                    shards.push(path.join(&name));
                }
                _ => others += 1,
            }
        }
        match (npy.is_empty(), shards.is_empty()) {
            (false, false) => {
                let (npy, shards) = (npy.len(), shards.len());
                Err(problem(format!(
                    "holds {npy} npy and {shards} parquet files, expected one kind"
                )))
            }
            (true, true) => Err(problem(format!(
                "holds no .npy or .parquet file ({others} others)"
            ))),
            (true, false) => {
                shards.sort_unstable();
                Ok(FeatureInput {
                    modality,
                    shards: shards.into_iter().map(parquet).collect(),
                })
            }
            (false, true) => {
                npy.retain(|path| wanted(shard::key_of(path)));
                npy.sort_unstable();
                let name = |path: &Path| {
                    path.file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned()
                };
                let shard = |files: &[PathBuf]| Shard {
                    name: format!(
                        "{}/{}..{}",
                        path.display(),
                        name(&files[0]),
                        name(&files[files.len() - 1])
                    ),
                    modality,
                    source: Source::Npy(files.to_vec()),
                };
                Ok(FeatureInput {
                    modality,
                    shards: npy.chunks(NPY_FILES).map(shard).collect(),
                })
            }
        }
    }
}

impl FeatureInput {
    /// Shards of these files and no others, npy and Parquet as they come; whether they are there shows when they are read.
    pub fn of_files(modality: Modality, files: impl IntoIterator<Item = PathBuf>) -> FeatureInput {
        let is_npy = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "npy");
        let (mut npy, mut others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(is_npy);
        npy.sort_unstable();
        others.sort_unstable();
        let of_npy = npy.chunks(NPY_FILES).map(|files| Source::Npy(files.to_vec()));
        let sources = of_npy.chain(others.into_iter().map(Source::Parquet));
        let shards = sources.map(|source| {
            let name = match &source {
                Source::Npy(files) => format!("{} and {} others", files[0].display(), files.len() - 1),
                Source::Parquet(path) => path.display().to_string(),
            };
            Shard {
                name,
                modality,
                source,
            }
        });
        FeatureInput {
            modality,
            shards: shards.collect(),
        }
    }
}

impl Shard {
    /// Its files.
    pub fn files(&self) -> &[PathBuf] {
        match &self.source {
            Source::Npy(paths) => paths,
            Source::Parquet(path) => std::slice::from_ref(path),
        }
    }

    /// The keys of the videos it has rows of, read without the features; what does not read has none.
    pub fn keys(&self) -> std::collections::BTreeSet<String> {
        match &self.source {
            Source::Npy(paths) => paths.iter().map(|path| shard::key_of(path).to_owned()).collect(),
            Source::Parquet(path) => super::parquet::texts(path, "video").unwrap_or_default(),
        }
    }

    /// Names the content: paths, sizes and modification times; equal as long as nothing was rewritten, however the folder
    /// is spelled.
    ///
    /// SHA-256, hex. A file that is gone counts as such.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.modality.as_str());
        let mut seen = Seen::default();
        self.files().iter().for_each(|path| seen.feed(&mut hash, path));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Modality of its rows.
    pub fn modality(&self) -> Modality {
        self.modality
    }

    /// Reads the shard in batches of whole videos, at most about `batch_rows` rows each; stops early when `sink`
    /// says break.
    ///
    /// Batches of some 256 rows stay in the processor's cache, and are read a third faster than those of 4096.
    ///
    /// A file that cannot be read at all is a reject too (`row: None`), so that one bad file loses nothing beside it.
    /// Neither damaged files nor panics of the parquet crate reach the caller; a panic of `sink` does.
    pub fn read(&self, batch_rows: usize, sink: &mut dyn FnMut(FeatureEvent) -> ControlFlow<()>) {
        match &self.source {
            Source::Npy(files) => shard::read_npy(files, self.modality, batch_rows, sink),
            Source::Parquet(path) => shard::read_parquet(path, self.modality, batch_rows, sink),
        }
    }
}
