//! Reads segment features from npy folders and Parquet shards, as batches of whole videos.
//!
//! **npy folder**: `<key>.npy` has shape `(T, D)` and holds one video, as published for LLP (docs/method.md). The key is
//! the full name of the video or its first 11 characters. Values are floats or integers. **Parquet shards**: each row is a segment, with these
//! columns:
//!
//! | column | type | contents |
//! |---|---|---|
//! | `video` | text, dictionary or not | full name, or its first 11 characters |
//! | `segment` | any integer | from 0, or from 1 if no row of the file has segment 0; rows can be in any order |
//! | `feature` | fixed-size binary, or list of f16, f32, f64 or integers | D values |
//! | `modality` | text, optional | `audio` or `visual`; rows of the other modality are ignored |
//!
//! [`ColumnNames`] gives these columns other names. A file without the column `video` in a folder `video=<name>` has the
//! rows of that video. If a folder has no such file, the files in the folders below it are read.
//!
//! Fixed-size binary has packed little-endian f16 or f32 values. Metadata of the column or of the file names the type
//! (`vaplan.dtype`: `f16` or `f32`) and D (`vaplan.width`, optional). The reader is ten times faster on fixed-size
//! binary than on a list ([`shards`](super::shards) writes both).
//!
//! The reader follows symbolic links to regular files, because data sets are often folders of links. FIFOs, folders,
//! devices and broken links are rejected, and the message names what was found.

mod assemble;
mod columns;
mod find;
mod order;
mod shard;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::storage::is_url;

use super::error::IngestError;
use super::npy::is_npy;
use super::seen::SeenInputs;
use find::FoundFiles;

pub use columns::ColumnNames;

/// Features of several whole videos of one modality, row-major `[rows, width]`.
///
/// Values are as on disk; f16 and f64 are converted to f32. The reader does not check for NaN, infinity or zero
/// vectors, because the similarity operator checks them in its single pass over the values.
#[derive(Clone, Debug)]
pub struct FeatureBatch {
    /// Modality of every row.
    pub modality: Modality,
    /// Number D of values per row.
    pub width: usize,
    /// Values of shape `[rows, width]`.
    pub data: Vec<f32>,
    /// The videos of the rows, in order. The sum of their segments is the number of rows.
    pub videos: Vec<VideoSpan>,
}

/// Consecutive rows of one video, from segment 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSpan {
    /// Name in the file: the full name of the video, or its first 11 characters.
    pub key: Arc<str>,
    /// Number T of segments.
    pub segments: u32,
    /// Path of the file that the rows come from.
    pub file: Arc<str>,
    /// First row in the file, from 0.
    pub row: u64,
}

/// A part of the input that is read, scored and staged as one unit: a Parquet file, or up to 128 npy files.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Name of the shard for messages: the path of its file, or its first and last file.
    pub name: String,
    modality: Modality,
    source: Source,
    columns: ColumnNames,
}

#[derive(Clone, Debug)]
enum Source {
    Npy(Vec<PathBuf>),
    Parquet(PathBuf),
}

/// An event that the reader of a shard delivers. Events come in order of the rows.
#[derive(Debug)]
pub enum FeatureEvent {
    /// Rows of whole videos.
    Batch(FeatureBatch),
    /// A row, video or file that cannot be read. The reader continues with the rest of the shard.
    ///
    /// If the rejected row names a video, no row of this video in this shard is valid, even if an earlier batch had
    /// some: the rows of the video were not together.
    Reject(RejectRow),
}

/// All shards of one modality.
#[derive(Clone, Debug)]
pub struct FeatureInput {
    /// Modality of every shard.
    pub modality: Modality,
    /// Shards in the order in which they are read.
    pub shards: Vec<Shard>,
}

/// Whether a file begins as Parquet files do.
fn begins_as_parquet(mut file: std::fs::File) -> bool {
    let mut first = [0; 4];
    file.read_exact(&mut first).is_ok() && first == *b"PAR1"
}

/// The npy files of a folder of labels: the same files that a folder of features would have.
///
/// # Errors
/// Returns [`IngestError::Io`] if a folder cannot be listed.
pub(super) fn npy_files(folder: &Path, modality: Modality) -> Result<Vec<PathBuf>, IngestError> {
    Ok(find::files(folder, modality)?.npy)
}

/// Largest number of npy files in a shard.
const NPY_FILES: usize = 128;

impl FeatureInput {
    /// Finds the shards of several folders and files, in this order.
    ///
    /// # Errors
    /// Returns the errors of [`FeatureInput::open`].
    pub fn open_all(
        paths: &[PathBuf],
        modality: Modality,
        columns: &ColumnNames,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<FeatureInput, IngestError> {
        let mut all = FeatureInput {
            modality,
            shards: Vec::new(),
        };
        for path in paths {
            all.shards
                .extend(FeatureInput::open(path, modality, columns, wanted)?.shards);
        }
        Ok(all)
    }

    /// Finds the shards of a folder of npy files, of a folder of Parquet files, or of one Parquet file.
    ///
    /// `columns` names the columns of Parquet files. `wanted` tells which keys are needed: npy files with other keys are not opened. [`find::files`] tells which files
    /// and folders are read. A bad file in the folder is no error here: reading its shard gives a
    /// rejected row.
    ///
    /// # Errors
    /// - Returns [`IngestError::Features`] if a folder has no file of either kind or files of both kinds, or if
    ///   `path` is a single file that is not of Parquet.
    /// - Returns [`IngestError::Kind`] or [`IngestError::Io`] if the path cannot be read.
    pub fn open(
        path: &Path,
        modality: Modality,
        columns: &ColumnNames,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<FeatureInput, IngestError> {
        let found = FeatureInput::find(path, modality, columns, wanted)?;
        if is_url(path) {
            let files = found.shards.iter().flat_map(Shard::files);
            super::remote::fetch_all(&files.map(PathBuf::as_path).collect::<Vec<_>>())?;
        }
        Ok(found)
    }

    fn find(
        path: &Path,
        modality: Modality,
        columns: &ColumnNames,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<FeatureInput, IngestError> {
        let problem = |problem: String| IngestError::Features {
            path: path.to_owned(),
            problem,
        };
        let is_object = super::remote::object(path)?.is_some();
        let is_url = is_url(path);
        let is_file = match is_url {
            true => is_object,
            false => !path.metadata().map_err(IngestError::io("read", path))?.is_dir(),
        };
        let shard = |name: String, source: Source| Shard {
            name,
            modality,
            source,
            columns: columns.clone(),
        };
        let parquet = |path: PathBuf| shard(path.display().to_string(), Source::Parquet(path));
        if is_file {
            // Refuse a FIFO, device or socket here: `path` is the whole input, so that a rejected row would leave no
            // features.
            let of_parquet = match is_url {
                true => true,
                false => find::is_parquet(path) | begins_as_parquet(super::open::open_regular(path)?.0),
            };
            if is_npy(path) {
                let kind = path.extension().unwrap_or_default().to_ascii_lowercase();
                let kind = kind.display();
                return Err(problem(format!("is one {kind} file, expected a folder of them")));
            }
            if !of_parquet {
                let expected = "expected a folder of npy or Parquet files, or one Parquet file";
                let hint = find::hint(path);
                return Err(problem(format!("is no file of features, {expected}{hint}")));
            }
            return Ok(FeatureInput {
                modality,
                shards: vec![parquet(path.to_owned())],
            });
        }
        let FoundFiles {
            mut npy,
            parquet: mut shards,
            others,
            hint,
            example,
        } = match is_url {
            true => find::objects(path, modality)?,
            false => find::files(path, modality)?,
        };
        match (npy.is_empty(), shards.is_empty()) {
            (false, false) => {
                let (npy, shards) = (npy.len(), shards.len());
                Err(problem(format!(
                    "holds {npy} npy and {shards} parquet files, expected one kind"
                )))
            }
            (true, true) => Err(problem(nothing_to_read(others, example.as_deref()) + hint)),
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
                let of = |files: &[PathBuf]| shard(find::span(path, files), Source::Npy(files.to_vec()));
                Ok(FeatureInput {
                    modality,
                    shards: npy.chunks(NPY_FILES).map(of).collect(),
                })
            }
        }
    }
}

/// What is wrong with a folder without features, as the rest of a sentence whose subject is the folder.
fn nothing_to_read(others: usize, example: Option<&Path>) -> String {
    let found = match example {
        Some(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!(" ({others} others, such as `{name}`)")
        }
        None => " (it is empty)".to_owned(),
    };
    format!(
        "holds no .npy, .npz or .parquet file{found}, expected `<video>.npy` or `<video>.npz` with one array of shape (T, D) \
         for each video, or Parquet files with the columns `video`, `segment` and `feature`"
    )
}

impl FeatureInput {
    /// Makes shards of exactly these files, npy and Parquet. A file that does not exist becomes a rejected row when
    /// its shard is read.
    pub fn of_files(modality: Modality, files: impl IntoIterator<Item = PathBuf>) -> FeatureInput {
        let (mut npy, mut others): (Vec<PathBuf>, Vec<PathBuf>) =
            files.into_iter().partition(|path| is_npy(path));
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
                columns: ColumnNames::default(),
            }
        });
        FeatureInput {
            modality,
            shards: shards.collect(),
        }
    }
}

impl Shard {
    /// Paths of the files of the shard.
    pub fn files(&self) -> &[PathBuf] {
        match &self.source {
            Source::Npy(paths) => paths,
            Source::Parquet(path) => std::slice::from_ref(path),
        }
    }

    /// The keys of the videos in the shard, read without the features. A Parquet file that cannot be read has no
    /// keys.
    pub fn keys(&self) -> std::collections::BTreeSet<String> {
        match &self.source {
            Source::Npy(paths) => paths.iter().map(|path| shard::key_of(path).to_owned()).collect(),
            Source::Parquet(path) => match super::parquet::texts(path, &self.columns.video) {
                Some(videos) => videos,
                None => self.columns.video_of_path(path).into_iter().collect(),
            },
        }
    }

    /// A hash of the identity of the files and of the names of the columns. The hash stays the same until a file is
    /// rewritten, replaced or touched, and does not depend on how the path of the folder is written.
    ///
    /// The value is a SHA-256 in hexadecimal. A missing file enters the hash as missing.
    pub fn fingerprint(&self) -> String {
        self.fingerprint_as(&mut SeenInputs::default())
    }

    /// Like [`Shard::fingerprint`], but files that the memory of `seen` has with the same content count as the same.
    pub(crate) fn fingerprint_as(&self, seen: &mut SeenInputs) -> String {
        seen.look_at(self.files());
        let mut hash = Sha256::new();
        hash.update(self.modality.as_str());
        hash.update(self.columns.to_string());
        self.files().iter().for_each(|path| seen.feed(&mut hash, path));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Modality of the rows of the shard.
    pub fn modality(&self) -> Modality {
        self.modality
    }

    /// Reads the shard in batches of whole videos. A batch is complete when it has at least `batch_rows` rows. The last
    /// batch, and a batch before a video of another width, can be smaller. Stops early if `sink` returns `Break`.
    ///
    /// Batches of about 256 rows stay in the cache of the processor, and are read a third faster than batches of
    /// 4096.
    ///
    /// A file that cannot be read at all becomes a rejected row (`row: None`), so that the other files are still
    /// read. Damaged files and panics of the parquet crate do not reach the caller; a panic of `sink` does.
    pub fn read(&self, batch_rows: usize, sink: &mut dyn FnMut(FeatureEvent) -> ControlFlow<()>) {
        match &self.source {
            Source::Npy(files) => shard::read_npy(files, self.modality, batch_rows, sink),
            Source::Parquet(path) => {
                shard::read_parquet(path, &self.columns, self.modality, batch_rows, sink);
            }
        }
    }
}
