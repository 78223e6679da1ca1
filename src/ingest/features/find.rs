//! Finds the files of features in a folder and in the folders below it.
//!
//! ```text
//! visual/<id>.npy                     npy files, also `.NPY` and `.npz`
//! visual/train/<id>.npy               in folders, for example one for each split
//! visual/part-0.parquet               Parquet files
//! visual/split=train/part-0.parquet   in folders of Hive partitions
//! visual/all.parquet/part-0.parquet   a folder that Spark wrote
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vaplan_schemas::Modality;

use crate::ingest::error::IngestError;
use crate::ingest::npy::is_npy;
use crate::ingest::remote;

/// The files of a folder of features.
#[derive(Debug, Default)]
pub(super) struct FoundFiles {
    pub(super) npy: Vec<PathBuf>,
    pub(super) parquet: Vec<PathBuf>,
    /// Number of other files and folders.
    pub(super) others: usize,
    /// What to do with one of the other files: see [`hint`].
    pub(super) hint: &'static str,
    /// The first of the other files and folders in order of paths, as an example for messages.
    pub(super) example: Option<PathBuf>,
}

/// Largest number of folders between the input and a file.
const DEEPEST: usize = 16;

/// Finds the files of features in a folder. If the folder itself has such files, folders below it are not read, because
/// they can hold other copies of the same features. Parquet files and folders whose name begins with `.` or `_` are not
/// read; neither are folders that are named for the other modality, such as `audio` or `modality=audio` below visual
/// features.
///
/// # Errors
/// Returns [`IngestError::Io`] if a folder cannot be listed.
pub(super) fn files(folder: &Path, modality: Modality) -> Result<FoundFiles, IngestError> {
    let mut found = FoundFiles::default();
    let mut visited = BTreeSet::new();
    walk(folder, modality, 0, &mut visited, &mut found)?;
    Ok(found)
}

/// Finds the objects of features below a URL, as [`files`] finds the files of a folder.
///
/// # Errors
/// Returns [`IngestError::Io`] if there is no object below the URL or a request fails.
pub(super) fn objects(folder: &Path, modality: Modality) -> Result<FoundFiles, IngestError> {
    let mut found = FoundFiles::default();
    let mut deeper = FoundFiles::default();
    for path in remote::below(folder)? {
        let inner = path.strip_prefix(folder).unwrap_or(&path);
        let folders: Vec<&Path> = inner
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        match folders.is_empty() {
            true => found.add(path),
            false
                if folders
                    .iter()
                    .any(|folder| hidden(folder) || of_other(folder, modality)) =>
            {
                found.other(path)
            }
            false => deeper.add(path),
        }
    }
    // Files of the folder itself count alone, as in a folder of the local disk.
    if found.count() == 0 {
        deeper.others += found.others;
        if deeper.hint.is_empty() {
            deeper.hint = found.hint;
        }
        deeper.example = deeper.example.into_iter().chain(found.example).min();
        return Ok(deeper);
    }
    Ok(found)
}

/// Returns whether a path has the extension of a Parquet file, in small or capital letters.
pub(super) fn is_parquet(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

fn walk(
    folder: &Path,
    modality: Modality,
    depth: usize,
    visited: &mut BTreeSet<PathBuf>,
    found: &mut FoundFiles,
) -> Result<(), IngestError> {
    // A link can lead back to a folder above it. Each folder is therefore read once.
    let real = folder.canonicalize().map_err(IngestError::io("list", folder))?;
    if depth > DEEPEST || !visited.insert(real) {
        return Ok(());
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
        let entry = entry.map_err(IngestError::io("list", folder))?;
        // Ask for the kind of links only: a call for each of a million files would take seconds.
        let kind = entry.file_type().map_err(IngestError::io("read", folder))?;
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            folders.push(entry.path());
        } else {
            found.add(entry.path());
        }
    }
    let beside_files = depth == 0 && found.count() > 0;
    for path in folders {
        let before = found.count();
        let like_a_file = is_npy(&path) || is_parquet(&path);
        if !hidden(&path) && !of_other(&path, modality) && (like_a_file || !beside_files) {
            walk(&path, modality, depth + 1, visited, found)?;
        }
        // A folder without features that is named like a file becomes a rejected row, when it is read as a file.
        if found.count() == before {
            found.add(path);
        }
    }
    Ok(())
}

impl FoundFiles {
    fn count(&self) -> usize {
        self.npy.len() + self.parquet.len()
    }

    fn add(&mut self, path: PathBuf) {
        // Names of videos may begin with any character, so no npy file is hidden.
        if is_npy(&path) {
            self.npy.push(path);
        } else if is_parquet(&path) && !hidden(&path) {
            self.parquet.push(path);
        } else {
            self.other(path);
        }
    }

    fn other(&mut self, path: PathBuf) {
        self.others += 1;
        if self.hint.is_empty() {
            self.hint = hint(&path);
        }
        if self.example.as_ref().is_none_or(|example| path < *example) {
            self.example = Some(path);
        }
    }
}

/// What to do with a file that is not read, for messages. Empty for most kinds of files.
pub(super) fn hint(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let of = |known: &str| extension.is_some_and(|extension| extension.eq_ignore_ascii_case(known));
    match of("h5") || of("hdf5") {
        true => ": HDF5 files are not read; `python -m vaplan.h5` makes npy files of the features of AVE",
        false => "",
    }
}

fn hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b".") || name.starts_with(b"_")
}

/// Returns whether a folder is named for the other modality.
fn of_other(folder: &Path, modality: Modality) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let own = name.strip_prefix("modality=").unwrap_or(&name);
    Modality::ALL
        .iter()
        .any(|other| *other != modality && other.as_str() == own)
}

/// Names the files of a shard of npy files for messages.
pub(super) fn span(folder: &Path, files: &[PathBuf]) -> String {
    let name = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let last = &files[files.len() - 1];
    format!("{}/{}..{}", folder.display(), name(&files[0]), name(last))
}
